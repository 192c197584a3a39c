import contextlib
import threading

import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.training import folder


def test_files_are_written_whole_and_nothing_else_stays(tmp_path):
    folder.write_files(tmp_path, {"a": b"1", "deep/b": b"2"})
    folder.write_files(tmp_path, {"a": b"3"})
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*")}
    assert sorted(found) == ["a", "deep", "deep/b"]
    assert found["a"].read_bytes() == b"3" and found["deep/b"].read_bytes() == b"2"


def test_the_same_content_is_not_written_again(tmp_path):
    folder.write_files(tmp_path, {"a": b"1"})
    before = (tmp_path / "a").stat().st_mtime_ns, (tmp_path / "a").stat().st_ino
    folder.write_files(tmp_path, {"a": b"1"})
    assert ((tmp_path / "a").stat().st_mtime_ns, (tmp_path / "a").stat().st_ino) == before


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a"
    folder.write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            folder.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_fixed_files_must_be_there_and_the_same(tmp_path):
    files = {"vocabulary.model": b"v", "config.gin": b"c"}
    with pytest.raises(UserError, match="vocabulary.model does not match the checkpoints"):
        folder.require_same_files(tmp_path, files)
    folder.write_files(tmp_path, files)
    folder.require_same_files(tmp_path, files | {"config.gin": b"other"})
    folder.require_same_files(tmp_path, {})
    with pytest.raises(UserError, match="vocabulary.model does not match the checkpoints"):
        folder.require_same_files(tmp_path, {"vocabulary.model": b"w"})


def test_a_bucket_is_no_folder():
    with pytest.raises(UserError, match="gs://bucket/run is not a folder: mount a disk"):
        folder.require_shared("gs://bucket/run")


def test_a_shared_folder_is_made_and_left_empty(tmp_path):
    assert folder.require_shared(tmp_path / "new" / "run") == tmp_path / "new" / "run"
    assert not list((tmp_path / "new" / "run").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be made or written to"):
        folder.require_shared(tmp_path / "file")


def test_a_folder_that_another_process_does_not_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.hosts, "gather", lambda what, value: [value, ("host-1", False)])
    monkeypatch.setattr(folder.hosts, "first_says", lambda what, value: value)
    with pytest.raises(UserError, match="on host-1 is not that of"):
        folder.require_shared(tmp_path)


def test_only_one_run_at_a_time_has_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder, "LOCK_SECONDS", 0.1)
    with folder.locked(tmp_path):
        with pytest.raises(UserError, match=f"Another process trains in {tmp_path}: let it end"):
            with folder.locked(tmp_path):
                raise AssertionError("two runs have it")
        assert "waiting for its end" in capsys.readouterr().err
    with folder.locked(tmp_path):
        pass


def test_a_run_that_waits_for_the_one_before_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LOCK_SECONDS", 2)
    with contextlib.ExitStack() as first:
        first.enter_context(folder.locked(tmp_path))
        threading.Timer(0.3, first.close).start()
        with folder.locked(tmp_path):
            pass
