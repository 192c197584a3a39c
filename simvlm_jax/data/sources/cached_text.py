"""Remote or compressed text, put into a cache once: its lines are read by index there."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator

from simvlm_jax.data.sources.base import BadRecord
from simvlm_jax.data.sources.files import (
    CACHE_DIR_VARIABLE,
    LOCAL_BUFFER,
    REMOTE_BUFFER,
    cache_path,
    is_local,
    split_query,
    written_atomically,
)
from simvlm_jax.data.sources.shards import KnownFile
from simvlm_jax.errors import UserError

Pieces = Callable[[io.BufferedReader, str], Iterator[bytes]]  # of an open file, named for sentences
KIND = "texts"
MOST_TIMES = 200  # text packs to a fifth or a tenth; a bomb to a thousandth
ALWAYS_ALLOWED = 1 << 20  # bytes
LARGEST = 1 << 40  # bytes
_PIECE = 1 << 20
# A piece of zstd may unpack to 128 KiB for every 4 bytes, all of it at once.
_ZSTD_PIECE = 1 << 12


def cached_text(path: str, largest: int = LARGEST) -> str:
    """Copies a remote file, and unpacks a .gz or .zst file, if the cache does not have it.

    The cache knows a file by its path, its size and what its store gives to tell its versions
    apart: see `file_state`. So a file that has changed is fetched again.

    Args:
      path: a file; a local one that is not packed is as it is.
      largest: most bytes to write; when unpacking, no more than MOST_TIMES the packed ones either.

    Returns:
      The path of a local file.

    Raises:
      UserError: the file is missing, truncated, damaged, too large or a decompression bomb, it
        changes meanwhile, its package is not installed, or the cache has no room.
    """
    suffix = os.path.splitext(split_query(path)[0])[1]
    unpack = {".gz": _gzip_pieces, ".zst": _zstd_pieces}.get(suffix)
    if unpack is None and is_local(path):
        return path
    source = KnownFile.of(path)
    target = cache_path(path, KIND, ".txt", f"{source.size} {source.version}")
    if not os.path.exists(target):
        if unpack:
            largest = min(largest, max(source.size * MOST_TIMES, ALWAYS_ALLOWED))
        _write(target, source, unpack or _pieces, largest)
    return target


def _write(target: str, source: KnownFile, pieces: Pieces, most: int) -> None:
    try:
        with written_atomically(target) as output:
            for piece in _read(source, pieces):
                output.write(piece)
                if output.tell() > most:
                    raise UserError(
                        f"{source.path} has {source.size} bytes and gives more than {most}; that "
                        "looks like a decompression bomb. If it is none, unpack it yourself."
                    )
    except BadRecord as bad:
        raise UserError(f"{source.path} cannot be opened: {bad}.") from None
    except OSError as error:
        raise UserError(
            f"{os.path.dirname(target)} cannot take the text of {source.path} ({error.strerror}); "
            f"make room or set {CACHE_DIR_VARIABLE} to another folder."
        ) from None


def _read(source: KnownFile, pieces: Pieces) -> Iterator[bytes]:
    buffer = LOCAL_BUFFER if is_local(source.path) else REMOTE_BUFFER
    with source.open() as file:
        yield from pieces(io.BufferedReader(file, buffer), source.path)
    source.check()  # or parts of two versions could be put together


def _pieces(file: io.BufferedReader, path: str) -> Iterator[bytes]:
    del path
    while piece := file.read(_PIECE):
        yield piece


def _gzip_pieces(file: io.BufferedReader, path: str) -> Iterator[bytes]:
    if not file.peek(1):
        raise _damage(path, "it is empty")
    try:
        with gzip.GzipFile(fileobj=file) as unpacking:
            while piece := unpacking.read(_PIECE):
                yield piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damage(path, error) from None


def _zstd_pieces(file: io.BufferedReader, path: str) -> Iterator[bytes]:
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
    if within or not file.tell():
        raise _damage(path, "it ends in the middle")


def _damage(path: str, cause: object) -> UserError:
    return UserError(f"{path} is damaged or truncated ({cause}); fetch it again.")
