"""The second pass: the chosen records into shards, a shard being a part of the work."""

import json
from abc import abstractmethod
from pathlib import Path

import numpy as np

from simvlm_jax.data.paths import shard_name
from simvlm_jax.data.preparing import examples
from simvlm_jax.data.preparing.choosing import VALIDATION
from simvlm_jax.data.preparing.examining import READ_AT_ONCE
from simvlm_jax.data.preparing.inputs import Input, record_id, relative_shards
from simvlm_jax.data.preparing.work import Job, Report, file_digest, read_result, run_job
from simvlm_jax.data.records import WRITER_OPTIONS, encode_example
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.errors import UserError

OUTPUT_FORMATS = ("array_record", "tfrecord")
RECORDS_PER_SHARD = 10_000


def shard_counts(records: int, shards: int | None, per_shard: int | None) -> list[int]:
    """Returns how many records go to each shard; they differ by one at most.

    Args:
      records: of the split.
      shards: how many shards, or None to go by `per_shard`.
      per_shard: at most so many records, or None for RECORDS_PER_SHARD.

    Raises:
      UserError: there would be empty shards.
    """
    count = shards or max(1, -(-records // (per_shard or RECORDS_PER_SHARD)))
    if count > max(records, 1):
        raise UserError(f"--shards={count} is more than the {records} records of a split.")
    ends = [index * records // count for index in range(count + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def check_share(share: float, split: str) -> None:
    """Refuses a share that cannot be held out from a split.

    Raises:
      UserError: it is no share, or the split is the one that it would go to.
    """
    if not 0 <= share < 1:
        raise UserError(f"--validation_share must be in [0, 1), not {share}.")
    if share and split == VALIDATION:
        raise UserError("--validation_share needs another --split than validation.")


class Writing(Job):
    """Writes one split's shards."""

    def __init__(self, folder: Path, split: str, counts: list[int], output_format: str):
        """Describes the work.

        Args:
          folder: where the shards go.
          split: its name.
          counts: records of each shard.
          output_format: one of OUTPUT_FORMATS.
        """
        self.name = f"writing {split}"
        self._folder, self._split, self._counts = folder, split, counts
        self._format = output_format

    def parts(self) -> list[int]:
        """Returns how many records each shard has."""
        return self._counts

    def run(self, part: int) -> bytes:
        """Writes a shard.

        Returns:
          JSON with its name, number of records, size in bytes and digest.
        """
        name = shard_name(self._split, part, len(self._counts))
        path = self._folder / f"{name.removesuffix('.array_record')}.{self._format}"
        temporary = path.with_name(f".{path.name}.part")
        start = sum(self._counts[:part])
        with open_writer(temporary, self._format) as writer:
            for first in range(start, start + self._counts[part], READ_AT_ONCE):
                last = min(first + READ_AT_ONCE, start + self._counts[part])
                for record in self.records(first, last):
                    writer.write(record)
        facts = {
            "name": path.name,
            "records": self._counts[part],
            "bytes": temporary.stat().st_size,
            "sha256": file_digest(temporary),
        }
        temporary.replace(path)
        return json.dumps(facts).encode()

    def whole(self, result: bytes) -> bool:
        """Tells whether a shard that was written before still has its digest."""
        facts = json.loads(result)
        path = self._folder / facts["name"]
        return path.is_file() and file_digest(path) == facts["sha256"]

    def write(self, stage: Path, workers: int, tell: Report) -> list[dict]:
        """Writes all shards that are not written yet.

        Args:
          stage: keeps what is done.
          workers: processes.
          tell: told the progress.

        Returns:
          The facts of each shard, as `run` gives them.
        """
        self._folder.mkdir(exist_ok=True)
        written = stage / f"written-{self._split}"
        run_job(self, written, workers, tell)
        return [json.loads(read_result(written, part)) for part in range(len(self._counts))]

    @abstractmethod
    def records(self, start: int, end: int) -> list[bytes]:
        """Returns records `start` to `end` of the split, serialized for training."""


class PairWriting(Writing):
    """Writes the chosen image-text pairs."""

    def __init__(self, *arguments, source: Input, chosen: Path):
        """Describes the work.

        Args:
          *arguments: of `Writing`.
          source: what to read.
          chosen: a file of int64 indices into the input, one for each record of the split.
        """
        super().__init__(*arguments)
        self._source, self._chosen = source, chosen
        self._records: Records | None = None

    def open(self) -> None:
        """Opens the input."""
        self._records = self._source.open()
        self._shards = relative_shards(self._records)
        self._indices = np.load(self._chosen, mmap_mode="r")

    def records(self, start: int, end: int) -> list[bytes]:
        """Returns the pairs with `id`, `image/encoded`, `caption` and the kept fields."""
        indices = self._indices[start:end]
        found = zip(indices, self._records.read(indices), strict=True)
        return [self._convert(int(index), record) for index, record in found]

    def _convert(self, index: int, record: bytes | Unreadable) -> bytes:
        example = examples.parse(record)
        shard, position = self._records.place(index)
        key = self._records.key(shard, position)
        fields = {}
        if not isinstance(example, Unreadable):
            texts = {"caption": self._source.text_name}
            texts |= {name: name for name in self._source.keep}
            fields = {to: examples.text(example, name) for to, name in texts.items()}
            fields["image/encoded"] = examples.one_value(example, self._source.image_name)
        if not fields or any(isinstance(value, Unreadable) for value in fields.values()):
            raise UserError(
                f"Record {key} of {self._records.shards[shard]} could be read before and cannot "
                "be now; run the command again when nothing changes the input."
            )
        return encode_example({"id": record_id(self._shards[shard], key), **fields})


def open_writer(path: Path, output_format: str):
    """Opens a file for writing records; a context that closes it."""
    if output_format == "tfrecord":
        import tensorflow as tf

        return tf.io.TFRecordWriter(str(path))
    return _ArrayRecordFile(path)


class _ArrayRecordFile:
    def __init__(self, path: Path):
        from array_record.python import array_record_module

        self._writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)

    def write(self, record: bytes) -> None:
        self._writer.write(record)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._writer.close()
