import os
import struct

import fsspec
import pytest

from simvlm_jax.data.sources import Unreadable, files
from simvlm_jax.data.sources.base import BadRecord
from simvlm_jax.data.sources.shards import FileShard, KnownFile, open_shards
from simvlm_jax.errors import UserError


class Numbers(FileShard):
    """A file of 64-bit numbers, of which odd ones are bad."""

    def __len__(self):
        return self.file.size // 8

    def record(self, file, position):
        file.seek(8 * position)
        data = file.read(8)
        if data[0] % 2:
            raise BadRecord("the number is odd")
        return data


def numbers(*values):
    return struct.pack(f"<{len(values)}Q", *values)


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path, monkeypatch):
    """Writes files of one kind of store, by name; None deletes one."""
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    folder = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
    system, root = fsspec.core.url_to_fs(folder)

    def write(name, content):
        if content is None:
            system.rm(f"{root}/{name}")
        else:
            with fsspec.open(f"{folder}/{name}", "wb") as file:
                file.write(content)
        return f"{folder}/{name}"

    return write


def test_records_of_several_shards(place):
    paths = [place("a", numbers(0, 2, 5)), place("b", b""), place("c", numbers(8))]
    records = open_shards(Numbers, paths)
    bad = Unreadable("the number is odd")
    assert records.read([3, 2, 1, 0, 3]) == [
        numbers(8), bad, numbers(2), numbers(0), numbers(8),
    ]  # fmt: skip
    assert records.shards == tuple(paths) and records.name(3) == (paths[2], "0")
    assert open_shards(Numbers, []).read([]) == []


def test_a_file_that_changes_or_vanishes_gives_nothing_more(place):
    path = place("a", numbers(0, 2))
    shard = Numbers(path)
    place("a", numbers(4, 6))  # of the same size
    if "://" not in path:
        os.utime(path, ns=(1, 1))  # within the clock's tick it would look the same
    changed = Unreadable("the shard has changed since it was opened")
    assert shard.read([1, 0]) == [changed, changed]
    place("a", None)
    assert shard.read([1]) == [Unreadable("the shard has vanished since it was opened")]
    with pytest.raises(UserError, match=f"There is no file {path}"):
        Numbers(path)


def test_trouble_at_the_opening_names_the_shard(place, monkeypatch):
    class Opening(Numbers):
        def __init__(self, path):
            super().__init__(path, "the shard of the user")
            place("a", numbers(1, 2, 3))
            with self.opening():
                raise AssertionError

    with pytest.raises(UserError, match="the shard of the user cannot be opened: .* has changed"):
        Opening(place("a", b""))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match=f"{path} cannot be opened: it is not a file"):
            KnownFile.of(str(path))
    (tmp_path / "a").write_bytes(b"")
    known = KnownFile.of(str(tmp_path / "a"))
    os.unlink(tmp_path / "a")
    os.mkfifo(tmp_path / "a")  # nobody writes: to open it must not wait
    with pytest.raises(BadRecord, match="has changed"):
        known.check()


def test_causes_of_stores_are_kept(tmp_path, monkeypatch):
    path = f"memory://{tmp_path.name}/a"
    with fsspec.open(path, "wb") as file:
        file.write(numbers(0, 2))
    shard = Numbers(path)
    monkeypatch.setattr(files.Files, "read", lambda self, ranges: [files.NO_ANSWER] * len(ranges))
    assert shard.read([0]) == [Unreadable("the shard cannot be read")]
