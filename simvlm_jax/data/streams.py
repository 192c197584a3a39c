"""Training batches, without end, in groups of exact counts.

A training batch is G groups; each has the same number of image-text pairs and of documents (the
paper: 4,096 pairs and 512 documents, so 512 groups of 8 and 1). One leading size for every array
means that any slice of a batch, for a host or a microbatch, keeps the counts.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import seqio
import tensorflow as tf

from simvlm_jax.data.features import SimVLMFeatureConverter
from simvlm_jax.data.images import Augmentation
from simvlm_jax.data.ledger import FailureLedger
from simvlm_jax.data.mapping import map_examples
from simvlm_jax.data.order import global_position, locate, order_key
from simvlm_jax.data.plain import Batch, check_task, evaluation_examples, plain_batches
from simvlm_jax.data.python_calls import numpy_function, wait_until_idle
from simvlm_jax.errors import UserError

__all__ = ["GroupStream", "evaluation_examples", "plain_batches"]
DOCUMENT_PREFIX = "document_"
LAST_STEP = 1 << 31
READ_AT_ONCE = 32
BATCHES_AHEAD = 2


class GroupStream:
    """Training batches of [G, n, ...] arrays in an order that is a function of (seed, step)."""

    def __init__(
        self,
        pairs: Mapping[str, int],
        documents: Mapping[str, int],
        groups: int,
        pair_lengths: Mapping[str, int],
        document_lengths: Mapping[str, int],
        image_size: tuple[int, int],
        seed: int,
        split: str = "train",
        host_index: int = 0,
        host_count: int = 1,
        augmentation: Augmentation | None = None,
        ledger: FailureLedger | None = None,
    ):
        """Describes the stream and opens its sources.

        Args:
          pairs: image-text tasks, and how many examples of each a group holds.
          documents: text-only tasks likewise; either side may be empty, not both.
          groups: groups in the global batch, G.
          pair_lengths: task feature lengths of the pairs.
          document_lengths: task feature lengths of the documents.
          image_size: (height, width) in pixels.
          seed: of the order, the prefixes, and the crops.
          split: of every task.
          host_index: this host; it takes a contiguous slice of the groups.
          host_count: number of hosts; must divide `groups`.
          augmentation: of images; by default the mild one.
          ledger: where examples that cannot be used are noted; by default one of its own.

        Raises:
          UserError: groups that the hosts do not divide, an unknown task or split, an empty
            source, lengths that do not fit a task, or a task that filters or multiplies examples.
        """
        _check_layout({**pairs, **documents}, groups, host_index, host_count)
        self.ledger = ledger or FailureLedger()
        self._groups, self._seed, self._split = groups, int(seed), split
        self._host_index, self._host_count = host_index, host_count
        self._image_size, self._augmentation = image_size, augmentation
        sides = [("", pairs, pair_lengths), (DOCUMENT_PREFIX, documents, document_lengths)]
        self._sides = [side for side in sides if side[1]]
        self._refusals: list[UserError] = []
        self._readers = {
            name: _open_source(name, split, lengths)
            for _, tasks, lengths in self._sides
            for name in tasks
        }

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array of the global batch (all hosts)."""
        return {name: shape for name, (shape, _) in self._specification().items()}

    @property
    def input_types(self) -> dict[str, np.dtype]:
        """Dtype of every array."""
        return {name: dtype for name, (_, dtype) in self._specification().items()}

    def batches(self, start_step: int = 0) -> Iterator[Batch]:
        """Yields this host's part of the batches of start_step, start_step + 1, ...

        Args:
          start_step: the first step to give; later ones cost no more to reach.

        Yields:
          Arrays [G / host_count, n, ...], named as the model's features; those of documents begin
          with `document_`.

        Raises:
          UserError: a record cannot be read, or too many images cannot be decoded.
        """
        per_step = self._local_groups * sum(sum(tasks.values()) for _, tasks, _ in self._sides)
        batches = iter(self._dataset(start_step).as_numpy_iterator())
        read = 0
        try:
            for batch in batches:
                read += per_step
                self.ledger.check(read)
                yield batch
        except tf.errors.OpError:
            if self._refusals:  # what TensorFlow raises has the sentence within a stack trace
                raise self._refusals[0] from None
            raise
        finally:
            wait_until_idle()  # before the iterator goes

    @property
    def _local_groups(self) -> int:
        return self._groups // self._host_count

    def _specification(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        converter = SimVLMFeatureConverter(image_size=self._image_size)
        return {
            prefix + name: ((self._groups, sum(tasks.values()), *shape), np.dtype(dtype.name))
            for prefix, tasks, lengths in self._sides
            for name, (shape, dtype) in converter.model_feature_shapes(lengths).items()
        }

    def _dataset(self, start_step: int) -> tf.data.Dataset:
        sides = tuple(
            tuple(self._task_batches(name, n, lengths, start_step) for name, n in tasks.items())
            for _, tasks, lengths in self._sides
        )
        prefixes = [prefix for prefix, _, _ in self._sides]
        grouped = [self._local_groups, -1]

        def merge(*parts: tuple[dict[str, tf.Tensor], ...]) -> dict[str, tf.Tensor]:
            def join(arrays: list[tf.Tensor]) -> tf.Tensor:
                return tf.concat([tf.reshape(a, [*grouped, *a.shape[1:]]) for a in arrays], axis=1)

            return {
                prefix + name: join([task[name] for task in tasks])
                for prefix, tasks in zip(prefixes, parts, strict=True)
                for name in tasks[0]
            }

        options = tf.data.Options()
        options.deterministic = True
        batches = map_examples(tf.data.Dataset.zip(sides), merge)
        return batches.prefetch(BATCHES_AHEAD).with_options(options)

    def _task_batches(
        self, name: str, count: int, lengths: Mapping[str, int], start_step: int
    ) -> tf.data.Dataset:
        per_step = self._local_groups * count
        task = seqio.TaskRegistry.get(name)
        records = self._records(name, per_step, start_step)
        examples = task.preprocess_postcache(task.preprocess_precache(records), dict(lengths))
        if examples.cardinality() != records.cardinality():
            raise UserError(
                f"The task {name!r} filters or multiplies examples while training, so a step would "
                "not tell its examples; do that when the data is prepared."
            )
        converter = SimVLMFeatureConverter(
            image_size=self._image_size,
            augmentation=self._augmentation,
            on_failure=lambda number, cause: self.ledger.record(name, number, cause),
            apply_length_check=False,  # two more steps per example; the padding checks as well
        )
        return converter(examples, lengths).batch(per_step, drop_remainder=True)

    def _records(self, name: str, per_step: int, start_step: int) -> tf.data.Dataset:
        """Gives parsed records with `epoch` and `seed`, in this host's order, nearly for ever."""
        task, reader = seqio.TaskRegistry.get(name), self._readers[name]
        key = order_key(self._seed, name)

        def read(local: tf.Tensor) -> tuple[tf.Tensor, ...]:
            position = global_position(local, per_step, self._host_index, self._host_count)
            epochs, indices = locate(position, len(reader), key)
            data = numpy_function(self._reading(reader), [indices], tf.string)
            return epochs, indices, tf.ensure_shape(data, [READ_AT_ONCE])

        def parse(epoch: tf.Tensor, index: tf.Tensor, data: tf.Tensor) -> dict[str, tf.Tensor]:
            seed = tf.constant(self._seed, tf.int64)
            return {**task.source.parse(data, index), "epoch": epoch, "seed": seed}

        local = tf.data.Dataset.range(start_step * per_step, LAST_STEP * per_step)
        reads = map_examples(local.batch(READ_AT_ONCE, drop_remainder=True), read)
        return map_examples(reads.unbatch(), parse)

    def _reading(self, reader):
        def run(indices: np.ndarray) -> np.ndarray:
            try:
                return np.array(reader.read(indices), dtype=object)
            except UserError as error:
                self._refusals.append(error)
                raise

        return run


def _open_source(name: str, split: str, lengths: Mapping[str, int]):
    source = check_task(name, lengths).source
    if not hasattr(source, "random_access"):
        raise UserError(
            f"The task {name!r} has a source that cannot be read by index, as training does; use "
            "an ArrayRecordSource."
        )
    reader = source.random_access(split)
    if not len(reader):
        raise UserError(f"The split {split!r} of task {name!r} is empty; prepare it again.")
    return reader


def _check_layout(tasks: Mapping[str, int], groups: int, host_index: int, host_count: int) -> None:
    if not tasks or min(tasks.values()) < 1:
        raise UserError(
            f"A group needs at least one task, and at least one example of each, not {dict(tasks)}."
        )
    if not 0 <= host_index < host_count:
        raise UserError(f"There is no host {host_index} among {host_count}; they count from 0.")
    if groups < 1 or groups % host_count:
        raise UserError(
            f"A batch of {groups} groups cannot be divided over {host_count} hosts; use a multiple "
            f"of {host_count} groups."
        )
