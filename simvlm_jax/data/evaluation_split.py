"""One split of a task for evaluation: every example once, in file order, batch by batch.

Nothing but a few batches is in memory, and images can be taken from other examples, for controls.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from simvlm_jax.data.ledger import Failure, FailureLedger
from simvlm_jax.data.plain import evaluation_examples
from simvlm_jax.data.task_examples import TaskExamples

Arrays = dict[str, np.ndarray]
IMAGES = ("image", "second_image")
BATCHES_AHEAD = 2


class EvaluationSplit:
    """The examples of a split, as arrays for the model and as texts for scorers.

    Attributes:
      ledger: what could not be read; such an example has black images.
    """

    def __init__(
        self,
        task: str,
        split: str,
        lengths: Mapping[str, int],
        image_size: tuple[int, int],
        ledger: FailureLedger | None = None,
    ):
        """Opens the task's source.

        Args:
          task: a registered seqio task whose source can be read by index.
          split: one of its splits.
          lengths: task feature lengths.
          image_size: (height, width) in pixels.
          ledger: by default one that refuses too many failures, as training does.

        Raises:
          UserError: no such task or split, or lengths that do not fit.
        """
        self._task, self._split = task, split
        self.ledger = ledger or FailureLedger()
        self._examples = TaskExamples(task, split, lengths, image_size, training=False)

    def __len__(self) -> int:
        """The number of examples N."""
        return len(self._examples)

    @property
    def has_image(self) -> bool:
        """Whether its examples have images."""
        return "image" in self._examples.features()

    def records(self) -> list[dict[str, Any]]:
        """Each example's fields but for images: ids, texts, lists of texts."""
        return evaluation_examples(self._task, self._split)

    def examples(self, numbers: Sequence[int]) -> Arrays:
        """Arrays [n, ...] of some examples."""
        return self._made(np.asarray(numbers, np.int64))[0]

    def batches(
        self, size: int, rows: np.ndarray, images_of: np.ndarray | None = None
    ) -> Iterator[tuple[Arrays, int]]:
        """Yields all examples in order.

        Args:
          size: B, the leading size of every batch, the last one included.
          rows: int64, which rows of a batch are made; the others are zeros.
          images_of: int64 [N], of which example each one's images are; None: its own.

        Yields:
          (arrays [B, ...] named as the model's features, number of real examples).
        """
        with ThreadPoolExecutor(1, "evaluation") as pool:
            ahead: collections.deque[Future] = collections.deque()
            try:
                for first in range(0, len(self), size):
                    ahead.append(pool.submit(self._batch, first, size, rows, images_of))
                    if len(ahead) > BATCHES_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _batch(
        self, first: int, size: int, rows: np.ndarray, images_of: np.ndarray | None
    ) -> tuple[Arrays, int]:
        count = min(size, len(self) - first)
        rows = rows[rows < count]
        batch = {
            name: np.zeros((size, *shape), dtype)
            for name, (shape, dtype) in self._examples.features().items()
        }
        if not len(rows):
            return batch, count
        numbers = first + rows
        made, failures = self._made(numbers)
        if images_of is None:
            self.ledger.note(first // size, len(rows), failures)
        else:
            others, _ = self._made(images_of[numbers])
            made |= {name: others[name] for name in IMAGES if name in others}
        for name, array in made.items():
            batch[name][rows] = array
        return batch, count

    def _made(self, numbers: np.ndarray) -> tuple[Arrays, list[Failure]]:
        """Arrays [n, ...] of some examples, and what of them could not be read."""
        made = {
            name: np.empty((len(numbers), *shape), dtype)
            for name, (shape, dtype) in self._examples.features().items()
        }
        return made, self._examples.read(numbers, np.zeros_like(numbers), made)
