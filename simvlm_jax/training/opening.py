"""The first lines of a run: who takes part, how a batch is shared out, how long a step takes."""

import socket
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from simvlm_jax import hosts
from simvlm_jax.partitioning import describe
from simvlm_jax.sharing import Share

SIDE, TRIALS = 2048, 3  # of the matrix product that is timed


def tell(share: Share, flops_per_step: float, more: Sequence[str] = ()) -> None:
    """Prints the lines, in the first process; all must call it.

    Args:
        share: The groups of a batch that this process reads, on a mesh.
        flops_per_step: Floating-point operations of a step, forward and backward.
        more: Other lines.
    """
    names = hosts.gather("host names", socket.gethostname())
    if not hosts.is_first():
        return
    mesh, groups = share.sharding.mesh, share.groups_in_batch
    kind = mesh.devices.flat[0].device_kind
    on_a_device = share.sharding.shard_shape((groups,))[0]
    same_groups = mesh.devices.size * on_a_device // groups
    rate = matrix_rate()
    seconds = flops_per_step / (rate * mesh.devices.size)
    if kind == "cpu":
        seconds *= jax.local_device_count()  # forced devices share the cores that were timed
    lines = [
        f"{_count(len(names), 'process', 'es')} on {_listed(names)}, "
        f"{_count(mesh.devices.size, 'device')} ({kind}); mesh {describe(mesh.shape)}",
        f"{_count(groups, 'group')} a batch: {len(share.groups)} read by a process, "
        f"{on_a_device} on a device" + (f" ({same_groups} share them)" if same_groups > 1 else ""),
        f"{flops_per_step / 1e12:.3g} TFLOP a step: {seconds:.2g} s at the least, at the "
        f"{rate / 1e12:.3g} TFLOP/s that a device here reaches in a matrix product",
    ]
    print("\n".join([*lines, *more]), file=sys.stderr)


def matrix_rate() -> float:
    """Times a product of two float32 matrices on one device, in FLOP/s; the best of some trials."""
    one = jnp.ones((SIDE, SIDE))
    product = jax.jit(lambda x: x @ x)
    product(one).block_until_ready()
    best = float("inf")
    for _ in range(TRIALS):
        before = time.perf_counter()
        product(one).block_until_ready()
        best = min(best, time.perf_counter() - before)
    return 2 * SIDE**3 / best


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _listed(names: list[str]) -> str:
    """Some names, each once: 128 hosts would fill the screen."""
    different = list(dict.fromkeys(names))
    more = len(different) - 4
    return ", ".join(different[:4]) + (f" and {more} more" if more > 0 else "")
