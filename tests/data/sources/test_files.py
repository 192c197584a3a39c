import io
import os
import sys
import time

import fsspec
import pytest

from simvlm_jax.data.sources import Unreadable, files
from simvlm_jax.errors import UserError

CONTENT = bytes(range(256)) * 8
GONE, EARLY = Unreadable("the shard has vanished"), Unreadable("the shard ends early")


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path, monkeypatch):
    """A folder that holds the file `a`, without a slash at its end."""
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    if request.param == "memory":
        folder = f"memory://{tmp_path.name}"
        with fsspec.open(f"{folder}/a", "wb") as file:
            file.write(CONTENT)
        yield folder
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    else:
        (tmp_path / "a").write_bytes(CONTENT)
        yield str(tmp_path)


def test_ranges_and_sizes(place):
    path, size = f"{place}/a", len(CONTENT)
    assert files.file_size(path) == size
    wanted = [(0, 10), (300, 20), (size - 5, 5), (7, 0)]
    found = files.Files().read([(path, *span) for span in wanted])
    assert found == [CONTENT[offset : offset + length] for offset, length in wanted]
    with files.open_in_order(path) as file:
        assert (file.read(100), file.read(), file.read(1)) == (CONTENT[:100], CONTENT[100:], b"")


def test_ranges_that_are_not_there(place):
    size = len(CONTENT)
    found = files.Files().read(
        [(f"{place}/a", size - 5, 6), (f"{place}/b", 0, 3), (f"{place}/a", size + 9, 1)]
    )
    assert found == [EARLY, GONE, EARLY]
    with pytest.raises(FileNotFoundError):
        files.file_size(f"{place}/b")
    with pytest.raises(FileNotFoundError), files.open_in_order(f"{place}/b"):
        pass


def test_local_and_remote_ranges_at_once(tmp_path):
    (tmp_path / "a").write_bytes(b"here")
    with fsspec.open("memory://mixed/a", "wb") as file:
        file.write(b"there")
    places = [("memory://mixed/a", 1, 3), (f"{tmp_path}/a", 1, 2), ("memory://mixed/a", 0, 2)]
    assert files.Files().read(places) == [b"her", b"er", b"th"]


def test_what_a_file_has_is_enough_where_it_need_not_be_exact(place):
    size = len(CONTENT)
    spans = [(0, size + 7), (size - 3, 9), (size, 5), (size + 9, 5)]
    found = files.Files().read([(f"{place}/a", *span) for span in spans], exact=False)
    assert found == [CONTENT, CONTENT[-3:], b"", b""]
    assert files.Files().read([(f"{place}/b", 0, 9)], exact=False) == [GONE]


def test_states_tell_contents_of_one_size_apart(place):
    size, version = files.file_state(f"{place}/a")
    assert (size, version) == (len(CONTENT), files.file_state(f"{place}/a")[1]) and version
    time.sleep(0.02)  # more than a tick of the file system's clock
    with fsspec.open(f"{place}/a", "wb") as file:
        file.write(CONTENT[::-1])
    assert files.file_state(f"{place}/a")[0] == size
    assert files.file_state(f"{place}/a")[1] != version


def test_a_remote_file_is_read_as_an_open_one(tmp_path):
    path = f"memory://{tmp_path.name}/a"
    with fsspec.open(path, "wb") as file:
        file.write(CONTENT)
    mine, theirs = files.RemoteFile(path, len(CONTENT)), io.BytesIO(CONTENT)
    moves = [(5, os.SEEK_SET), (-7, os.SEEK_END), (3, os.SEEK_CUR), (-99, os.SEEK_CUR),
             (9999, os.SEEK_SET)]  # fmt: skip
    for move in moves:
        assert mine.seek(*move) == theirs.seek(*move)
        assert mine.read(50) == theirs.read(50)
        assert mine.tell() == theirs.tell()
    with pytest.raises(ValueError, match="place -1"):
        mine.seek(-1)
    shorter = files.RemoteFile(path, len(CONTENT) + 1)
    with pytest.raises(files.ReadError, match="the shard ends early"):
        shorter.readall()


def test_a_folder_has_no_size(place):
    with pytest.raises(OSError, match="it "):
        files.file_size(place)


def test_a_remote_glob_keeps_the_scheme(tmp_path):
    for name in ("b.tar", "a.tar", "sub/c.tar", "d.txt"):
        with fsspec.open(f"memory://{tmp_path.name}/{name}", "wb") as file:
            file.write(b"")
    folder = f"memory://{tmp_path.name}"
    found = files.remote_glob(f"{folder}/*")
    assert sorted(found) == [f"{folder}/{name}" for name in ("a.tar", "b.tar", "d.txt")]
    assert files.remote_glob(f"{folder}/nothing*") == []


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for use in (
        files.file_size,
        files.remote_glob,
        lambda path: files.Files().read([(path, 0, 1)]),
    ):
        with pytest.raises(UserError, match="Reading s3://a/b .*`pip install s3fs`"):
            with use("s3://a/b"):  # only the last gets this far
                pass


def test_an_unfinished_file_never_was(tmp_path):
    path = tmp_path / "made" / "a"
    with files.written_atomically(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(KeyError), files.written_atomically(path) as file:
        file.write(b"second")
        raise KeyError
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["a"]
    with files.written_atomically(path) as file:
        file.write(b"third")
    assert path.read_bytes() == b"third"


def test_places_in_the_cache_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths = ["gs://a/x.tar", "gs://b/x.tar", "s3://a/x.tar", "/a/x.tar", "gs://a/" + "x" * 900]
    places = {files.cache_path(path, "indexes", ".index") for path in paths}
    assert len(places) == len(paths)
    assert all(os.path.dirname(place) == str(tmp_path / "indexes") for place in places)
    assert max(len(os.path.basename(place)) for place in places) < 200
    assert files.cache_path("a/x.tar", "indexes", "") == files.cache_path(
        str(tmp_path / "a/x.tar"), "indexes", ""
    )
    assert files.cache_path("gs://a/../../..", "indexes", "").startswith(str(tmp_path / "indexes"))
    monkeypatch.delenv("SIMVLM_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.cache_path("a", "indexes", "").startswith(
        str(tmp_path / "home/.cache/simvlm_jax/")
    )
