import json
import shutil

import pytest

from made_inputs import example, write
from simvlm_jax.cli.main import main

TEXTS = ["the evening garden is never red " * 5, "a small picture", "always green circle left"] * 9


@pytest.fixture
def given(tmp_path, monkeypatch, made_data):
    monkeypatch.setenv("SIMVLM_DATA_DIR", str(tmp_path / "default"))
    (tmp_path / "data").mkdir()
    shutil.copy(made_data / "vocabulary.model", tmp_path / "data")
    inputs = write(tmp_path / "in", [example(text=text) for text in TEXTS])
    return [f"--input={inputs}", f"--data_dir={tmp_path / 'data'}"]


def test_documents(given, tmp_path, capsys):
    options = [*given, "--name=prose", "--document_tokens=20", "--workers=1"]
    assert main(["prepare", "documents", *options]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "data" / "prose" / "summary-train.json").read_text())
    for how, share in summary["pad_share"].items():
        assert f"padding, {how}: {100 * share:.2f} %" in printed
    assert f"train {summary['records']['train']}" in " ".join(printed.split())
    assert main(["prepare", "documents", *options, "--keep_documents_apart"]) == 2
    assert "prepared with joined=True, not joined=False" in capsys.readouterr().err


def test_a_vocabulary_of_ones_own_is_kept_from_the_demo(given, tmp_path, capsys):
    (tmp_path / "data" / "vocabulary.model").unlink()
    options = [*given, "--vocabulary_size=200"]
    assert main(["prepare", "vocabulary", *options]) == 2
    most = capsys.readouterr().err.split()[-1].rstrip(".")
    options[-1] = f"--vocabulary_size={max(200, int(most))}"
    (tmp_path / "in2").mkdir()
    more = [example(text=f"{text} {n} word{n} more{n % 7}") for n, text in enumerate(TEXTS * 9)]
    options.append(f"--input={write(tmp_path / 'in2', more)}")
    assert main(["prepare", "vocabulary", *options]) == 0
    assert "is written" in capsys.readouterr().out
    assert main(["prepare", "vocabulary", *options]) == 0
    assert "is the same already" in capsys.readouterr().out
    assert main(["prepare", "openmoji", given[1]]) == 2
    assert "would replace the vocabulary of your own" in capsys.readouterr().err
