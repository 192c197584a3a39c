"""Records of shards that have an index: one reader for every such format."""

import abc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, ClassVar

import google_crc32c
import numpy as np

from simvlm_jax.data.sources.base import Records, Unreadable
from simvlm_jax.data.sources.files import Files
from simvlm_jax.data.sources.index import ENTRY, Entry, Index, find_index, make_index
from simvlm_jax.data.sources.opening import open_all

MOST_BYTES = 256 << 20  # of one record; a batch of them is in memory at once
MISMATCH = Unreadable("the bytes of the record have changed since their checksum was made")
TOO_LONG = Unreadable(f"the record is longer than {MOST_BYTES >> 20} MiB")
BAD_ENTRY = Unreadable("the index entry of the record is damaged")
INDEXING_THREADS = 8


class IndexedRecords(Records):
    """Random access over indexed shards, local and remote.

    A subclass says what its format is called, how a shard is read from end to end and what the
    bytes of one record mean.
    """

    kind: ClassVar[str]

    def __init__(self, shards: Sequence[str]):
        """Opens the shards: reads the headers of their indexes, and makes those that are missing.

        Args:
          shards: paths in their order, local or of any store that fsspec knows.

        Raises:
          UserError: a shard is missing, damaged or no longer what its index says.
        """
        self._files = Files()
        self._indexes = _open_indexes(shards, self.kind, self.scan)
        super().__init__(shards, [index.records for index in self._indexes])

    @staticmethod
    @abc.abstractmethod
    def scan(file: BinaryIO, shard: str) -> Iterator[Entry]:
        """Yields (offset, length, CRC-32C) of every record of a shard, reading it in order.

        Args:
          file: the shard, open at its beginning.
          shard: its name.

        Raises:
          UserError: the shard is damaged, so that its records cannot be told.
        """

    @abc.abstractmethod
    def decode(self, data: bytes) -> bytes | Unreadable:
        """Turns the bytes of one record into a tf.train.Example; never raises."""

    def read(self, indices: np.ndarray | Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records by index, those of all shards at once: see `Records.read`."""
        return self._decoded([self.place(int(index)) for index in indices])

    def read_shard(self, shard: int, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records of one shard."""
        return self._decoded([(shard, int(position)) for position in positions])

    def raw(self, places: Sequence[tuple[int, int]]) -> list[bytes | Unreadable]:
        """Reads the bytes of records as the shards have them, checked against the indexes.

        Args:
          places: (shard, position) each.

        Returns:
          In their order, the bytes, or why there are none.
        """
        found: list[bytes | Unreadable] = [BAD_ENTRY] * len(places)
        indexes = [self._indexes[shard] for shard, _ in places]
        entries = self._files.read(
            [index.entry_range(place[1]) for index, place in zip(indexes, places, strict=True)]
        )
        wanted, slots, checksums = [], [], []
        for slot, ((shard, _), index, entry) in enumerate(
            zip(places, indexes, entries, strict=True)
        ):
            if isinstance(entry, Unreadable):
                continue
            offset, length, checksum = ENTRY.unpack(entry)
            if length > MOST_BYTES:
                found[slot] = TOO_LONG
            elif offset + length <= index.shard_bytes:
                wanted.append((self.shards[shard], offset, length))
                slots.append(slot)
                checksums.append(checksum)
        for slot, data, checksum in zip(slots, self._files.read(wanted), checksums, strict=True):
            whole = isinstance(data, Unreadable) or google_crc32c.value(data) == checksum
            found[slot] = data if whole else MISMATCH
        return found

    def _decoded(self, places: Sequence[tuple[int, int]]) -> list[bytes | Unreadable]:
        found = self.raw(places)
        return [data if isinstance(data, Unreadable) else self.decode(data) for data in found]


def _open_indexes(shards: Sequence[str], kind: str, scan: Callable) -> list[Index]:
    found = open_all(lambda shard, _: find_index(shard, kind), shards, "opening")
    missing = [slot for slot, index in enumerate(found) if index is None]
    made = open_all(
        lambda shard, stop: make_index(shard, kind, scan, stop),
        [shards[slot] for slot in missing],
        "indexing",
        min(INDEXING_THREADS, os.cpu_count() or 1),
    )
    for slot, index in zip(missing, made, strict=True):
        found[slot] = index
    return found
