import struct
import threading

import google_crc32c
import pytest

from simvlm_jax.data.sources import index
from simvlm_jax.errors import UserError

CONTENT = b"onetwothree"
ENTRIES = [(0, 3, 11), (3, 3, 22), (6, 5, 33)]


@pytest.fixture
def shard(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "shards" / "a.shard"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def scan(file, name):
    assert file.read() == CONTENT and name.endswith("a.shard")
    yield from ENTRIES


def make(shard, scan=scan):
    return index.make_index(str(shard), "letters", scan, threading.Event())


def beside(shard):
    return shard.with_name(shard.name + ".index")


def test_layout(shard):
    made = make(shard)
    assert made == index.Index(str(beside(shard)), 3, len(CONTENT))
    data = beside(shard).read_bytes()
    header = b"SimVLMix" + struct.pack("<I8sQQ", 1, b"letters", 3, len(CONTENT))
    assert data[:40] == header + struct.pack("<I", google_crc32c.value(header))
    assert list(struct.iter_unpack("<QII", data[40:])) == ENTRIES
    path, offset, length = made.entry_range(2)
    assert data[offset : offset + length] == struct.pack("<QII", *ENTRIES[2])
    assert index.find_index(str(shard), "letters") == made


def test_none_was_made(shard):
    assert index.find_index(str(shard), "letters") is None


def test_a_place_that_cannot_be_written(shard, monkeypatch):
    written = index.written_atomically

    def refuse(path):
        if str(path).startswith(str(shard.parent)):
            raise OSError(30, "Read-only file system")
        return written(path)

    monkeypatch.setattr(index, "written_atomically", refuse)
    made = make(shard)
    assert "/cache/indexes/" in made.path and not beside(shard).exists()
    assert index.find_index(str(shard), "letters") == made
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(shard.parent / "cache"))
    with pytest.raises(UserError, match="No index of .*a.shard can be written, neither at"):
        make(shard)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"", "is no index of ours"),
        (lambda data: b"0\t100\n100\t200\n", "is no index of ours"),
        (lambda data: data[:30], "is cut short"),
        (lambda data: data[:-1], "is cut short or too long"),
        (lambda data: data + bytes(16), "is cut short or too long"),
        (lambda data: data[:8] + b"\2" + data[9:], "has version 2 and not 1"),
        (lambda data: data[:20] + b"\4" + data[21:], "is damaged"),
        (lambda data: data[:39] + b"\4" + data[40:], "is damaged"),
    ],
)
def test_another_or_a_damaged_index(shard, change, sentence):
    make(shard)
    before = beside(shard).read_bytes()
    beside(shard).write_bytes(change(before))
    assert change(before) != before
    with pytest.raises(UserError, match=f"{beside(shard)} {sentence}"):
        index.find_index(str(shard), "letters")
    assert beside(shard).read_bytes() == change(before)  # never mended in silence


def test_an_index_of_another_format(shard):
    make(shard)
    with pytest.raises(UserError, match="made for letters shards and not for tar"):
        index.find_index(str(shard), "tar")


@pytest.mark.parametrize("content", [CONTENT + b"4", CONTENT[:-1], b""])
def test_a_changed_shard_is_not_indexed_anew(shard, content):
    make(shard)
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{shard} has {len(content)} bytes and had 11 .*delete"):
        index.find_index(str(shard), "letters")


def test_a_missing_shard(shard):
    make(shard)
    shard.unlink()
    with pytest.raises(UserError, match=f"no shard {shard}"):
        index.find_index(str(shard), "letters")
    with pytest.raises(UserError, match=f"no shard {shard}"):
        make(shard)
    shard.mkdir()
    with pytest.raises(UserError, match=f"{shard} cannot be read: it is not a file"):
        index.find_index(str(shard), "letters")


def test_a_shard_that_changes_meanwhile(shard):
    def growing(file, name):
        shard.write_bytes(CONTENT * 2)
        yield 0, 3, 11

    with pytest.raises(UserError, match=f"{shard} changed while it was indexed"):
        make(shard, growing)
    assert [path.name for path in shard.parent.iterdir()] == ["a.shard"]


def test_trouble_while_reading(shard):
    def failing(file, name):
        yield 0, 3, 11
        raise PermissionError(13, "no longer yours")

    with pytest.raises(UserError, match=f"{shard} cannot be indexed: .*no longer yours"):
        make(shard, failing)


def test_stopping(shard):
    stop = threading.Event()

    def stopped_meanwhile(file, name):
        yield 0, 3, 11
        stop.set()
        yield 3, 3, 22
        raise AssertionError

    with pytest.raises(index.Stopped):
        index.make_index(str(shard), "letters", stopped_meanwhile, stop)
    assert not beside(shard).exists()


def test_a_length_beyond_the_entry(shard):
    def huge(file, name):
        yield 0, 1 << 40, 11

    make(shard, huge)
    assert beside(shard).read_bytes()[48:52] == b"\xff" * 4
