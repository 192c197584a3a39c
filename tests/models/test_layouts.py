import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from models.networks import FAMILIES, forward, parameters
from simvlm_jax.errors import UserError
from simvlm_jax.models.layouts import scan, unscan
from simvlm_jax.testing import random_parameters, tiny_batch, tiny_config


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["paper", "t5_decoder", "decoder_only"])
def test_round_trip_is_bit_equal_and_fits_the_unrolled_network(name):
    scanned = parameters(FAMILIES[name])
    unrolled = unscan(scanned)
    assert_same(scan(unrolled), scanned)
    expected = random_parameters(unrolled_of(FAMILIES[name]))
    assert jax.tree.map(np.shape, unrolled) == jax.tree.map(np.shape, expected)


def unrolled_of(config):
    return dataclasses.replace(config, scan_layers=False)


def test_outputs_of_both_layouts_are_equal():
    config = FAMILIES["t5_decoder"]
    batch = tiny_batch(config)
    logits = forward(unrolled_of(config), batch, unscan(parameters(config)))
    np.testing.assert_allclose(logits, forward(config, batch), rtol=1e-5, atol=1e-5)


def test_layer_i_is_row_i():
    tree = {"encoder": {"scanned": {"norm": {"scale": np.arange(24.0).reshape(12, 2)}}}, "x": 3}
    layers = unscan(tree)
    assert layers["x"] == 3
    for i in range(12):
        np.testing.assert_array_equal(
            layers["encoder"][f"layer_{i}"]["norm"]["scale"], [2 * i, 2 * i + 1]
        )
    backwards = {"encoder": dict(reversed(layers["encoder"].items())), "x": 3}
    assert_same(scan(backwards), tree)  # by number: layer_10 comes after layer_9


def test_optimizer_states_are_converted_too():
    params = jax.tree.map(jnp.asarray, parameters(FAMILIES["t5"]))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3), optax.ema(0.9))
    state = optimizer.init(params)
    unrolled = unscan(state)
    assert jax.tree.structure(unrolled) == jax.tree.structure(optimizer.init(unscan(params)))
    assert_same(scan(unrolled), state)


def test_a_network_without_stacks_is_left_alone():
    tree = {"a": {"b": np.ones(3)}, "empty": {}, "nothing": None}
    assert_same(unscan(tree), tree)
    assert_same(scan(tree), tree)


@pytest.mark.parametrize(
    "convert, tree, words",
    [
        (unscan, {"scanned": {"a": np.ones((2, 3)), "b": np.ones((3, 3))}}, "one leading size"),
        (unscan, {"scanned": {"a": np.float32(1)}}, "not in the scanned layout"),
        (unscan, {"scanned": {}}, "no array at all"),
        (scan, {"layer_0": {"a": np.ones(2)}, "layer_2": {"a": np.ones(2)}}, "'layer_1'"),
        (scan, {"layer_0": {"a": np.ones(2)}, "layer_1": {"a": np.ones(3)}}, "do not fit"),
        (scan, {"layer_0": {"a": np.ones(2)}, "layer_1": {"b": np.ones(2)}}, "do not fit"),
    ],
)
def test_refusals_are_one_sentence(convert, tree, words):
    with pytest.raises(UserError, match=words) as caught:
        convert(tree)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_the_default_layout_is_scanned():
    assert "scanned" in random_parameters(tiny_config())["encoder"]
