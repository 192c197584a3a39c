import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simvlm_jax.models.layers import (
    Dropout,
    StochasticDepth,
    constrain,
    dense,
    gathered,
    layer_rates,
    norm,
)
from simvlm_jax.partitioning import AXES, Layout


def drop(module, x, *arguments, seed=0):
    return np.asarray(module.apply({}, x, *arguments, rngs={"dropout": jax.random.key(seed)}))


def test_dropout_needs_a_random_key():
    x = jnp.ones((4, 500))
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x), x)
    np.testing.assert_array_equal(drop(Dropout(0.0), x), x)
    dropped = drop(Dropout(0.25), x)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.75], rtol=1e-6)
    # 2000 draws: a standard deviation of the share kept is 0.0097.
    assert (dropped > 0).mean() == pytest.approx(0.75, abs=0.05)
    assert (drop(Dropout(0.25), x, seed=1) != dropped).any()


def test_stochastic_depth_drops_whole_examples_and_keeps_the_expectation():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4000, 3)), jnp.float32)
    dropped = drop(StochasticDepth(True), x, 0.2)
    kept = dropped.any(axis=1)
    np.testing.assert_allclose(dropped[kept], x[kept] / 0.8, rtol=1e-6)
    # 4000 draws: a standard deviation of the share kept is 0.0063.
    assert kept.mean() == pytest.approx(0.8, abs=0.03)
    ones = drop(StochasticDepth(True), jnp.ones((4000, 1, 1)), 0.2)
    assert ones.mean() == pytest.approx(1.0, abs=0.04)


def test_stochastic_depth_is_off_without_a_key_a_rate_or_leave():
    x = jnp.ones((50, 2))
    np.testing.assert_array_equal(StochasticDepth(True).apply({}, x, 0.9), x)
    np.testing.assert_array_equal(drop(StochasticDepth(True), x, 0.0), x)
    np.testing.assert_array_equal(drop(StochasticDepth(False), x, 0.9), x)


def test_rates_grow_linearly_from_zero():
    assert layer_rates(0.1, 3) == [0.0, 0.05, 0.1]
    assert layer_rates(0.1, 1) == [0.0]
    np.testing.assert_allclose(layer_rates(0.3, 31), np.linspace(0, 0.3, 31))


@pytest.mark.parametrize("style", ["vit", "t5"])
def test_norms_take_their_statistics_in_float32(style):
    x = 300 + np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    module = norm(style, "bfloat16")
    variables = module.init(jax.random.key(0), jnp.asarray(x))
    rounded = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    found = np.asarray(module.apply(variables, jnp.asarray(x, jnp.bfloat16)), np.float64)
    centred = rounded - rounded.mean(1, keepdims=True) * (style == "vit")
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


LAYOUT = Layout(jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), AXES))


def constraints(program):
    """Every sharding constraint of a program, those of programs within it too, in order."""
    for equation in program.eqns:
        if equation.primitive.name == "sharding_constraint":
            yield equation
        for value in equation.params.values():
            if hasattr(inner := getattr(value, "jaxpr", value), "eqns"):
                yield from constraints(inner)


def specs(function, *arguments):
    """Where a function fixes arrays under a layout's rules."""
    with LAYOUT.rules():
        program = jax.make_jaxpr(function)(*arguments)
    found = constraints(program.jaxpr)
    return [tuple(equation.params["sharding"].spec) for equation in found]


def test_activations_lie_by_their_batch_and_what_tensor_cuts():
    x = jnp.ones((2, 3, 4))
    both = ("data", "fsdp")
    assert specs(lambda x: constrain(x, "batch", "length", "embed"), x) == [(both, None, None)]
    assert specs(lambda x: constrain(x, "batch", "length", "mlp"), x) == [(both, None, "tensor")]
    everywhere = ("data", "fsdp", "tensor")
    assert specs(lambda x: constrain(x, "image_batch", None, "unknown"), x) == [
        (everywhere, None, None)
    ]
    assert constrain(x, "batch", "length", "embed") is x  # nobody's rules


@pytest.mark.parametrize(
    ("names", "whole", "cut"),
    [
        (("embed", "joined_kv"), (None, "tensor"), ("fsdp", "tensor")),
        (("embed", "mlp"), (None, "tensor"), (None, ("tensor", "fsdp"))),
        (("mlp", "embed"), ("tensor", None), (("tensor", "fsdp"), None)),
    ],
)
def test_a_kernel_is_gathered_and_its_gradient_cut_again(names, whole, cut):
    kernel = jnp.ones((4, 6))
    gradient = jax.grad(lambda kernel: gathered(kernel, names).sum())
    assert specs(lambda kernel: gathered(kernel, names), kernel) == [whole]
    assert specs(gradient, kernel) == [whole, cut]
    np.testing.assert_array_equal(gradient(kernel), np.ones((4, 6)))


def test_projections_gather_their_kernels():
    module, x = dense(6, ("embed", "mlp"), "t5", "float32"), jnp.ones((2, 4))
    variables = nn.meta.unbox(module.init(jax.random.key(0), x))
    gradient = jax.grad(lambda variables: module.apply(variables, x).sum())
    assert specs(gradient, variables) == [(None, "tensor"), (None, ("tensor", "fsdp"))]
