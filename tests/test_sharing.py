import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from simvlm_jax.sharing import Replicas, Share, copied_everywhere


class OfAnotherMesh:
    """A sharding of which only the places of this process's devices matter."""

    def __init__(self, *places):
        self._places = places

    def addressable_devices_indices_map(self, shape):
        assert len(shape) == 1
        return dict(enumerate((place,) for place in self._places))


@pytest.mark.parametrize(
    ("places", "groups"),
    [
        ([slice(0, 2), slice(4, 6)], [0, 1, 4, 5]),  # they need not follow one another
        ([slice(4, 6), slice(0, 2)], [0, 1, 4, 5]),  # devices come in any order
        ([slice(2, 4), slice(2, 4)], [2, 3]),  # two devices share a model
        ([slice(None)], [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_share_is_what_the_process_s_devices_hold(places, groups):
    assert Share(OfAnotherMesh(*places), 8).groups.tolist() == groups


def test_what_is_placed_is_the_batch():
    share = Share(SingleDeviceSharding(jax.devices()[0]), 3)
    batch = {"a": np.arange(6).reshape(3, 2), "b": np.float32([1, 2, 3])}
    placed = share.place(batch)
    assert all(isinstance(array, jax.Array) for array in placed.values())
    jax.tree.map(np.testing.assert_array_equal, placed, batch)


def test_replicas_run_a_batch_of_any_size():
    run = Replicas(lambda params, batch: (batch["x"] * params["w"]).sum(1), copied_everywhere(
        {"w": np.float32([2.0, 3.0])}
    ))  # fmt: skip
    assert run.rows(3).tolist() == [0, 1, 2] and run.padded(3) == 3
    np.testing.assert_array_equal(run({"x": np.float32([[1, 1], [0, 2]])}), [5, 6])
    assert run.compiled() == 1
