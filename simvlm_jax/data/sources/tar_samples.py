"""Where the samples of a tar archive lie, as the `webdataset` library groups its members.

Headers are understood by Python's tarfile; only the walk from one to the next is ours, since the
library keeps every member in memory, believes any length, and does not show the bytes it passes.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from simvlm_jax.data.sources.index import Entry
from simvlm_jax.errors import UserError

BLOCK = tarfile.BLOCKSIZE
LONGEST_NAME = 1 << 20  # bytes of one extended header
_CHUNK = 1 << 20
_SIZE, _TYPE = slice(124, 136), slice(156, 157)  # of a header's fields
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# What tarfile raises of hostile headers: numbers in a PAX header that are none, and header upon
# header, each of which it reads within the one before.
UNREADABLE = (tarfile.TarError, ValueError, OverflowError, RecursionError)
_META = re.compile(r"__[^/]*__($|/)")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def key_and_suffix(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Splits a member's name at the first dot of its last part.

    Example: `a/b.c/0001.seg.PNG` is the sample `a/b.c/0001` and the suffix `seg.png`.

    Args:
      member: any member.

    Returns:
      (key, suffix in lower case), or None for what belongs to no sample: folders, hidden files,
      names without a dot, and `__meta__` members.
    """
    folder, slash, name = member.name.rpartition("/")
    stem, dot, suffix = name.partition(".")
    if member.isdir() or not stem or not dot or _META.match(member.name):
        return None
    return folder + slash + stem, suffix.lower()


def scan_samples(file: BinaryIO, shard: str) -> Iterator[Entry]:
    """Yields (offset, length, CRC-32C) of the bytes of every sample's members, headers and all.

    Args:
      file: an uncompressed tar archive, open at its beginning.
      shard: its name.

    Raises:
      UserError: it is compressed, sparse, damaged or cut.
    """
    position = 0
    key, start, checksum = None, 0, 0
    while header := _header(file, shard, position):
        member = _member(header, shard, position)
        named = key_and_suffix(member)
        if named and named[0] != key:
            if key is not None:
                yield start, position - start, checksum
            key, start, checksum = named[0], position, 0
        left = _data_blocks(member) * BLOCK
        end = position + len(header) + left
        checksum = google_crc32c.extend(checksum, header)
        while left and (part := file.read(min(left, _CHUNK))):
            checksum = google_crc32c.extend(checksum, part)
            left -= len(part)
        if left:
            raise _cut(shard, position)
        position = end
    if key is not None:
        yield start, position - start, checksum
    while part := file.read(_CHUNK):
        if part.count(0) != len(part):
            raise UserError(
                f"The shard {shard} has more after its end at byte {position}, as two archives put "
                "together have; make two shards of it."
            )


def _header(file: BinaryIO, shard: str, position: int) -> bytes:
    """Reads the blocks of a member's header, with those that only extend it; none at the end."""
    whole = b""
    while True:
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise _cut(shard, position) if position or not block else _damaged(shard, 0, block)
        if block.count(0) == BLOCK:
            if whole:
                raise _damaged(shard, position, whole)
            return b""
        whole += block
        if block[_TYPE] not in _EXTENDED:
            return whole
        try:
            size = tarfile.nti(block[_SIZE])
        except tarfile.HeaderError:
            raise _damaged(shard, position, whole) from None
        if not 0 <= size <= LONGEST_NAME - len(whole):
            raise _damaged(shard, position, whole)
        wanted = -(-size // BLOCK) * BLOCK
        extension = file.read(wanted)
        if len(extension) < wanted:
            raise _cut(shard, position)
        whole += extension


def _member(header: bytes, shard: str, position: int) -> tarfile.TarInfo:
    try:
        if len(header) == BLOCK:  # without the cost of opening an archive
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        else:
            member = tarfile.TarFile(fileobj=io.BytesIO(header)).firstmember
    except UNREADABLE:
        member = None
    if member is None or member.size < 0:
        raise _damaged(shard, position, header)
    if member.issparse() or member.type == tarfile.GNUTYPE_SPARSE:
        raise UserError(
            f"The shard {shard} has a sparse member at byte {position}; write the archive without "
            "--sparse."
        )
    return member


def _data_blocks(member: tarfile.TarInfo) -> int:
    # Links, folders and devices may name a size and have no data.
    has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
    return -(-member.size // BLOCK) if has_data else 0


def _cut(shard: str, position: int) -> UserError:
    return UserError(
        f"The shard {shard} ends at or within the member at byte {position}, without the mark of "
        "an archive's end; bring the whole file."
    )


def _damaged(shard: str, position: int, block: bytes) -> UserError:
    if position:
        return UserError(f"The shard {shard} is damaged at byte {position}; bring a whole file.")
    for start, name in _COMPRESSED.items():
        if block.startswith(start):
            return UserError(
                f"The shard {shard} is compressed with {name}, so its samples cannot be read by "
                "index; decompress it."
            )
    return UserError(f"The shard {shard} is no tar archive.")
