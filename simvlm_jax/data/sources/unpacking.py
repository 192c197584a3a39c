"""Compressed text, unpacked once into a cache: only what is unpacked can be read by index."""

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from simvlm_jax.data.sources.local import BadRecord, LocalFile
from simvlm_jax.errors import UserError

CACHE_VARIABLE = "SIMVLM_CACHE_DIR"
MOST_TIMES = 200  # text packs to a fifth or a tenth; a bomb to a thousandth
ALWAYS_ALLOWED = 1 << 20  # bytes
LARGEST = 1 << 40  # bytes
_PIECE = 1 << 20
# A piece of zstd may unpack to 128 KiB for every 4 bytes, all of it at once.
_ZSTD_PIECE = 1 << 12


def cache_dir() -> Path:
    """Returns the folder of unpacked files: $SIMVLM_CACHE_DIR, or ~/.cache/simvlm_jax."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "simvlm_jax")


def unpacked(path: str, largest: int = LARGEST) -> str:
    """Unpacks a .gz or .zst file, if the cache does not have it.

    The cache knows a file by its path, size and time; nothing is ever deleted from it.

    Args:
      path: a file; one of another kind is as it is.
      largest: most bytes to unpack. No more than MOST_TIMES the packed ones either.

    Returns:
      The path of the unpacked file.

    Raises:
      UserError: the file is missing, truncated, damaged or a decompression bomb, its package is
        not installed, or the cache has no room.
    """
    reader = {".gz": _gzip_pieces, ".zst": _zstd_pieces}.get(os.path.splitext(path)[1])
    if reader is None:
        return path
    packed = LocalFile.of(path)
    identity = f"{os.path.realpath(path)}\0{packed.size}\0{packed.modified}"
    target = (
        cache_dir()
        / f"{hashlib.sha256(identity.encode('utf-8', 'surrogateescape')).hexdigest()}.txt"
    )
    if target.exists():
        return str(target)
    most = min(largest, max(packed.size * MOST_TIMES, ALWAYS_ALLOWED))
    if not packed.size:
        raise _damage(path, "it is empty")
    try:
        with packed.open() as file, _replacing(target) as output:
            for piece in reader(file, path):
                output.write(piece)
                if output.tell() > most:
                    raise UserError(
                        f"{path} has {packed.size} bytes and unpacks to more than {most}; that "
                        "looks like a decompression bomb. If it is none, unpack it yourself."
                    )
    except BadRecord as bad:
        raise UserError(f"{path} cannot be opened: {bad}.") from None
    return str(target)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Gives a file that gets its name when all went well, so that no part is ever taken for all."""
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as output:
            yield output
        os.replace(part, target)
        part = None
    except OSError as error:
        raise UserError(
            f"{target.parent} cannot take an unpacked file ({error.strerror}); make room or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from None
    finally:
        if part:
            os.unlink(part)


def _gzip_pieces(file: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as unpacking:
            while piece := unpacking.read(_PIECE):
                yield piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damage(path, error) from None


def _zstd_pieces(file: BinaryIO, path: str) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise UserError(f"To read {path}, run `pip install zstandard`.") from None
    new = zstandard.ZstdDecompressor().decompressobj  # its stream_reader hides a truncation
    frame, rest, within = new(), b"", False
    try:
        while piece := rest or file.read(_ZSTD_PIECE):
            yield frame.decompress(piece)
            rest, within = b"", not frame.eof
            if frame.eof:
                rest, frame = frame.unused_data, new()
    except zstandard.ZstdError as error:
        raise _damage(path, error) from None
    if within:
        raise _damage(path, "it ends in the middle")


def _damage(path: str, cause: object) -> UserError:
    return UserError(f"{path} is damaged or truncated ({cause}); fetch it again.")
