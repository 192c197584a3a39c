"""Batches that are put on the devices ahead of their use."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
from jax.sharding import Sharding

from simvlm_jax.errors import UserError


def prefetch(batches: Iterator[dict], count: int, sharding: Sharding) -> Iterator[Future[dict]]:
    """Takes batches in a thread, one ahead of the one in use, and puts them on the devices.

    At its end, and when it is closed, it ends the thread and closes `batches`, if that can be.

    Args:
        batches: Dictionaries of arrays whose first axis is the groups.
        count: How many to take.
        sharding: Of every array.

    Yields:
        Futures of the same dictionaries, on the devices: so the reader knows whether it has to
        wait. Their results raise what `batches` raises, and a UserError if there are fewer batches
        than `count`.
    """

    def take(left: int) -> dict:
        if (batch := next(batches, None)) is None:
            raise UserError(f"The data ended {left} steps before the run: it must repeat.")
        return jax.device_put(batch, sharding)

    with contextlib.ExitStack() as stack:
        stack.callback(getattr(batches, "close", lambda: None))
        thread = ThreadPoolExecutor(1)  # it ends first: a generator at work cannot be closed
        stack.callback(thread.shutdown, cancel_futures=True)
        following = thread.submit(take, count)
        for left in reversed(range(count)):
            future, following = following, thread.submit(take, left) if left else None
            yield future
