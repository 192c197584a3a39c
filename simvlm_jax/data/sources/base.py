"""What every source of records is: in file order for seqio, by index for our streams.

A record is a serialized tf.train.Example, whatever the format on disk, so that one parser, one
check and one ledger serve them all. Record i of a split is counted through its shards in order.
"""

import abc
import bisect
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from simvlm_jax.data.python_calls import numpy_function
from simvlm_jax.errors import UserError

READ_AT_ONCE = 64
# FixedLenSequenceFeature([], dtype, allow_missing=True): any number of values, also none.
Features = Mapping[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """Stands in a record's place and says why it cannot be used.

    Attributes:
      cause: a few words without a full stop, the same for all records of one trouble, so that
        failures can be counted by cause.
    """

    cause: str


class BadRecord(Exception):
    """What is wrong with one record; it becomes an `Unreadable` of the same words."""


def attempt(read: Callable[..., Any], *arguments: Any) -> Any | Unreadable:
    """Returns what `read` returns, or why it could not."""
    try:
        return read(*arguments)
    except BadRecord as bad:
        return Unreadable(str(bad))


class Records(abc.ABC):
    """Random access over the records of an ordered list of shards, safe between threads."""

    def __init__(self, shards: Sequence[str], counts: Sequence[int]):
        """Takes the shards' names and their numbers of records."""
        self.shards = tuple(str(shard) for shard in shards)
        self.ends = tuple(itertools.accumulate(counts))  # of each shard, its first index after it

    def __len__(self) -> int:
        """Returns the number of records in all shards."""
        return self.ends[-1] if self.ends else 0

    def read(self, indices: np.ndarray | Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records by index.

        Args:
          indices: integers in [0, len(self)), in any order, repeats allowed.

        Returns:
          In the order of `indices`, serialized tf.train.Examples, or why there is none.

        Raises:
          IndexError: an index is outside the records.
        """
        found: list[bytes | Unreadable] = [b""] * len(indices)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for slot, index in enumerate(indices):
            shard, position = self.place(int(index))
            wanted.setdefault(shard, []).append((slot, position))
        for shard, pairs in wanted.items():
            records = self.read_shard(shard, [position for _, position in pairs])
            for (slot, _), record in zip(pairs, records, strict=True):
                found[slot] = record
        return found

    def place(self, index: int) -> tuple[int, int]:
        """Gives the number of a record's shard and its position there.

        Raises:
          IndexError: the index is outside the records.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect.bisect_right(self.ends, index)
        return shard, index - (self.ends[shard - 1] if shard else 0)

    def name(self, index: int) -> tuple[str, str]:
        """Returns (shard, key) of a record, by which a person finds it again."""
        shard, position = self.place(index)
        return self.shards[shard], self.key(shard, position)

    def whole_indices(self, indices: np.ndarray) -> np.ndarray:
        """Returns the indices themselves; a part of records has others in the whole."""
        return indices

    def key(self, shard: int, position: int) -> str:
        """Returns a record's name within its shard; by default its position, from 0."""
        del shard
        return str(position)

    @abc.abstractmethod
    def read_shard(self, shard: int, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records of one shard, in the order of `positions`; never raises for a bad one."""


class RecordSource(seqio.DataSource, abc.ABC):
    """A seqio.DataSource over shards of records.

    Nothing is read before the first use: a task may be registered where no data is. Subclasses
    say which shards a split has and how they are opened.
    """

    def __init__(self, name: str, splits: Sequence[str], features: Features):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: names of its splits.
          features: what to parse from each record, one value or a fixed number (FixedLenFeature)
            or any number (FixedLenSequenceFeature with allow_missing). Where there is no `id` among
            them, a record's index in its split is its `id`.
        """
        super().__init__(splits=splits, performs_internal_shuffling=True)
        self._name = name
        self._features = dict(features)

    @abc.abstractmethod
    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's files, in order.

        Raises:
          UserError: there are none.
        """

    @abc.abstractmethod
    def open(self, shards: Sequence[str]) -> Records:
        """Opens shards for reading by index.

        Raises:
          UserError: a shard is missing, or is not what it should be.
        """

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """A shard of the source is a set of whole files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the paths of a split's files, in order."""
        self._check_split(split)
        return self.shards(split)

    def num_input_examples(self, split: str) -> int:
        """Returns the number of records in a split, as its files have it now."""
        return len(self.random_access(split))

    def random_access(self, split: str) -> Records:
        """Opens a split for reading by index."""
        return self.open(self.list_shards(split))

    def in_order(self, split: str) -> Records:
        """Opens a split for plain seqio and evaluation, where a bad record ends the reading."""
        return self.random_access(split)

    def parse(self, serialized: tf.Tensor, index: tf.Tensor | int) -> dict[str, tf.Tensor]:
        """Parses one record.

        Args:
          serialized: string scalar, a tf.train.Example.
          index: int64 scalar, the record's index in its split.

        Returns:
          The features named at construction, with their shapes and dtypes, and `id`.
        """
        identity = {"id": tf.cast(index, tf.int64)}
        return {**identity, **tf.io.parse_single_example(serialized, self._features)}

    def parse_batch(self, serialized: tf.Tensor, indices: tf.Tensor) -> dict[str, tf.Tensor] | None:
        """Parses many records at once, in a fraction of the time that one by one takes.

        Args:
          serialized: string [n].
          indices: int64 [n], each record's index in its split.

        Returns:
          As from `parse`, with a first axis [n]; None for features of any number of values, which
          would be padded to the longest.
        """
        if not all(isinstance(f, tf.io.FixedLenFeature) for f in self._features.values()):
            return None
        return {"id": indices, **tf.io.parse_example(serialized, self._features)}

    def placeholder(self) -> bytes:
        """Returns a record with every feature, all empty or 0, for the place of a bad one.

        Where any number of values may be, it has one.
        """
        example = tf.train.Example()
        for name, feature in self._features.items():
            count = int(np.prod(feature.shape, dtype=int))
            values = example.features.feature[name]
            if feature.dtype == tf.string:
                values.bytes_list.value.extend([b""] * count)
            elif feature.dtype.is_integer:
                values.int64_list.value.extend([0] * count)
            else:
                values.float_list.value.extend([0.0] * count)
        return example.SerializeToString(deterministic=True)

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_,
    ) -> tf.data.Dataset:
        """Returns a dataset of parsed records.

        Args:
          split: which split.
          shuffle: shuffle all records (by index, so the shuffle holds no images); else file order.
          seed: of the shuffle.
          shard_info: take only files index, index + num_shards, ...

        Returns:
          A dataset of feature dictionaries.

        Raises:
          UserError: no such split, or fewer files than shards.
        """
        records = self.in_order(split)
        if shard_info and len(records.shards) < shard_info.num_shards:
            raise UserError(
                f"The split {split!r} of {self._name} has {len(records.shards)} files, too few for "
                f"{shard_info.num_shards} shards; prepare it with more files or use fewer hosts."
            )
        first, step = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        starts = (0, *records.ends)
        indices, count = tf.data.Dataset.range(0), 0
        for shard in range(first, len(records.shards), step):
            indices = indices.concatenate(tf.data.Dataset.range(starts[shard], records.ends[shard]))
            count += records.ends[shard] - starts[shard]
        if shuffle and count:
            indices = indices.shuffle(count, seed=seed)
        found = indices.batch(READ_AT_ONCE).map(lambda batch: (_read_op(records, batch), batch))
        return found.unbatch().map(self.parse, num_parallel_calls=tf.data.AUTOTUNE)

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(
                f"The source {self._name!r} has no split {split!r}; it has "
                f"{', '.join(self.splits)}."
            )


def _read_op(records: Records, indices: tf.Tensor) -> tf.Tensor:
    def read(batch: np.ndarray) -> np.ndarray:
        found = records.read(batch)
        for index, record in zip(batch, found, strict=True):
            if isinstance(record, Unreadable):
                shard, key = records.name(int(index))
                raise UserError(
                    f"Record {key} of {shard} cannot be read ({record.cause}); prepare the data "
                    "again."
                )
        return np.array(found, dtype=object)

    return tf.ensure_shape(numpy_function(read, [indices], tf.string), [None])
