import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.training import digests


def numpy_digest(array):
    bits = np.ascontiguousarray(array).view(f"uint{8 * array.dtype.itemsize}").ravel()
    position = np.arange(bits.size, dtype=np.uint64)
    return int((bits.astype(np.uint64) * (2 * position + 1)).sum() % 2**32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (8, 16), (0, 3)])
def test_digest_is_the_weighted_sum_of_the_bits(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2, shape) - (dtype == "float32") * 0.3
    array = np.asarray(array).astype(jnp.dtype(dtype))
    assert int(digests.digest(jnp.asarray(array))) == numpy_digest(array)


@settings(deadline=None, max_examples=25)
@given(row=st.integers(0, 6), column=st.integers(0, 4), bit=st.integers(0, 31))
def test_every_single_bit_is_seen(row, column, bit):
    array = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
    flipped = array.copy()
    flipped.view(np.uint32)[row, column] ^= np.uint32(1) << np.uint32(bit)
    # As bits, because a computation may change the payload of a NaN.
    first, second = (jnp.asarray(each.view(np.uint32)) for each in (array, flipped))
    assert digests.digest(first) != digests.digest(second)


def test_swapped_rows_are_seen():
    array = jnp.arange(6.0).reshape(2, 3)
    assert digests.digest(array) != digests.digest(array[::-1])


def test_the_first_difference_is_named():
    wanted = digests.layout({"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros(1, jnp.int32)}})
    assert wanted == {
        "a": {"shape": [2, 3], "dtype": "float32"},
        "b/c": {"shape": [1], "dtype": "int32"},
    }
    assert digests.first_difference(wanted, wanted) is None
    assert digests.first_difference({}, wanted) == "a is not in it"
    assert digests.first_difference(wanted | {"d": {}}, wanted) == "it also has d"
    found = wanted | {"a": {"shape": [3, 2], "dtype": "float32"}}
    assert digests.first_difference(found, wanted) == "a has shape [3, 2] in it, not [2, 3]"
