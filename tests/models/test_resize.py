import dataclasses

import jax
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.networks import FAMILIES, flat, forward, parameters
from simvlm_jax.errors import UserError
from simvlm_jax.models.layouts import scan, unscan
from simvlm_jax.models.resize import resize_grid, resize_image_parameters
from simvlm_jax.testing import tiny_batch

OLD = FAMILIES["decoder_only_t5"]
NEW = dataclasses.replace(OLD, image_size=(20, 24))


def bilinear(table, grid):
    """SciPy's interpolation at pixel centres, with the border value outside of them."""
    axes = [
        (np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(table.shape, grid, strict=True)
    ]
    places = np.meshgrid(*axes, indexing="ij")
    return scipy.ndimage.map_coordinates(table.astype(np.float64), places, order=1, mode="nearest")


sizes = st.sampled_from([(1, 3), (2, 2), (4, 3), (5, 7)])


@settings(deadline=None, max_examples=12)
@given(sizes, sizes, st.integers(0, 99))
@example((14, 14), (30, 30), 0)  # positions and offsets of 224 pixels at 480
@example((27, 27), (59, 59), 0)
def test_interpolation_equals_scipys(old, new, seed):
    table = np.random.default_rng(seed).standard_normal(old, np.float32)
    result = resize_grid(table, new)
    expected = bilinear(table, new)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["scanned", "unrolled"])
def test_position_and_bias_tables_follow_the_new_grid(layout):
    params = parameters(OLD)
    given_params = params if layout == "scanned" else unscan(params)
    resized = resize_image_parameters(given_params, OLD, NEW)
    resized = resized if layout == "scanned" else scan(resized)
    assert OLD.grid == (2, 3) and NEW.grid == (5, 6)

    positions = params["image_positions"].reshape(2, 3, -1)
    expected = np.stack([bilinear(p, (5, 6)) for p in np.moveaxis(positions, -1, 0)], -1)
    np.testing.assert_allclose(resized["image_positions"], expected.reshape(30, -1), atol=1e-5)

    tables = params["decoder"]["scanned"]["image_bias"]["table"]
    found = resized["decoder"]["scanned"]["image_bias"]["table"]
    assert found.shape == (2, OLD.heads, 9, 11)
    for layer in range(2):
        for head in range(OLD.heads):
            expected = bilinear(tables[layer, head], (9, 11))
            np.testing.assert_allclose(found[layer, head], expected, atol=1e-5)
    np.testing.assert_allclose(found[..., 4, 5], tables[..., 1, 2], atol=1e-6)  # offset (0, 0)


def test_everything_else_is_passed_on_and_the_new_network_takes_it():
    params = parameters(OLD)
    resized = resize_image_parameters(params, OLD, NEW)
    assert jax.tree.map(np.shape, resized) == jax.tree.map(np.shape, parameters(NEW))
    old, new = flat(params), flat(resized)
    moved = {path for path in old if new[path] is not old[path]}
    assert moved == {"image_positions", "decoder/scanned/image_bias/table"}
    assert np.isfinite(forward(NEW, tiny_batch(NEW), resized)).all()


def test_the_same_size_is_the_same_parameters():
    params = parameters(OLD)
    same = resize_image_parameters(params, OLD, OLD)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        assert a is b


def test_a_horizontal_picture_stays_one():
    """Rows are rows: a table that varies along columns only still does after resizing."""
    params = parameters(OLD) | {"image_positions": np.tile(np.arange(3.0)[:, None], (2, 16))}
    resized = resize_image_parameters(params, OLD, NEW)["image_positions"].reshape(5, 6, 16)
    np.testing.assert_allclose(resized[:, :, 0], np.tile([0, 0.25, 0.75, 1.25, 1.75, 2], (5, 1)))


@pytest.mark.parametrize("name", ["image_positions", "table"])
def test_parameters_of_another_size_are_refused(name):
    params = resize_image_parameters(parameters(OLD), OLD, NEW)
    if name == "table":
        params["image_positions"] = parameters(OLD)["image_positions"]
    with pytest.raises(UserError, match=r"old grid of \(2, 3\)"):
        resize_image_parameters(params, OLD, NEW)
