"""A process's share of every batch, put on its devices ahead of its use."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from simvlm_jax.errors import UserError


class Share:
    """The groups of a batch that the devices of this process hold.

    On a torus they need not follow one another, and processes that share a model (`tensor`) hold
    the same. Example, 4 groups on the devices [[A, B], [A, B]] of two processes A and B, cut along
    the first two axes: A has the groups 0 and 2.

    Attributes:
        groups: Their numbers in the global batch, int64 in ascending order.
        groups_in_batch: How many all processes hold together.
    """

    def __init__(self, sharding: Sharding, groups_in_batch: int) -> None:
        """Works out the share.

        Args:
            sharding: Of every array's first axis.
            groups_in_batch: Of all processes together.
        """
        self._sharding, self.groups_in_batch = sharding, groups_in_batch
        places = sharding.addressable_devices_indices_map((groups_in_batch,)).values()
        numbers = np.arange(groups_in_batch)
        self.groups = np.unique(np.concatenate([numbers[place] for place in places]))

    def place(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Puts arrays of this share [groups, ...] on the devices, as global arrays [G, ...]."""
        return {name: self._global(array) for name, array in batch.items()}

    def _global(self, array: np.ndarray) -> jax.Array:
        def shard(index: tuple[slice, ...]) -> np.ndarray:
            first, last, _ = index[0].indices(self.groups_in_batch)
            start = np.searchsorted(self.groups, first)
            return array[start : start + last - first]

        shape = (self.groups_in_batch, *array.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, shard)


def prefetch(stream: Any, start: int, end: int, share: Share) -> Iterator[Future[dict]]:
    """Takes the share's batches in a thread, one ahead of the one in use, and puts them in place.

    At its end, and when it is closed, it ends the thread and closes the batches, if that can be.

    Args:
        stream: Offers `batches(start_step, groups)`, dictionaries of arrays [groups, ...].
        start: The step of the first batch.
        end: The step after the last one.
        share: Puts them on the devices.

    Yields:
        Futures of the global arrays: so the reader knows whether it has to wait. Their results
        raise what the stream raises, and a UserError if there are fewer batches.
    """
    batches, count = stream.batches(start, share.groups), end - start

    def take(left: int) -> dict:
        if (batch := next(batches, None)) is None:
            raise UserError(f"The data ended {left} steps before the run: it must repeat.")
        return share.place(batch)

    with contextlib.ExitStack() as stack:
        stack.callback(getattr(batches, "close", lambda: None))
        thread = ThreadPoolExecutor(1)  # it ends first: a generator at work cannot be closed
        stack.callback(thread.shutdown, cancel_futures=True)
        following = thread.submit(take, count)
        for left in reversed(range(count)):
            future, following = following, thread.submit(take, left) if left else None
            yield future
