import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.models.attention import Attention, Keys, masked_softmax
from simvlm_jax.testing import tiny_config


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=2))
def test_masked_softmax_equals_a_softmax_of_what_is_left(mask):
    logits = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32) * 5
    weights = np.asarray(masked_softmax(jnp.asarray(logits), jnp.asarray(mask)))
    for row, seen, found in zip(logits, mask, weights, strict=True):
        kept = np.exp(row) * seen
        expected = kept / kept.sum() if any(seen) else np.zeros(3)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_masked_softmax_of_nothing_has_a_finite_gradient():
    def total(logits):
        return masked_softmax(logits, jnp.zeros(3, bool)).sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.asarray([1e30, 0, -1e30])), np.zeros(3))


def test_step_mixes_shared_and_own_keys_as_one_attention():
    """Two beams over three shared and two own keys, against each beam alone over all five."""
    config = tiny_config()
    module = Attention(config, "vit")
    random = np.random.default_rng(0)

    def draw(shape):
        return random.standard_normal(shape, np.float32)

    x, memory, own = draw((2, 2, 16)), draw((2, 3, 16)), draw((2, 2, 2, 16))
    mask = np.array([[True, True, False], [True, True, True]])
    biases = draw((2, 2, 2, 3)), draw((2, 2, 2, 2))
    shapes = Keys(*(jnp.zeros((2, 3, 2, 8)),) * 2, jnp.asarray(True))
    init = jax.jit(functools.partial(module.init, method=_both))
    variables = init(jax.random.key(0), memory, shapes)
    project = jax.jit(functools.partial(module.apply, method="keys_values"))
    step = jax.jit(functools.partial(module.apply, method="step"))
    attend = jax.jit(module.apply)
    shared_keys, own_keys = project(variables, memory), project(variables, own)
    found = step(
        variables,
        x,
        Keys(*shared_keys, mask[:, None, None, :], biases[0]),
        Keys(*own_keys, np.array([True, True]), biases[1]),
    )
    for beam in range(2):
        everything = [
            np.concatenate([shared, own[:, beam]], axis=1)
            for shared, own in zip(shared_keys, own_keys, strict=True)
        ]
        seen = np.pad(mask, ((0, 0), (0, 2)), constant_values=True)[:, None, None, :]
        bias = np.concatenate(biases, axis=-1)[:, :, beam : beam + 1]
        alone = attend(variables, x[:, beam : beam + 1], Keys(*everything, seen, bias))
        np.testing.assert_allclose(found[:, beam], alone[:, 0], rtol=1e-5, atol=1e-5)


def _both(module, memory, source):
    module.keys_values(memory)
    return module(memory, source)
