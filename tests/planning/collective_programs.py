"""Prints programs compiled for eight devices of this CPU, by name, as JSON.

A program of its own: how many devices a process has is settled before JAX is imported.
"""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax import lax  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

TURN = [(place, (place + 1) % 4) for place in range(4)]
BOTH = P("a", "b")


def reduced(x):
    """What one device sums with all others, of 3 numbers a device."""
    return lax.psum(x[0, :3], ("a", "b"))


def several(x):
    return lax.psum(x, "a"), lax.psum(jnp.sin(x), "b"), reduced(jnp.cos(x))


def repeated(x):
    """In a loop of 5: a sum over a and a swap over b, each within another loop of 3."""

    def inner(carry, _):
        return lax.psum(carry, "a") * 0.5, None

    def outer(carry, _):
        carry = lax.scan(inner, carry, None, length=3)[0]
        return lax.ppermute(carry, "b", [(0, 1), (1, 0)]), lax.all_gather(carry, "b")

    return lax.scan(outer, x, None, length=5)


# Each program, how its argument and its results are divided.
PROGRAMS = {
    "all-reduce": (lambda x: lax.psum(x, "a"), BOTH, P(None, "b")),
    "all-gather": (lambda x: lax.all_gather(x, "a", tiled=True), BOTH, P(None, "b")),
    "reduce-scatter": (lambda x: lax.psum_scatter(x, "a", tiled=True), P(None, "b"), BOTH),
    "all-to-all": (lambda x: lax.all_to_all(x, "a", 0, 1, tiled=True), BOTH, BOTH),
    "collective-permute": (lambda x: lax.ppermute(x, "a", TURN), BOTH, BOTH),
    "several": (several, BOTH, (P(None, "b"), P("a"), P())),
    "repeated": (repeated, BOTH, (BOTH, P(None, None, "a", "b"))),
}


def main():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    array = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    texts = {}
    for name, (function, inputs, outputs) in PROGRAMS.items():
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False
        )
        texts[name] = jax.jit(mapped).lower(array).compile().as_text()
    # Divided by XLA itself: rows of the one, columns of the other, then a sum over everything.
    placed = [NamedSharding(mesh, P("a", None)), NamedSharding(mesh, P("a", "b"))]
    product = jax.jit(lambda x, w: jnp.tanh(x @ w).sum(), in_shardings=placed)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((48, 64), (64, 32))]
    texts["partitioned"] = product.lower(*arrays).compile().as_text()
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
