import contextlib
import gzip
import zlib

import numpy as np
import pytest
import zstandard

from simvlm_jax.data.sources import cached_text as module
from simvlm_jax.data.sources import files
from simvlm_jax.data.sources.cached_text import cached_text
from simvlm_jax.errors import UserError

NOISE = np.random.default_rng(0).bytes(300_000)  # does not compress: frames of several blocks
PACKERS = {".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMVLM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(path, *limits):
    with open(cached_text(str(path), *limits), "rb") as file:
        return file.read()


def test_others_stay_where_they_are(tmp_path, cache):
    assert cached_text(str(tmp_path / "a.txt")) == str(tmp_path / "a.txt") and not cache.exists()


@pytest.mark.parametrize("kind", PACKERS)
def test_once(tmp_path, cache, kind, monkeypatch):
    path = tmp_path / f"a{kind}"
    path.write_bytes(PACKERS[kind](NOISE) + PACKERS[kind](b"second part"))
    assert read(path) == NOISE + b"second part"

    def refuse(file, path):
        raise AssertionError("unpacked again")

    with monkeypatch.context() as patch:
        for name in ("_gzip_pieces", "_zstd_pieces"):
            patch.setattr(module, name, refuse)
        assert read(path) == NOISE + b"second part"
    path.write_bytes(PACKERS[kind](b"new"))
    assert read(path) == b"new"
    assert len(list((cache / "texts").iterdir())) == 2  # and no parts


@pytest.mark.parametrize("kind", PACKERS)
def test_of_a_frame_without_its_size(tmp_path, kind):
    if kind == ".zst":
        packing = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    else:
        packing = zlib.compressobj(wbits=31)
    (tmp_path / f"a{kind}").write_bytes(packing.compress(NOISE) + packing.flush())
    assert read(tmp_path / f"a{kind}") == NOISE


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("length", [0, 1, 5, 100, 290_000, -1])
def test_what_is_cut_off_is_named(tmp_path, cache, kind, length):
    path = tmp_path / f"a{kind}"
    path.write_bytes(PACKERS[kind](NOISE)[:length])
    with pytest.raises(UserError, match=rf"a\{kind} is damaged or truncated"):
        cached_text(str(path))
    assert not list((cache / "texts").iterdir())


@pytest.mark.parametrize("kind", PACKERS)
def test_what_is_damaged_is_named(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    with_checksum = zstandard.ZstdCompressor(write_checksum=True)  # as the zstd command does
    packed = bytearray((gzip if kind == ".gz" else with_checksum).compress(NOISE))
    packed[150_000] ^= 255
    path.write_bytes(packed)
    with pytest.raises(UserError, match="is damaged or truncated"):
        cached_text(str(path))
    path.write_bytes(b"not packed at all")
    with pytest.raises(UserError, match="is damaged or truncated"):
        cached_text(str(path))


@pytest.mark.parametrize("kind", PACKERS)
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, cache, kind, monkeypatch):
    most = 0
    written = files.written_atomically

    @contextlib.contextmanager
    def watching(target):
        nonlocal most
        with written(target) as output:
            try:
                yield output
            finally:
                most = output.tell()

    monkeypatch.setattr(module, "written_atomically", watching)
    path = tmp_path / f"a{kind}"
    path.write_bytes(PACKERS[kind](bytes(400 << 20)))
    with pytest.raises(UserError, match="decompression bomb"):
        cached_text(str(path))
    assert most < 250 << 20 and not list((cache / "texts").iterdir())


def test_limits(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))  # small enough, though 1,000 times as large
    assert read(path) == bytes(1 << 20)
    path.write_bytes(gzip.compress(NOISE))
    with pytest.raises(UserError, match="more than 1000;"):
        cached_text(str(path), 1000)


def test_a_cache_that_cannot_be_written(tmp_path, cache):
    cache.write_text("a file")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a"))
    with pytest.raises(UserError, match="texts cannot take .*set SIMVLM_CACHE_DIR"):
        cached_text(str(tmp_path / "a.gz"))


def test_a_missing_package_and_a_missing_file(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no file .*a\.zst"):
        cached_text(str(tmp_path / "a.zst"))
    (tmp_path / "a.zst").write_bytes(zstandard.compress(b"a"))
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(UserError, match="pip install zstandard"):
        cached_text(str(tmp_path / "a.zst"))
