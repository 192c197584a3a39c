"""The same work for every shard of a list, several at a time, telling how far it is."""

import concurrent.futures
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

OPENING_THREADS = 32  # they wait for stores, or for the disk
PROGRESS_SECONDS = 10.0


def open_all(
    work: Callable[[str, threading.Event], Any],
    shards: Sequence[str],
    what: str,
    threads: int = OPENING_THREADS,
) -> list[Any]:
    """Works on all shards; the first refusal, in the shards' order, ends it.

    Args:
      work: called with a shard and an event that is set when its work is no longer wanted.
      shards: paths, in order.
      what: what the report of long work calls it.
      threads: how many shards are worked on at a time.

    Returns:
      What `work` returned, in the order of the shards.
    """
    if not shards:
        return []
    stop = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(min(threads, len(shards)))
    try:
        waiting = futures = [pool.submit(work, shard, stop) for shard in shards]
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, PROGRESS_SECONDS, concurrent.futures.FIRST_EXCEPTION
            )
            for future in futures:
                if future in done and future.exception():
                    raise future.exception()
            if waiting:
                count = len(shards) - len(waiting)
                print(f"{what} shards: {count} of {len(shards)} done", file=sys.stderr)
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
