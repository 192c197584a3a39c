"""Data sets that tensorflow-datasets has prepared; nothing is ever downloaded or prepared here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simvlm_jax.data.sources.array_record import ArrayRecords
from simvlm_jax.data.sources.base import Features, Records, RecordSource
from simvlm_jax.data.sources.patterns import placed
from simvlm_jax.data.sources.tfrecord import TFRecords
from simvlm_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"
# What tensorflow-datasets raises of a damaged description, beside what its libraries raise.
DAMAGED = (ValueError, OSError, AssertionError, NotImplementedError)


class TFDSSource(RecordSource):
    """Records of a prepared data set, as they are stored: images stay encoded."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, str],
        features: Features,
        data_dir: str | None = None,
    ):
        """Describes the source.

        Args:
          name: of the data set, as for `tfds.load`: "coco_captions", "c4/en:3.1.0".
          splits: name of a split here -> its name in the data set.
          features: serialized names, with / between levels: `image`, `captions/text`.
          data_dir: tensorflow-datasets' folder, relative to the data folder or a URL; by default
            its own. What is there is described by tensorflow-datasets, by means of its own: for a
            bucket of Google's, TensorFlow's. Shards in a bucket must be TFRecords.
        """
        super().__init__(name, list(splits), features)
        self._names, self._folder = dict(splits), data_dir

    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's files, in order."""
        return [str(path) for path in self._info(split).filepaths]

    def open(self, shards: Sequence[str]) -> Records:
        """Opens files for reading by index; TFRecords get an index of ours."""
        suffix = self._builder().info.file_format.value
        if suffix not in (TFRECORD, ARRAY_RECORD):
            raise UserError(
                f"The data set {self._name} is stored as {suffix}; prepare it with "
                f"--file_format={ARRAY_RECORD}."
            )
        return ArrayRecords(shards) if suffix == ARRAY_RECORD else TFRecords(shards, self._features)

    def random_access(self, split: str) -> Records:
        """Opens a split for reading by index.

        Raises:
          UserError: it is not prepared, or its files hold other records than were prepared.
        """
        records = super().random_access(split)
        found = np.diff(records.ends, prepend=0).tolist()
        for shard, count, wanted in zip(
            records.shards, found, self._info(split).shard_lengths, strict=True
        ):
            if count != wanted:
                raise UserError(
                    f"{shard} has {count} records and should have {wanted}; prepare {self._name} "
                    "again."
                )
        return records

    def _info(self, split: str) -> "tensorflow_datasets.core.SplitInfo":
        splits, name = self._builder().info.splits, self._names[split]
        if name not in list(splits):
            raise UserError(
                f"The data set {self._name} has no split {name!r}; it has {', '.join(splits)}."
            )
        return splits[name]

    def _builder(self) -> "tensorflow_datasets.core.DatasetBuilder":
        import tensorflow as tf
        import tensorflow_datasets as tfds
        from google.protobuf import json_format

        folder = self._folder and placed(self._folder, f"The folder of {self._name}")
        try:  # tfds.builder would ask the network where there are no files
            return tfds.core.read_only_builder.builder_from_files(self._name, data_dir=folder)
        except tfds.core.DatasetNotFoundError:
            place = f" --data_dir={folder}" if folder else ""
            raise UserError(
                f"The data set {self._name} is not prepared in "
                f"{folder or 'the folder of tensorflow-datasets'}; run `tfds build "
                f"{self._name}{place} --file_format={ARRAY_RECORD}`."
            ) from None
        except KeyError:  # of its table of stores
            raise UserError(
                f"The data set {self._name} lies in {folder}, a store that tensorflow-datasets "
                "does not know; copy it into another."
            ) from None
        except (*DAMAGED, json_format.ParseError, tf.errors.OpError) as error:
            cause = str(error).partition("\n")[0].rstrip(".")
            raise UserError(f"The data set {self._name} cannot be opened: {cause}.") from None
