"""A batch shared out over the devices of all processes: who has which rows, and how it is run."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding


class Share:
    """The groups of a batch that the devices of this process hold.

    On a torus they need not follow one another, and processes that share a model (`tensor`) hold
    the same. Example, 4 groups on the devices [[A, B], [A, B]] of two processes A and B, cut along
    the first two axes: A has the groups 0 and 2.

    Attributes:
        groups: Their numbers in the global batch, int64 in ascending order.
        groups_in_batch: How many all processes hold together.
        sharding: Of every array's first axis.
    """

    def __init__(self, sharding: Sharding, groups_in_batch: int) -> None:
        """Works out the share.

        Args:
            sharding: Of every array's first axis.
            groups_in_batch: Of all processes together.
        """
        self.sharding, self.groups_in_batch = sharding, groups_in_batch
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
        return jax.make_array_from_callback(shape, self.sharding, shard)


def copied_everywhere(params: Any) -> Any:
    """Copies arrays that every process has to all devices, as global arrays."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            np.shape(leaf), _all_devices(), lambda index: np.asarray(leaf)[index]
        ),
        params,
    )


def _all_devices(*axes: str) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec(*axes))


class Replicas:
    """A function of (parameters, batch), run by all devices of all processes, each on its rows.

    Every process calls it with the same batches in the same order, and every one gets all results.
    """

    def __init__(self, function: Callable, params: Any) -> None:
        """Keeps the parts.

        Args:
            function: Takes the parameters and a dictionary of arrays [B, ...]; it is compiled.
            params: What `copied_everywhere` returned.
        """
        self._params, self._rows = params, _all_devices("data")
        self._function = jax.jit(function, out_shardings=_all_devices())

    def padded(self, rows: int) -> int:
        """The least number from `rows` on that the devices can share out."""
        devices = self._rows.mesh.size
        return -(-rows // devices) * devices

    def rows(self, count: int) -> np.ndarray:
        """Which of so many rows, filled up to `padded`, this process has to know."""
        return self._share(count).groups

    def compiled(self) -> int:
        """How many programs there are by now: one for each shape of batch."""
        return self._function._cache_size()

    def __call__(self, batch: dict[str, np.ndarray]) -> Any:
        """Runs the function.

        Args:
            batch: Arrays [B, ...]; only this process's rows have to be right.

        Returns:
            NumPy arrays; those with a row for each of the batch's have more where the devices do
            not divide it: of rows of zeros.
        """
        count = len(next(iter(batch.values())))
        share = self._share(count)
        missing = self.padded(count) - count
        filled = {
            name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))[share.groups]
            for name, array in batch.items()
        }
        return jax.device_get(self._function(self._params, share.place(filled)))

    def _share(self, count: int) -> Share:
        return Share(self._rows, self.padded(count))
