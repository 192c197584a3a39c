"""A manifest of every array in a checkpoint: shape, dtype and a digest of its bits.

Orbax keeps no checksum of array data, so a flipped bit on disk would come back as a wrong number
with no complaint. A digest here is the sum over all elements of bits * (2 * position + 1) modulo
2^32. The odd factors make every single flipped bit visible, and a sum of integers does not depend
on how an array is laid out over devices.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SEAL = "sha256"
SLICES = 8  # into which a digest cuts an array; with 32 XLA no longer vectorizes


def name(path: tuple) -> str:
    """Writes the path of a leaf as "outer/inner/name"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def paths(tree: Any) -> dict[str, Any]:
    """Flattens a pytree into {"outer/inner/name": leaf}, in the tree's own order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {name(path): leaf for path, leaf in leaves}


def digest(array: jax.Array) -> jax.Array:
    """Sums up the bits of an array.

    Args:
        array: Of any shape and a dtype of at most 32 bits.

    Returns:
        uint32 scalar.
    """
    array = jnp.asarray(array)
    # To cut an array that lies on several devices would move it between them.
    whole = len(array.sharding.device_set) == 1 and array.size % SLICES == 0
    return _sum_of_slices(array) if whole else _sum_in_place(array)


# Both are compiled for an array and not for a whole tree: leaves of one shape then share one.
@jax.jit
def _sum_in_place(array: jax.Array) -> jax.Array:
    """The sum over positions counted along each axis, which any sharding leaves where they are."""
    position = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(
            jnp.uint32, array.shape, axis
        )
    return jnp.sum(_bits(array) * (2 * position + 1), dtype=jnp.uint32)


@jax.jit
def _sum_of_slices(array: jax.Array) -> jax.Array:
    """The same sum, slice by slice: XLA vectorizes additions on CPUs, and no sum of integers."""
    slices = _bits(array).reshape(SLICES, -1)
    size = slices.shape[1]
    factors = 2 * jax.lax.iota(jnp.uint32, size) + 1
    return jnp.sum(
        sum(slices[k] * (factors + jnp.uint32(2 * k * size % 2**32)) for k in range(SLICES)),
        dtype=jnp.uint32,
    )


def _bits(array: jax.Array) -> jax.Array:
    """The elements' bits as uint32."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    unsigned = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def layout(tree: Any) -> dict[str, dict]:
    """Describes the leaves of a pytree of arrays or shapes: {path: {"shape", "dtype"}}."""
    return {
        path: {"shape": list(leaf.shape), "dtype": np.dtype(leaf.dtype).name}
        for path, leaf in paths(tree).items()
    }


def manifest(tree: Any) -> dict[str, dict]:
    """Describes the arrays of a pytree: {path: {"shape", "dtype", "digest"}}, JSON types only."""
    return begun_manifest(tree)()


def begun_manifest(tree: Any) -> Callable[[], dict[str, dict]]:
    """Lets the devices begin with a `manifest`, to be asked for later and from any thread."""
    entries, values = layout(tree), {}
    for path, leaf in paths(tree).items():
        values[path] = digest(leaf)
        if jax.default_backend() == "cpu" and len(values[path].devices()) > 1:
            # Several devices of one CPU share its threads: of programs that wait for one another's
            # parts, those of one can take the threads that the other needs.
            values[path].block_until_ready()
    return lambda: {
        path: entries[path] | {"digest": int(value)}
        for path, value in jax.device_get(values).items()
    }


def seal(manifests: Mapping[str, dict]) -> dict[str, Any]:
    """Adds a digest of the manifests themselves: damage there is none of the arrays."""
    return {**manifests, SEAL: _sha256(manifests)}


def unseal(content: Any, items: Collection[str]) -> dict[str, dict[str, dict]]:
    """Undoes `seal`; manifests of former versions have none.

    Args:
        content: What the file's JSON says; anybody may have written it.
        items: Those that there have to be.

    Raises:
        ValueError: If it is something else, or not what was written.
    """
    manifests = dict(content) if isinstance(content, dict) else {}
    seal = manifests.pop(SEAL, None)
    entries = [item for item in manifests.values() if isinstance(item, dict)]
    whole = len(entries) == len(manifests) and set(items) == set(manifests)
    if not whole or not all(isinstance(e, dict) for item in entries for e in item.values()):
        raise ValueError("its manifest is none")
    if seal not in (None, _sha256(manifests)):
        raise ValueError("its manifest is not the one that was written")
    return manifests


def _sha256(manifests: Mapping[str, dict]) -> str:
    return hashlib.sha256(json.dumps(manifests, sort_keys=True).encode()).hexdigest()


def first_difference(found: Mapping[str, dict], wanted: Mapping[str, dict]) -> str | None:
    """Says in a few words where two layouts or manifests differ first, or None."""
    for path in [*wanted, *found]:
        if path not in found:
            return f"{path} is not in it"
        if path not in wanted:
            return f"it also has {path}"
        for key, value in wanted[path].items():
            if found[path].get(key) != value:
                return f"{path} has {key} {found[path].get(key)} in it, not {value}"
    return None
