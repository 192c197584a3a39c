"""Training batches, without end, in groups of exact counts.

A training batch is G groups; each has the same number of image-text pairs and of documents (the
paper: 4,096 pairs and 512 documents, so 512 groups of 8 and 1). One leading size for every array
means that any slice of a batch, for a host or a microbatch, keeps the counts.

Batch k is a function of (seed, k), so threads make its parts in any order, and those of the
batches after it before anybody asks. A process of several makes the groups that its own devices
hold, and reads nothing else.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simvlm_jax import hosts
from simvlm_jax.data.images import Augmentation
from simvlm_jax.data.ledger import FailureLedger
from simvlm_jax.data.order import locate, order_key, positions_of
from simvlm_jax.data.plain import Batch, evaluation_examples, plain_batches
from simvlm_jax.data.task_examples import TaskExamples
from simvlm_jax.errors import UserError

__all__ = ["GroupStream", "evaluation_examples", "plain_batches"]
DOCUMENT_PREFIX = "document_"
BATCHES_AHEAD = 2
COUNTED_STEPS = 16  # more than a run reads ahead of the step that it reports
FEWEST_ROWS, MOST_ROWS = 8, 256  # examples that one thread makes in one go


@dataclasses.dataclass(frozen=True)
class _Part:
    """One task's place in every group: examples first, first + 1, ... of its side."""

    examples: TaskExamples
    prefix: str
    first: int
    count: int
    key: int


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
        augmentation: Augmentation | None = None,
        ledger: FailureLedger | None = None,
        threads: int | None = None,
        fractions: Mapping[str, float] | None = None,
        fraction_seed: int = 0,
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
          augmentation: of images; by default the mild one.
          ledger: where records that cannot be used are noted; by default one of its own.
          threads: that read and decode; by default one for each core.
          fractions: of tasks of which only a part is used, how large a part, for example
            {"coco_captions": 0.01} for few-shot learning. A smaller part lies in a larger one.
          fraction_seed: which examples these are.

        Raises:
          UserError: no group, an unknown task or split, an empty source, lengths that do not fit
            a task, a task that filters or multiplies examples, a fraction of a task that is not
            here or one that leaves no example.
        """
        check_layout(pairs, documents, groups)
        check_fractions(fractions or {}, {**pairs, **documents})
        if threads is not None and threads < 1:
            raise UserError(f"threads={threads} must be 1 or more, or None for one for each core.")
        self.ledger = ledger or FailureLedger()
        self._groups = groups
        self._threads = threads or len(os.sched_getaffinity(0))
        self._parts: list[_Part] = []
        self._sizes = {"": sum(pairs.values()), DOCUMENT_PREFIX: sum(documents.values())}
        sides = [("", pairs, pair_lengths), (DOCUMENT_PREFIX, documents, document_lengths)]
        for prefix, tasks, lengths in sides:
            first = 0
            for name, count in tasks.items():
                opened = TaskExamples(name, split, lengths, image_size, seed, augmentation)
                if fractions and name in fractions:
                    opened.keep_part(fractions[name], fraction_seed)
                self._parts.append(_Part(opened, prefix, first, count, order_key(seed, name)))
                first += count
        self._counted: dict[int, tuple[int, int]] = {}  # text tokens and positions before a step

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array of the global batch (all processes)."""
        return {name: (self._groups, *shape) for name, (shape, _) in self._specification().items()}

    @property
    def input_types(self) -> dict[str, np.dtype]:
        """Dtype of every array."""
        return {name: dtype for name, (_, dtype) in self._specification().items()}

    def keep_ledger(self, folder: str | Path) -> None:
        """Writes the records that cannot be used to `ledger.jsonl` in a run's folder."""
        self.ledger.open(folder, hosts.index(), hosts.count())

    def fingerprint(self) -> dict[str, str]:
        """Tells by task what data this process would read, to be compared with others'."""
        return {part.examples.name: part.examples.fingerprint() for part in self._parts}

    def report(self, step: int) -> dict[str, float]:
        """Returns what a run's log should tell of the data before a step.

        All processes must call it, for it counts what each has read.

        Args:
          step: batches that were trained on; the stream may have given some more.

        Returns:
          `epoch/TASK`: how often a task's records were shown, in epochs; `pad_share`: of the text
          positions since the start; `unusable`: examples read so far.
        """
        report = {
            f"epoch/{part.examples.name}": step * self._groups * part.count / len(part.examples)
            for part in self._parts
        }
        counts = [*self._counted.get(step, (0, 0)), self.ledger.counts.total()]
        tokens, places, unusable = map(sum, zip(*hosts.gather("data", counts), strict=True))
        if places:
            report["pad_share"] = 1 - tokens / places
        return report | {"unusable": float(unusable)}

    def batches(self, start_step: int = 0, groups: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yields the batches of start_step, start_step + 1, ..., or some groups of each.

        Args:
          start_step: the first step to give; later ones cost no more to reach.
          groups: which of the G groups, in this order; None gives all.

        Yields:
          Arrays [groups, n, ...], named as the model's features; those of documents begin with
          `document_`.

        Raises:
          UserError: too many records cannot be used.
        """
        if start_step < 0:
            raise UserError(f"There is no step {start_step}; they count from 0.")
        chosen = np.array(range(self._groups) if groups is None else groups, np.int64)
        pool = ThreadPoolExecutor(self._threads, "batches")
        pending: collections.deque[tuple[int, Batch, list[Future]]] = collections.deque()
        step = start_step
        try:
            while True:
                while len(pending) <= BATCHES_AHEAD:
                    pending.append((step, *self._begin(step, chosen, pool)))
                    step += 1
                yield self._finish(*pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(
        self, step: int, chosen: np.ndarray, pool: ThreadPoolExecutor
    ) -> tuple[Batch, list[Future]]:
        """Allocates a batch of the chosen groups and sends its parts to the threads."""
        batch = {
            name: np.empty((len(chosen), *shape), dtype)
            for name, (shape, dtype) in self._specification().items()
        }
        jobs = []
        for part in self._parts:
            # Many for each call, which has a cost of its own, but work for every thread.
            rows = len(chosen) * part.count * BATCHES_AHEAD // self._threads
            groups_at_once = max(1, min(max(rows, FEWEST_ROWS), MOST_ROWS) // part.count)
            for first in range(0, len(chosen), groups_at_once):
                places = slice(first, min(first + groups_at_once, len(chosen)))
                jobs.append(pool.submit(self._fill, step, part, batch, chosen, places))
        return batch, jobs

    def _fill(
        self, step: int, part: _Part, batch: Batch, chosen: np.ndarray, groups: slice
    ) -> list:
        """Makes one task's examples for some of a batch's chosen groups."""
        positions = positions_of(step, chosen[groups], self._groups, part.count)
        epochs, indices = locate(positions, len(part.examples), part.key)
        places = slice(part.first, part.first + part.count)
        wanted = {
            name: batch[part.prefix + name][groups, places] for name in part.examples.features()
        }
        # A task that is alone on its side writes into the batch itself, others into a copy.
        into = {
            name: array.reshape(len(indices), *array.shape[2:]) for name, array in wanted.items()
        }
        failures = part.examples.read(indices, epochs, into)
        for name, array in wanted.items():
            if not np.may_share_memory(into[name], array):
                array[...] = into[name].reshape(array.shape)
        return failures

    def _finish(self, step: int, batch: Batch, jobs: list[Future]) -> Batch:
        failures = [failure for job in jobs for failure in job.result()]
        examples = sum(self._sizes.values()) * len(next(iter(batch.values())))
        self.ledger.note(step, examples, failures)
        tokens, places = self._counted.get(step, (0, 0))
        more_tokens, more_places = _text_positions(batch)
        self._counted[step + 1] = tokens + more_tokens, places + more_places
        self._counted.pop(step + 1 - COUNTED_STEPS, None)
        return batch

    def _specification(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        return {
            part.prefix + name: ((self._sizes[part.prefix], *shape), dtype)
            for part in self._parts
            for name, (shape, dtype) in part.examples.features().items()
        }


def _text_positions(batch: Batch) -> tuple[int, int]:
    """Counts the tokens of a batch and the places for them, on the encoder's side and the other.

    What a decoder classifies by, it reads and does not predict: the start of the sequence counts.
    """
    tokens = places = 0
    for prefix in ("", DOCUMENT_PREFIX):
        names = [f"{prefix}encoder_input_tokens", f"{prefix}decoder_target_tokens"]
        if f"{prefix}labels" in batch:
            names[1] = f"{prefix}decoder_input_tokens"
            tokens += batch[names[1]][..., 0].size
        for array in (batch[name] for name in names if name in batch):
            tokens += int(np.count_nonzero(array))
            places += array.size
    return tokens, places


def check_layout(pairs: Mapping[str, int], documents: Mapping[str, int], groups: int) -> None:
    """Checks that the tasks of a group and the groups fit one another.

    Raises:
      UserError: they do not.
    """
    if both := sorted(set(pairs) & set(documents)):
        raise UserError(
            f"The task {both[0]!r} stands among the pairs and among the documents; register it "
            "under a second name, which also gives it an order of its own."
        )
    tasks = {**pairs, **documents}
    if not tasks or min(tasks.values()) < 1:
        raise UserError(
            f"A group needs at least one task, and at least one example of each, not {tasks}."
        )
    if groups < 1:
        raise UserError(f"A batch of {groups} groups is none; use 1 or more.")


def check_fractions(fractions: Mapping[str, float], tasks: Mapping[str, int]) -> None:
    """Checks that fractions are those of tasks of the stream.

    Raises:
      UserError: one is not.
    """
    if strange := sorted(set(fractions) - set(tasks)):
        raise UserError(
            f"There is a fraction of the task {strange[0]!r}, which is not among those of the "
            f"stream ({', '.join(sorted(tasks))})."
        )


def host_groups(groups: int, host_index: int, host_count: int) -> range:
    """The contiguous slice of a batch's groups that T5X wants of a host.

    Raises:
      UserError: there is no such host, or the hosts do not divide the groups.
    """
    if not 0 <= host_index < host_count:
        raise UserError(f"There is no host {host_index} among {host_count}; they count from 0.")
    if groups % host_count:
        raise UserError(
            f"A batch of {groups} groups cannot be divided over {host_count} hosts; use a multiple "
            f"of {host_count} groups."
        )
    local = groups // host_count
    return range(host_index * local, (host_index + 1) * local)
