import hashlib
import json

import pytest

from simvlm_jax.data.preparing.data_sets import DataSet
from simvlm_jax.errors import UserError

SETTINGS = {"source": {"path": "/a"}, "seed": 0, "input_digest": "d"}


def prepare(data_set, settings=SETTINGS, names=("train-00000-of-00001.array_record",)):
    with data_set.working(settings) as stage:
        (stage / "shards").mkdir(exist_ok=True)
        facts = []
        for name in names:
            (stage / "shards" / name).write_bytes(name.encode())
            digest = hashlib.sha256(name.encode()).hexdigest()
            facts.append({"name": name, "records": 1, "bytes": 3, "sha256": digest})
        summary = {"settings": settings, "records": {"train": 1}}
        return data_set.install(stage / "shards", facts, summary)


@pytest.fixture
def data_set(tmp_path):
    return DataSet(tmp_path, "photos", "train")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "/a", "a..b", "-a", "a b", "ä", "a\n"]
)
@pytest.mark.parametrize("flag", ["name", "split"])
def test_names_that_no_file_should_have(tmp_path, name, flag):
    names = {"name": "good", "split": "good", flag: name}
    with pytest.raises(UserError, match=f"--{flag}=.* is no name"):
        DataSet(tmp_path, **names)


def test_prepared_and_found_again(data_set):
    assert data_set.finished(SETTINGS, ("train",)) is None
    summary = prepare(data_set)
    assert data_set.finished(SETTINGS, ("train",)) == summary
    assert sorted(path.name for path in data_set.folder.iterdir()) == [
        "summary-train.json",
        "train-00000-of-00001.array_record",
    ]
    assert summary["packages"]["python"] and summary["settings"] == SETTINGS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "prepared with seed=0, not seed=1; choose another --name"),
        ({"source": {"path": "/b"}}, "prepared with path=/a, not path=/b"),
        ({"new": 1}, "prepared with new=None, not new=1"),
        ({"input_digest": "e"}, "prepared before its input changed"),
    ],
)
def test_other_settings_are_refused(data_set, change, words):
    prepare(data_set)
    with pytest.raises(UserError, match=words):
        data_set.finished({**SETTINGS, **change}, ("train",))


def test_damage_is_told(data_set, capsys):
    prepare(data_set)
    (data_set.folder / "train-00000-of-00001.array_record").write_bytes(b"other")
    assert data_set.finished(SETTINGS, ("train",)) is None
    assert "Damaged: train-00000-of-00001.array_record" in capsys.readouterr().err


def test_work_under_other_settings_is_thrown_away(data_set, capsys):
    for key, left in (("a", []), ("a", ["done"]), ("b", [])):
        with pytest.raises(KeyboardInterrupt):
            with data_set.working({"key": key}) as stage:
                assert [path.name for path in stage.iterdir()] == left
                (stage / "done").touch()
                raise KeyboardInterrupt
    assert "other settings or another input" in capsys.readouterr().err


def test_two_splits_of_one_data_set(data_set, tmp_path):
    prepare(data_set)
    other = DataSet(tmp_path, "photos", "validation")
    assert other.finished(SETTINGS, ("validation",)) is None
    prepare(other, names=["validation-00000-of-00001.array_record"])
    assert data_set.finished(SETTINGS, ("train",)) and other.finished(SETTINGS, ("validation",))


def test_a_split_has_one_owner(data_set, tmp_path):
    prepare(data_set, names=[f"{s}-00000-of-00001.array_record" for s in ("train", "validation")])
    other = DataSet(tmp_path, "photos", "validation")
    with pytest.raises(UserError, match="validation is in .*photos already, by summary-train"):
        other.finished(SETTINGS, ("validation",))


def test_shards_of_others_are_not_touched(data_set):
    data_set.folder.mkdir()
    (data_set.folder / "train-00000-of-00001.array_record").touch()
    with pytest.raises(UserError, match="was not prepared by this command"):
        data_set.finished(SETTINGS, ("train",))


def test_a_file_in_the_folders_place(data_set):
    data_set.folder.touch()
    with pytest.raises(UserError, match="is a file; choose another --name"):
        data_set.finished(SETTINGS, ("train",))


def test_what_a_killed_installation_left_goes(data_set):
    (data_set.folder / ".working-train").mkdir(parents=True)
    (data_set.folder / "train-00001-of-00007.array_record").touch()
    assert data_set.finished(SETTINGS, ("train",)) is None
    prepare(data_set)
    assert [p.name for p in data_set.folder.glob("train-*")] == [
        "train-00000-of-00001.array_record"
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 1}'])
def test_a_summary_that_is_none(data_set, content):
    data_set.folder.mkdir()
    data_set.summary_path.write_text(content)
    assert data_set.finished(SETTINGS, ("train",)) is None


def test_the_summary_is_readable(data_set):
    prepare(data_set)
    assert json.loads(data_set.summary_path.read_text())["records"] == {"train": 1}
