import pytest

from made_inputs import pair, write
from simvlm_jax.cli.main import main
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.errors import UserError


def test_an_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path))
    path = write(tmp_path / "in", [pair(n) for n in range(9)])
    assert main(["inspect", "data", f"--input={path}", "--first=1", "--sample=4"]) == 0
    printed = capsys.readouterr()
    assert "9 records in 2 files" in printed.out and "sample of 4 records, 4" in printed.out
    assert printed.out.count("\nrecord ") == 1 and "sampling 4/4" in printed.err


def test_a_task(data_folder, capsys):
    given = ["--task=openmoji_prefix_lm", "--split=variants", "--field=caption/en"]
    assert main(["inspect", "data", *given]) == 0
    printed = capsys.readouterr().out
    assert "7 records" in printed and "caption/en, characters" in printed and "PNG 7" in printed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "either --input or --task"),
        (["--input=a", "--task=b"], "either --input or --task"),
        (
            ["--task=nothing"],
            "no task 'nothing'; there are ablation_clean_lm, ablation_clean_prefix_lm",
        ),
        (["--task=openmoji_lm", "--split=test"], "no split 'test'"),
        (["--input=nowhere"], "nothing at --input="),
    ],
)
def test_refusals(data_folder, capsys, given, words):
    assert main(["inspect", "data", *given]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(("image", "text"), [(None, "caption"), ("", "text")])
def test_rows_have_fields_of_usual_names(tmp_path, monkeypatch, image, text):
    seen = []

    def remember(source):
        seen.append((source.image_field, source.text_field))
        raise UserError("enough")

    monkeypatch.setattr(Input, "open", remember)
    (tmp_path / "a.csv").touch()
    given = [f"--input={tmp_path / 'a.csv'}", *([] if image is None else ["--image_field="])]
    assert main(["inspect", "data", *given]) == 2
    assert seen == [(image, text)]
