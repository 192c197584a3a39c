"""What a supervisor knows of a run by its folder: the newest finished checkpoint."""

import pytest

from simvlm_jax import supervisor


@pytest.mark.parametrize(
    ("folders", "newest"),
    [
        ([], None),
        (["checkpoints"], None),
        (["checkpoints/90", "checkpoints/100"], 100),
        (["checkpoints/90", "checkpoints/100.orbax-checkpoint-tmp"], 90),
        (["checkpoint_90", "checkpoint_100", "checkpoint_200.tmp-1700"], 100),
        (["checkpoints/90", "checkpoint_70"], 90),
    ],
)
def test_the_newest_finished_checkpoint(folders, newest, tmp_path):
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    assert supervisor.newest_step(str(tmp_path)) == newest
    assert supervisor.newest_step(str(tmp_path / "not there")) is None


def test_in_a_bucket_a_checkpoint_is_finished_by_its_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_path", lambda model_dir: tmp_path)
    (tmp_path / "checkpoints/90").mkdir(parents=True)
    (tmp_path / "checkpoints/100").mkdir()
    (tmp_path / "checkpoints/90/commit_success.txt").write_text("")
    assert supervisor.newest_step("gs://bucket/run") == 90
    (tmp_path / "checkpoint_95").mkdir()  # T5X renames there too
    assert supervisor.newest_step("gs://bucket/run") == 95
