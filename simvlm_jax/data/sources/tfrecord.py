"""TFRecord shards, uncompressed, read by index.

Each record lies in a frame: its length (u64), a checksum of the length, its bytes, a checksum of
them: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import google_crc32c

from simvlm_jax.data.sources.base import Features, Unreadable
from simvlm_jax.data.sources.examples import fault_of
from simvlm_jax.data.sources.index import Entry
from simvlm_jax.data.sources.indexed import IndexedRecords
from simvlm_jax.data.sources.patterns import Patterns, PatternSource
from simvlm_jax.errors import UserError

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_MASK = 0xA282EAD8
_CHUNK = 1 << 20


class TFRecords(IndexedRecords):
    """Random access over TFRecord files."""

    kind = "tfrecord"

    def __init__(self, shards: Sequence[str], features: Features):
        """Opens the shards; every record must have these features."""
        self._features = dict(features)
        super().__init__(shards)

    @staticmethod
    def scan(file: BinaryIO, shard: str) -> Iterator[Entry]:
        """Yields (offset, length, CRC-32C as its writer noted it) of every record.

        A record whose bytes are damaged is found when it is read, and keeps its place.
        """
        position = 0
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise _cut(shard, position)
            length, checksum = _HEADER.unpack(header)
            if checksum != _masked(google_crc32c.value(header[:8])):
                raise _no_frame(shard, position, header)
            start, left = position + _HEADER.size, length
            while left and (part := file.read(min(left, _CHUNK))):
                left -= len(part)
            footer = file.read(_FOOTER.size)
            if len(footer) < _FOOTER.size:
                raise _cut(shard, position)
            yield start, length, _unmasked(*_FOOTER.unpack(footer))
            position = start + length + _FOOTER.size

    def decode(self, data: bytes) -> bytes | Unreadable:
        """Returns the Example, where it is one with all features."""
        return fault_of(data, self._features) or data


class TFRecordSource(PatternSource):
    """A seqio source over TFRecord shards of tf.train.Examples, read by index."""

    def __init__(self, name: str, splits: Mapping[str, Patterns], features: Features):
        """Describes the source.

        Example: `TFRecordSource("photos", {"train": "gs://bucket/photos/train-*"}, fields)`.

        Args:
          name: what sentences call it.
          splits: of each split, its shards: a path, a glob, a range as in
            `train-{00000..00099}.tfrecord`, or a list of those; a relative path lies in the data
            folder.
          features: what to parse from each record; one that lacks a field is Unreadable.
        """
        super().__init__(name, splits, features)

    def open(self, shards: Sequence[str]) -> TFRecords:
        """Opens shards for reading by index."""
        return TFRecords(shards, self._features)


def _masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


def _unmasked(masked: int) -> int:
    rotated = (masked - _MASK) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def _cut(shard: str, position: int) -> UserError:
    return UserError(
        f"The shard {shard} ends within the record at byte {position}; bring the whole file."
    )


def _no_frame(shard: str, position: int, header: bytes) -> UserError:
    if position == 0 and header[:2] == b"\x1f\x8b":
        return UserError(
            f"The shard {shard} is compressed, so its records cannot be read by index; decompress "
            "it with gunzip."
        )
    if position == 0:
        return UserError(f"The shard {shard} is no TFRecord file, or is compressed (zlib).")
    return UserError(
        f"The shard {shard} is damaged at byte {position}: the length of a record there does not "
        "match its checksum; bring a whole file."
    )
