import os
import sys

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
