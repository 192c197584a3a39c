import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.networks import FAMILIES, PATCHES, batch_of, forward, parameters, primitives
from simvlm_jax.models.layouts import scan, unscan
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.models.transformer import Block, Stack, Surroundings
from simvlm_jax.testing import tiny_config

# A stack with everything a layer can have.
EVERYTHING = tiny_config(**PATCHES, decoder_style="t5")
VARIANTS = {
    "unrolled": dict(scan_layers=False),
    "unrolled_dots": dict(scan_layers=False, remat_policy="dots"),
    "dots": dict(remat_policy="dots"),
    "full": dict(remat_policy="full"),
}


@functools.cache
def stack_gradient(config):
    """A compiled loss and gradient over parameters and input, and parameters for it."""
    stack = Stack(config, "t5", 2, cross=True, has_image=True)
    draw = np.random.default_rng(0).standard_normal
    x, memory = (jnp.asarray(draw((2, n, config.width)), jnp.float32) for n in (8, 3))
    mask = jnp.tril(jnp.ones((8, 8), bool))
    around = Surroundings(mask, jnp.asarray(draw((1, 2, 8, 8))), memory, jnp.ones((3,), bool), True)

    def loss(params, x):
        return jnp.sum(jnp.sin(stack.apply({"params": params}, (x,), (around,))[0]))

    init = lambda key: stack.init(key, (x,), (around,))["params"]  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.jit(jax.value_and_grad(loss, (0, 1))), nn.meta.unbox(shapes), x


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_scan_and_remat_change_neither_outputs_nor_gradients(changes):
    reference, shapes, x = stack_gradient(EVERYTHING)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda s: 0.3 * random.standard_normal(s.shape, np.float32), shapes)
    loss, (gradient, of_input) = reference(params, x)
    config = dataclasses.replace(EVERYTHING, **changes)
    other = params if config.scan_layers else unscan(params)
    other_loss, (found, found_of_input) = stack_gradient(config)[0](other, x)
    found = found if config.scan_layers else scan(found)
    assert float(other_loss) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(found_of_input, of_input, rtol=1e-4, atol=1e-4)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(found), strict=True):
        assert np.abs(a).max(axis=tuple(range(1, a.ndim))).min() > 1e-5  # every layer trains
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy, expected", [("none", False), ("dots", True), ("full", True)])
def test_layers_are_recomputed_where_it_was_asked_for(policy, expected):
    config = dataclasses.replace(EVERYTHING, remat_policy=policy)
    batch = batch_of(config)
    inputs = batch["image"], batch["encoder_input_tokens"], batch["decoder_input_tokens"]
    run = SimVLM(config).apply
    found = primitives(run, {"params": parameters(EVERYTHING)}, *inputs)
    assert ("remat2" in found) == expected, found


def image_block(config):
    """A block with image bias, bound to layer 1 of a decoder-only network."""
    block = Block(config, config.decoder_style, cross=False, has_image=True, stochastic_depth=False)
    return block.bind({"params": unscan(parameters(config))["decoder"]["layer_1"]})


def test_image_bias_is_zero_for_pairs_with_text_and_meets_the_text_bias_nowhere():
    config = FAMILIES["decoder_only_t5"]
    patches, tokens = config.image_tokens, config.image_tokens + 3
    block = image_block(config)
    bias = np.asarray(block._bias(None, tokens, with_image=True))[0]
    assert np.abs(bias[:, :patches, :patches]).min() > 0
    assert not bias[:, patches:].any()
    assert not bias[:, :, patches:].any()
    text = jnp.pad(jnp.ones((1, 2, 3, 3)), ((0, 0), (0, 0), (patches, 0), (patches, 0)))
    both = np.asarray(block._bias(text, tokens, with_image=True))[0]
    np.testing.assert_array_equal(both - bias, np.asarray(text[0]))
    assert block._bias(None, 3, with_image=False) is None


def test_each_layer_has_an_image_bias_of_its_own():
    config = FAMILIES["t5_decoder"]
    before = forward(config, batch_of(config))
    for layer in range(2):
        params = jax.tree.map(np.copy, parameters(config))
        table = params["encoder"]["scanned"]["image_bias"]["table"]
        assert table.shape == (2, config.heads, 3, 5)
        table[layer, :, 0, 0] += 3
        assert np.abs(forward(config, batch_of(config), params) - before).max() > 1e-4


def test_a_block_is_its_residual_branches_added_up():
    """Zero output projections leave the input as it was: every sub-layer is a residual branch."""
    config = FAMILIES["decoder_only_t5"]
    params = jax.tree.map(np.copy, unscan(parameters(config))["decoder"]["layer_0"])
    params["self_attention"]["out"]["kernel"][:] = 0
    params["mlp"]["out"]["kernel"][:] = 0
    block = Block(config, "t5", cross=False, has_image=True, stochastic_depth=False)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, config.width)), jnp.float32)
    around = Surroundings(jnp.ones((4, 4), bool))
    y, _ = jax.jit(functools.partial(block.apply, method="with_keys"))(
        {"params": params}, x, 0.0, around
    )
    np.testing.assert_array_equal(y, x)
