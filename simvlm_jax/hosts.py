"""The processes of a run, one a host: how they meet, what they tell one another, how they end.

JAX brings the meeting (`jax.distributed`): a coordinator in process 0, a heartbeat from every
other, and SIGTERM to one of them known to all. Values that all have to know go by the
coordinator's store, which needs no device, answers within a time, and so cannot hang.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
from jax._src import distributed  # nothing public gives the coordinator's store

from simvlm_jax.errors import LostError, UserError

HEARTBEAT_SECONDS = 30
# The others need so long at most to come to where they tell something: one may have to read more.
PATIENCE_SECONDS = 600
GRACE_SECONDS = 1
_calls = itertools.count()


def join(
    coordinator_address: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
    meeting_seconds: int = 300,
) -> None:
    """Meets the other processes, once; to be called before anything asks JAX for devices.

    Args:
        coordinator_address: HOST:PORT of process 0; None lets JAX ask Cloud TPU, GKE, SLURM
            or MPI.
        process_count: How many there are; None likewise.
        process_index: Which of them this is; None likewise.
        heartbeat_seconds: After so long without a word of one, the others end with code 134.
        meeting_seconds: How long to wait for all to come.

    Raises:
        LostError: If they did not all come, or nothing says who they are.
    """
    if joined():
        return
    try:
        jax.distributed.initialize(
            coordinator_address,
            process_count,
            process_index,
            initialization_timeout=meeting_seconds,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LostError(
            f"The processes of the run did not meet: {reason.rstrip('.')}; give every one the same "
            "--coordinator_address and --process_count and a --process_index of its own."
        ) from error


def joined() -> bool:
    """Whether this process has met others (or could have: it may be the only one)."""
    return jax.distributed.is_initialized()


def index() -> int:
    """Which process this is, from 0 on; known without asking for devices."""
    return distributed.global_state.process_id if joined() else 0


def count() -> int:
    """How many processes there are; known without asking for devices."""
    return distributed.global_state.num_processes if joined() else 1


def is_first() -> bool:
    """Whether this is the process that writes what only one should."""
    return index() == 0


def gather(what: str, value: Any) -> list[Any]:
    """Lets every process know a value of each; all must call it, in the same order.

    Args:
        what: Names the value, for the error.
        value: Anything that JSON can hold.

    Returns:
        The values of processes 0, 1, ...

    Raises:
        LostError: If not all came to the same point.
    """
    if count() == 1:
        return [value]
    folder = f"simvlm/{next(_calls)}/{what}"
    client = distributed.global_state.client
    try:
        client.key_value_set(f"{folder}/{index():06d}", json.dumps(value))
        client.wait_at_barrier(folder.replace("/", "-"), PATIENCE_SECONDS * 1000)
        entries = client.key_value_dir_get(folder)
    except Exception as error:  # jaxlib's own, by way of RuntimeError and ValueError
        reason = " ".join(str(error).split())[:200]
        raise LostError(
            f"Process {index()} did not hear from all {count()} ({what}): {reason}; start them all "
            "again."
        ) from error
    return [json.loads(text) for _, text in sorted(entries)]


def first_says(what: str, value: Any) -> Any:
    """The value of process 0, for all of them; all must call it, in the same order."""
    return gather(what, value if is_first() else None)[0]


def first_does(what: str, action: Callable[[], Any]) -> None:
    """Lets process 0 do something while the others wait; all must call it, in the same order.

    Raises:
        UserError: On all of them, if process 0 refuses.
    """
    refusal = None
    if is_first():
        try:
            action()
        except UserError as error:
            refusal = str(error)
    if refusal := first_says(what, refusal):
        raise UserError(refusal)


def wait_for_all(what: str) -> None:
    """Returns once every process has come here."""
    gather(what, None)


def leave(code: int) -> None:
    """Ends this process; others that wait for it miss its heartbeat and end with 134."""
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first() and count() > 1:
        time.sleep(GRACE_SECONDS)  # the coordinator ends with it: others may leave likewise
    os._exit(code)
