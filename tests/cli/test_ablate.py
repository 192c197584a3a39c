"""`simvlm ablate` from its flags to its files, with the runs themselves left out."""

import json
import shlex

import pytest

from made_ablation import COMPUTE, make_runs
from simvlm_jax.ablation import plan, running
from simvlm_jax.cli.main import main
from simvlm_jax.data import ablation

ROWS = "--rows=no_pretraining,two_blocks"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with the summary alone, and rows that cost nothing to count."""
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(plan, "compute_of", lambda *_: COMPUTE)
    (tmp_path / "data" / ablation.FOLDER).mkdir(parents=True)
    (tmp_path / "data" / ablation.FOLDER / ablation.SUMMARY).write_text("{}")
    return tmp_path / "runs"


def test_dry_run_prints_every_command_and_writes_nothing(folder, capsys):
    assert main(["ablate", f"--output_dir={folder}", "--dry_run", "--seeds=0,4", ROWS]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 * (3 + 2 + 3) and not folder.exists()
    assert [line[3] for line in lines[:3]] == ["train", "train", "evaluate"]
    assert f"--model_dir={folder}/base/seed4/pretraining" in [line[-1] for line in lines]


def test_what_is_finished_becomes_a_table_and_a_page(folder, capsys):
    make_runs(folder)
    assert main(["ablate", f"--output_dir={folder}", ROWS]) == 0
    out = capsys.readouterr().out
    assert f"{folder / 'table.md'}" in out
    assert json.loads((folder / "results.json").read_text())["rows"][1]["verdict"] == "holds"
    assert (folder / "index.html").read_text().startswith("<!DOCTYPE html>")
    assert main(["ablate", f"--output_dir={folder}", ROWS, "--table"]) == 0
    assert capsys.readouterr().out == (folder / "table.md").read_text() + "\n"


def test_a_run_that_fails_is_missing_and_the_code_is_1(folder, monkeypatch, capsys):
    scores = {"base": (0.5, 0.5, 0.5), "no_pretraining": (0.4, None, 0.4)}
    make_runs(folder, scores | {"two_blocks": (0.5, 0.4, 0.3)})

    def fail(runs, parallel, minutes, environment):
        assert (parallel, minutes) == (2, 90)
        assert environment["JAX_COMPILATION_CACHE_DIR"].startswith(str(folder))
        return running.Outcome(["no_pretraining, seed 1: failed"], stopped=False)

    monkeypatch.setattr(running, "run_all", fail)
    flags = [ROWS, "--parallel=2", "--budget_minutes=90"]
    assert main(["ablate", f"--output_dir={folder}", *flags]) == 1
    assert "Missing: no_pretraining, seed 1." in (folder / "table.md").read_text()


def test_runs_of_other_settings_are_not_mixed(folder, monkeypatch, capsys):
    make_runs(folder)
    assert main(["ablate", f"--output_dir={folder}", ROWS]) == 0
    other = COMPUTE | {"two_blocks": plan.Compute(81, 2.5e9, 40)}
    monkeypatch.setattr(plan, "compute_of", lambda *_: other)
    assert main(["ablate", f"--output_dir={folder}", ROWS]) == 2
    assert "begun with other steps" in capsys.readouterr().err
    monkeypatch.setattr(plan, "compute_of", lambda *_: COMPUTE)
    (folder.parent / "data" / ablation.FOLDER / ablation.SUMMARY).write_text("{ }")
    assert main(["ablate", f"--output_dir={folder}", ROWS]) == 2


def test_without_data_it_says_what_to_do(folder, capsys):
    (folder.parent / "data" / ablation.FOLDER / ablation.SUMMARY).unlink()
    assert main(["ablate", f"--output_dir={folder}", ROWS]) == 2
    assert "simvlm prepare ablation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--rows=basis", "no row 'basis'"),
        ("--seeds=0,0", "'0,0' is not a list of different whole numbers"),
        ("--seeds=", "is not a list"),
        ("--steps=0", "'0' is not a whole number from 1"),
        ("--parallel=0", "'0' is not a whole number from 1"),
    ],
)
def test_bad_flags_are_one_sentence(folder, capsys, flag, words):
    try:
        code = main(["ablate", f"--output_dir={folder}", flag])
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err
    assert code == 2 and words in error and error.count("\n") == 1


def test_another_downstream_task_is_named_by_flags(folder, capsys):
    flags = ["--downstream_verb=finetune", "--downstream_gin=a.gin", "--downstream_gin=b.gin"]
    flags += ["--evaluation_gin=c.gin", "--dry_run", "--seeds=0", ROWS]
    assert main(["ablate", f"--output_dir={folder}", *flags]) == 0
    lines = [shlex.split(line)[3:] for line in capsys.readouterr().out.splitlines()]
    first = [word for word in lines[1] if word.startswith("--gin_file")]
    assert lines[1][0] == "finetune" and first[1:] == [
        "--gin_file=a.gin",
        "--gin_file=b.gin",
        "--gin_file=ablations/from_pretraining.gin",
    ]
    assert lines[2][:2] == ["evaluate", "--gin_file=c.gin"]


def test_a_metric_has_a_section(folder, capsys):
    with pytest.raises(SystemExit):
        main(["ablate", f"--output_dir={folder}", "--metric=accuracy"])
    assert "is not SECTION.NAME" in capsys.readouterr().err
