import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.reference import bucket
from simvlm_jax.models.positions import (
    ImageRelativeBias,
    TextRelativeBias,
    grid_offsets,
    text_buckets,
)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_equal_exact_integer_counting(bidirectional):
    distances = np.arange(-700, 701)
    found = np.asarray(text_buckets(jnp.asarray(distances), bidirectional))
    expected = [bucket(int(d), bidirectional) for d in distances]
    np.testing.assert_array_equal(found, expected)
    assert set(found) == set(range(32)) - ({16} if bidirectional else set())


def test_buckets_by_worked_example():
    """Keys to the left of a decoder's query: 16 exact distances, the last one from 113 on."""
    found = text_buckets(-jnp.asarray([0, 1, 15, 16, 18, 19, 112, 113, 128, 9999]), False)
    assert found.tolist() == [0, 1, 15, 16, 16, 17, 30, 31, 31, 31]
    assert text_buckets(jnp.asarray([1, 5]), False).tolist() == [0, 0]
    assert text_buckets(jnp.asarray([-1, 0, 1, 8]), True).tolist() == [1, 0, 17, 24]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4))
def test_offsets_by_brute_force(height, width):
    rows, columns = grid_offsets(height, width)
    for query in range(height * width):
        for key in range(height * width):
            row = key // width - query // width
            column = key % width - query % width
            assert rows[query, key] == row + height - 1
            assert columns[query, key] == column + width - 1


def test_offsets_by_worked_example():
    rows, columns = grid_offsets(1, 2)
    np.testing.assert_array_equal(columns, [[1, 2], [0, 1]])
    assert not rows.any()


def test_image_bias_depends_on_the_offset_alone_and_starts_at_zero():
    module = ImageRelativeBias(heads=2, grid=(2, 3))
    start = module.init(jax.random.key(0))
    assert not np.asarray(module.apply(start)).any()
    table = np.random.default_rng(0).standard_normal((2, 3, 5))
    bias = np.asarray(module.apply({"params": {"table": table}}))
    assert bias.shape == (2, 6, 6)
    # One step right and one down, from patch 0 to 4 and from 1 to 5.
    np.testing.assert_array_equal(bias[:, 0, 4], bias[:, 1, 5])
    np.testing.assert_allclose(bias[:, 0, 4], table[:, 2, 3], rtol=1e-6)
    np.testing.assert_allclose(bias[:, 4, 0], table[:, 0, 1], rtol=1e-6)


def test_text_bias_looks_up_buckets_per_head_and_example():
    module = TextRelativeBias(heads=3, bidirectional=True)
    table = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
    queries, keys = np.array([[0, 9], [4, 70]]), np.array([[0, 1, 30], [2, 3, 4]])
    bias = np.asarray(module.apply({"params": {"table": table}}, queries, keys))
    assert bias.shape == (2, 3, 2, 3)
    for b, n, q, k in np.ndindex(bias.shape):
        assert bias[b, n, q, k] == table[bucket(int(keys[b, k] - queries[b, q]), True), n]
