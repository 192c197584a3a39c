"""A seqio source over ArrayRecord shards: in file order for seqio, by index for our streams."""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf
from array_record.python import array_record_module

from simvlm_jax.data.paths import data_dir, shard_paths
from simvlm_jax.data.python_calls import numpy_function
from simvlm_jax.errors import UserError

# Read-ahead helps only sequential reading of large groups; our files have one record per group.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
READ_AT_ONCE = 64


class ShardReader:
    """Random access over an ordered list of shards, safe to use from several threads."""

    def __init__(self, paths: Sequence[Path]):
        """Opens every shard once to learn its length.

        Args:
          paths: shards in their order; record i of the whole is counted through them.

        Raises:
          UserError: a file is missing or is not an ArrayRecord file.
        """
        self._paths = tuple(paths)
        self._readers = [_open(path) for path in self._paths]
        self._ends = list(itertools.accumulate(r.num_records() for r in self._readers))

    def __len__(self) -> int:
        """Returns the number of records in all shards."""
        return self._ends[-1]

    def read(self, indices: np.ndarray | Sequence[int]) -> list[bytes]:
        """Reads records by index, one seek per record.

        Args:
          indices: integers in [0, len(self)), in any order, repeats allowed.

        Returns:
          The serialized records in the order of `indices`.

        Raises:
          IndexError: an index is outside the records.
          UserError: a record's bytes are damaged.
        """
        records: list[bytes] = [b""] * len(indices)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for slot, index in enumerate(int(index) for index in indices):
            if not 0 <= index < len(self):
                raise IndexError(f"record {index} of {len(self)}")
            shard = bisect.bisect_right(self._ends, index)
            start = self._ends[shard - 1] if shard else 0
            wanted.setdefault(shard, []).append((slot, index - start))
        for shard, pairs in wanted.items():
            found = self._read_shard(shard, [position for _, position in pairs])
            for (slot, _), record in zip(pairs, found, strict=True):
                records[slot] = record
        return records

    def _read_shard(self, shard: int, positions: list[int]) -> list[bytes]:
        try:
            return self._readers[shard].read(positions)
        except RuntimeError as error:
            raise UserError(
                f"A record of {self._paths[shard]} cannot be read ({error}); "
                "prepare the data again."
            ) from error


def _open(path: Path) -> array_record_module.ArrayRecordReader:
    reader = array_record_module.ArrayRecordReader(str(path), READER_OPTIONS)
    if not reader.ok():  # the library itself stays silent and reports no records
        raise UserError(f"{path} is not a readable ArrayRecord file; prepare the data again.")
    return reader


class ArrayRecordSource(seqio.DataSource):
    """A seqio.DataSource over `<data_dir>/<folder>/<split>-*.array_record`.

    Nothing is read before the first use: a task may be registered where no data is. Each record
    is a serialized tf.train.Example.
    """

    def __init__(
        self,
        folder: str,
        splits: Sequence[str],
        features: Mapping[str, tf.io.FixedLenFeature],
    ):
        """Describes the source.

        Args:
          folder: folder relative to the data folder (an absolute path is taken as it is).
          splits: names of the splits that the folder holds.
          features: what to parse from each record.
        """
        super().__init__(splits=splits, performs_internal_shuffling=True)
        self._folder = folder
        self._features = dict(features)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """A shard of the source is a set of whole files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the paths of a split's files, in order."""
        return [str(path) for path in self._paths(split)]

    def num_input_examples(self, split: str) -> int:
        """Returns the number of records in a split, as its files have it now."""
        return len(self.random_access(split))

    def random_access(self, split: str) -> ShardReader:
        """Opens a split for reading by index (see ShardReader)."""
        return ShardReader(self._paths(split))

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses one record.

        Args:
          serialized: string scalar, a tf.train.Example.

        Returns:
          The features named at construction, with their shapes and dtypes.
        """
        return tf.io.parse_single_example(serialized, self._features)

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
        paths = self._paths(split)
        if shard_info and len(paths) < shard_info.num_shards:
            raise UserError(
                f"The split {split!r} of {self._folder} has {len(paths)} files, too few for "
                f"{shard_info.num_shards} shards; prepare it with more files or use fewer hosts."
            )
        if shard_info:
            paths = paths[shard_info.index :: shard_info.num_shards]
        reader = ShardReader(paths)
        indices = tf.data.Dataset.range(len(reader))
        if shuffle and len(reader):
            indices = indices.shuffle(len(reader), seed=seed)
        records = indices.batch(READ_AT_ONCE).map(lambda batch: _read_op(reader, batch)).unbatch()
        return records.map(self.parse, num_parallel_calls=tf.data.AUTOTUNE)

    def _paths(self, split: str) -> list[Path]:
        if split not in self.splits:
            raise UserError(
                f"The source {self._folder!r} has no split {split!r}; it has "
                f"{', '.join(self.splits)}."
            )
        return shard_paths(data_dir() / self._folder, split)


def _read_op(reader: ShardReader, indices: tf.Tensor) -> tf.Tensor:
    def read(batch: np.ndarray) -> np.ndarray:
        return np.array(reader.read(batch), dtype=object)

    records = numpy_function(read, [indices], tf.string)
    return tf.ensure_shape(records, [None])
