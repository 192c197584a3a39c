"""Batches that are put on the devices ahead of their use."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from simvlm_jax.errors import UserError
from simvlm_jax.sharing import Share


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
