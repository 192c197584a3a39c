from pathlib import Path

import pytest

from simvlm_jax.data import paths
from simvlm_jax.errors import UserError


def test_data_dir_follows_the_environment_at_each_call(monkeypatch):
    monkeypatch.delenv("SIMVLM_DATA_DIR", raising=False)
    assert paths.data_dir() == Path("data")
    monkeypatch.setenv("SIMVLM_DATA_DIR", "/somewhere else")
    assert paths.data_dir() == Path("/somewhere else")


def test_shards_are_listed_by_number_whatever_else_lies_there(tmp_path):
    names = [f"train-{index:05d}-of-00012.array_record" for index in range(12)]
    for name in [*reversed(names), "train-00000.txt", "train2-00000-of-00001.array_record"]:
        (tmp_path / name).touch()
    assert [path.name for path in paths.shard_paths(tmp_path, "train")] == names
    assert paths.shard_name("train", 11, 12) == names[11]


def test_missing_things_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no data folder .*nowhere.*SIMVLM_DATA_DIR"):
        paths.shard_paths(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="no split named 'train'"):
        paths.shard_paths(tmp_path, "train")
    (tmp_path / "train-00001-of-00002.array_record").touch()
    with pytest.raises(UserError, match="should have 2 shards"):
        paths.shard_paths(tmp_path, "train")


def test_shards_of_two_preparations_are_refused(tmp_path):
    (tmp_path / "train-00000-of-00001.array_record").touch()
    (tmp_path / "train-00000-of-00002.array_record").touch()
    with pytest.raises(UserError, match="should have 1 shards"):
        paths.shard_paths(tmp_path, "train")
