"""Where arrays lie: one mesh axis over the local devices, and batches that are put there ahead."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from simvlm_jax.errors import UserError


def local_mesh() -> Mesh:
    """Returns all local devices as a mesh with the one axis "data"."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def by_group(mesh: Mesh) -> NamedSharding:
    """Shares the first axis of an array out over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Puts a copy of an array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def require_divisible(input_shapes: Mapping[str, tuple[int, ...]], count: int) -> None:
    """Checks that the first axis of a batch can be shared out evenly.

    Args:
        input_shapes: Shapes of a batch's leaves by name; all have the groups as their first axis.
        count: Number of devices.

    Raises:
        UserError: If it cannot; it names the nearest numbers that can.
    """
    groups = next(iter(input_shapes.values()))[0]
    if groups % count:
        lower = groups // count * count
        nearest = f"{lower} or {lower + count}" if lower else f"{count}"
        raise UserError(
            f"A batch of {groups} groups cannot be shared out evenly over {count} devices: set "
            f"BATCH_SIZE to {nearest}."
        )


def prefetch(batches: Iterator[dict], count: int, mesh: Mesh) -> Iterator[Future[dict]]:
    """Takes batches in a thread, one ahead of the one in use, and puts them on the devices.

    At its end, and when it is closed, it ends the thread and closes `batches`, if that can be.

    Args:
        batches: Dictionaries of arrays whose first axis is the groups.
        count: How many to take.
        mesh: The devices.

    Yields:
        Futures of the same dictionaries, on the devices: so the reader knows whether it has to
        wait. Their results raise what `batches` raises, and a UserError if there are fewer batches
        than `count`.
    """
    sharding = by_group(mesh)

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
