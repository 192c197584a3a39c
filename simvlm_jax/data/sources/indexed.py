"""Records and sources over shards that have an index: one reader for every such format."""

import abc
import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, ClassVar

import google_crc32c
import numpy as np

from simvlm_jax.data.sources.base import Features, Records, RecordSource, Unreadable
from simvlm_jax.data.sources.files import Files
from simvlm_jax.data.sources.index import ENTRY, Entry, Index, find_index, make_index
from simvlm_jax.data.sources.patterns import find_shards

MOST_BYTES = 256 << 20  # of one record; a batch of them is in memory at once
MISMATCH = Unreadable("the bytes of the record have changed since their checksum was made")
TOO_LONG = Unreadable(f"the record is longer than {MOST_BYTES >> 20} MiB")
BAD_ENTRY = Unreadable("the index entry of the record is damaged")
OPENING_THREADS, INDEXING_THREADS = 32, 8
PROGRESS_SECONDS = 10.0


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


class IndexedSource(RecordSource):
    """A source whose splits are patterns of shards."""

    def __init__(
        self, name: str, splits: Mapping[str, str | Sequence[str]], features: Features
    ) -> None:
        """Describes the source; nothing is looked for yet.

        Args:
          name: what sentences call it.
          splits: of each split, its shards as `find_shards` takes them.
          features: what to parse from each record.
        """
        super().__init__(name, tuple(splits), features)
        self._patterns = {
            split: patterns if isinstance(patterns, str | os.PathLike) else tuple(patterns)
            for split, patterns in splits.items()
        }

    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's files, in order."""
        return find_shards(self._patterns[split], f"The split {split!r} of {self._name}")


def _open_indexes(shards: Sequence[str], kind: str, scan: Callable) -> list[Index]:
    found = _all_of(lambda shard, _: find_index(shard, kind), shards, OPENING_THREADS, "opening")
    missing = [slot for slot, index in enumerate(found) if index is None]
    made = _all_of(
        lambda shard, stop: make_index(shard, kind, scan, stop),
        [shards[slot] for slot in missing],
        min(INDEXING_THREADS, os.cpu_count() or 1),
        "indexing",
    )
    for slot, index in zip(missing, made, strict=True):
        found[slot] = index
    return found


def _all_of(work: Callable, shards: Sequence[str], threads: int, what: str) -> list:
    """Runs work(shard, stop) for all shards; the first refusal ends it, in the shards' order."""
    if not shards:
        return []
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(min(threads, len(shards)))
    try:
        waiting = futures = [pool.submit(work, shard, stop) for shard in shards]
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, PROGRESS_SECONDS, concurrent.futures.FIRST_EXCEPTION
            )
            for future in futures:
                if future in done and future.exception():
                    raise future.exception()
            if waiting:
                count = len(shards) - len(waiting)
                print(f"{what} shards: {count} of {len(shards)} done", file=sys.stderr)
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
