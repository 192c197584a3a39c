"""The index of a shard: where each record lies and what its bytes sum to, `<shard>.index`.

A header of 40 bytes, then 16 bytes per record: offset (u64), length (u32) and CRC-32C (u32) of its
bytes, all little endian. The header has a checksum of its own; the entries need none, since a wrong
one leads to bytes that do not match. So opening a shard costs 40 bytes, however long it is.

An index is made once. A shard that has another size afterwards is refused and never indexed anew by
itself: the records' numbers, and with them the order of training, would move.
"""

import dataclasses
import errno
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

import google_crc32c

from simvlm_jax.data.sources.files import (
    cache_path,
    file_size,
    is_local,
    open_in_order,
    reason,
    split_query,
    written_atomically,
)
from simvlm_jax.data.sources.patterns import INDEX_SUFFIX
from simvlm_jax.errors import UserError

MAGIC, VERSION = b"SimVLMix", 1
CACHED_KIND = "indexes"
ENTRY = struct.Struct("<QII")
LONGEST = (1 << 32) - 1  # what an entry can say; longer records are refused when read
_HEADER = struct.Struct("<8sI8sQQ")
_CHECKSUM = struct.Struct("<I")
ENTRIES_START = _HEADER.size + _CHECKSUM.size
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
Entry = tuple[int, int, int]
Scan = Callable[[BinaryIO, str], Iterator[Entry]]


@dataclasses.dataclass(frozen=True)
class Index:
    """An index that was checked against its shard.

    Attributes:
      path: of the index, a local file.
      records: how many the shard has.
      shard_bytes: size of the shard.
    """

    path: str
    records: int
    shard_bytes: int

    def entry_range(self, position: int) -> tuple[str, int, int]:
        """Returns the byte range of a record's entry."""
        return self.path, ENTRIES_START + position * ENTRY.size, ENTRY.size


class Stopped(Exception):
    """Another shard was refused, so this one need not be read to its end."""


def shard_size(shard: str) -> int:
    """Returns the size of a shard in bytes.

    Raises:
      UserError: there is no such shard, or it cannot be reached.
    """
    try:
        return file_size(shard)
    except FileNotFoundError:
        raise UserError(f"There is no shard {shard}; bring it back or prepare the data.") from None
    except OSError as error:
        raise UserError(f"The shard {shard} cannot be read: {reason(error)}.") from error


def find_index(shard: str, kind: str) -> Index | None:
    """Finds the index of a shard beside it or in the cache, and checks its header.

    One that lies beside a remote shard is copied into the cache, once.

    Args:
      shard: its path.
      kind: the format of the shard, at most 8 letters.

    Returns:
      The index, or None where none was made yet.

    Raises:
      UserError: the shard is missing or has changed, or the index is damaged or of another kind.
    """
    size = shard_size(shard)
    beside, cached = _beside(shard), cache_path(shard, CACHED_KIND, INDEX_SUFFIX)
    try:
        if is_local(shard):
            found = next((path for path in (beside, cached) if os.path.exists(path)), None)
        else:
            found = cached if os.path.exists(cached) else _copied(beside, cached, shard, size, kind)
        return _checked(found, shard, size, kind) if found else None
    except OSError as error:
        raise UserError(f"The index of {shard} cannot be read: {reason(error)}.") from error


def make_index(shard: str, kind: str, scan: Scan, stop: threading.Event) -> Index:
    """Reads a shard from end to end and writes its index beside it, or else into the cache.

    Args:
      shard: its path.
      kind: its format.
      scan: takes an open shard and its name and yields (offset, length, CRC-32C) per record.
      stop: set when the work is no longer wanted.

    Returns:
      The index.

    Raises:
      UserError: the shard is damaged or changes meanwhile, or no place for the index can be
        written.
      Stopped: `stop` was set.
    """
    cached = cache_path(shard, CACHED_KIND, INDEX_SUFFIX)
    places = [_beside(shard), cached] if is_local(shard) else [cached]
    for place in places:
        try:
            with written_atomically(place) as index:
                size, records = _fill(index, shard, kind, scan, stop)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise UserError(f"The index {place} cannot be written: {reason(error)}.") from error
        else:
            return Index(place, records, size)
    raise UserError(f"No index of {shard} can be written, neither at {' nor at '.join(places)}.")


def _fill(
    index: BinaryIO, shard: str, kind: str, scan: Scan, stop: threading.Event
) -> tuple[int, int]:
    size, records = shard_size(shard), 0
    index.write(bytes(ENTRIES_START))
    try:
        with open_in_order(shard) as file:
            for offset, length, checksum in scan(file, shard):
                if stop.is_set():
                    raise Stopped
                index.write(ENTRY.pack(offset, min(length, LONGEST), checksum))
                records += 1
    except OSError as error:
        raise UserError(f"The shard {shard} cannot be indexed: {reason(error)}.") from error
    if shard_size(shard) != size:
        raise UserError(f"The shard {shard} changed while it was indexed; try again.")
    index.seek(0)
    header = _HEADER.pack(MAGIC, VERSION, kind.encode(), records, size)
    index.write(header + _CHECKSUM.pack(google_crc32c.value(header)))
    return size, records


def _beside(shard: str) -> str:
    path, mark, query = split_query(shard)
    return path + INDEX_SUFFIX + mark + query


def _copied(beside: str, cached: str, shard: str, size: int, kind: str) -> str | None:
    try:
        # Each record has an entry, and no format has records of fewer bytes than that.
        if (length := file_size(beside)) > ENTRIES_START + size:
            raise UserError(
                f"The index {beside} has {length} bytes, more than any index of a shard of {size} "
                "bytes can have; delete it."
            )
        with open_in_order(beside) as source, written_atomically(cached) as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            _header(target.name, shard, beside, kind)  # a cut copy must not stay
    except OSError:  # stores that list nothing for us forbid what is not there
        return None
    return cached


def _checked(path: str, shard: str, size: int, kind: str) -> Index:
    index = _header(path, shard, path, kind)
    if index.shard_bytes != size:
        raise UserError(
            f"The shard {shard} has {size} bytes and had {index.shard_bytes} when its index was "
            f"made: bring back that shard, or delete {path} to number its records anew."
        )
    return index


def _header(path: str, shard: str, name: str, kind: str) -> Index:
    mend = f"delete {name} to make it again from {shard}."
    with open(path, "rb") as file:
        data = file.read(ENTRIES_START)
        size = os.fstat(file.fileno()).st_size
    if data[: len(MAGIC)] != MAGIC:
        raise UserError(f"The file {name} is no index of ours; move it away if it is of use.")
    if len(data) < ENTRIES_START:
        raise UserError(f"The index {name} is cut short; {mend}")
    header, (checksum,) = data[: _HEADER.size], _CHECKSUM.unpack(data[_HEADER.size :])
    _, version, found, records, shard_bytes = _HEADER.unpack(header)
    if version != VERSION:
        raise UserError(f"The index {name} has version {version} and not {VERSION}; {mend}")
    if checksum != google_crc32c.value(header):
        raise UserError(f"The index {name} is damaged; {mend}")
    if found.rstrip(b"\0") != kind.encode():
        raise UserError(
            f"The index {name} was made for {found.rstrip(bytes(1)).decode(errors='replace')} "
            f"shards and not for {kind}; use the source of that format, or delete it."
        )
    if size != ENTRIES_START + records * ENTRY.size:
        raise UserError(f"The index {name} is cut short or too long; {mend}")
    return Index(path, records, shard_bytes)
