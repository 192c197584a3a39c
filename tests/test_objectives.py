import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.objectives import class_scores, class_sums, token_log_probabilities, token_sums

SHAPE = (2, 3, 5)


def brute_force(logits, targets, weights, smoothing=0.0, z_loss=0.0):
    """Loss, plain loss, right answers and tokens, one token at a time."""
    sums = np.zeros(4)
    for b, t in np.ndindex(targets.shape):
        z = np.log(np.exp(logits[b, t].astype(np.float64)).sum())
        chances = logits[b, t] - z
        wanted = np.full(len(chances), smoothing / len(chances))
        wanted[targets[b, t]] += 1 - smoothing
        plain = -chances[targets[b, t]]
        loss = -(wanted * chances).sum() + z_loss * z**2
        right = chances.argmax() == targets[b, t]
        sums += weights[b, t] * np.array([loss, plain, right, 1.0])
    return sums


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 1e-3, 0.1]))
def test_sums_equal_one_token_at_a_time(seed, smoothing, z_loss):
    random = np.random.default_rng(seed)
    logits = 4 * random.standard_normal(SHAPE, np.float32)
    targets = random.integers(0, SHAPE[-1], SHAPE[:2], np.int32)
    weights = random.integers(0, 2, SHAPE[:2]).astype(np.float32)
    found = token_sums(logits, targets, weights, smoothing, z_loss)
    expected = brute_force(logits, targets, weights, smoothing, z_loss)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_worked_example():
    """Even logits over four tokens cost ln 4 each; only two of three tokens are real."""
    sums = token_sums(jnp.zeros((1, 3, 4)), jnp.asarray([[2, 1, 0]]), jnp.asarray([[1.0, 1, 0]]))
    assert float(sums.loss) == pytest.approx(2 * np.log(4))
    assert float(sums.tokens) == 2


def test_pads_add_nothing_to_loss_or_gradient_whatever_they_say():
    random = np.random.default_rng(0)
    logits = random.standard_normal(SHAPE, np.float32)
    targets = np.array([[1, 2, 0], [3, 0, 0]], np.int32)
    weights = (targets != 0).astype(np.float32)

    @jax.jit
    def both(logits, targets):
        return jax.value_and_grad(lambda x: token_sums(x, targets, weights, 0.1, 1e-2).loss)(logits)

    loss, gradient = both(logits, targets)
    wild = np.where(weights[..., None] == 0, 50 * logits, logits)
    other_loss, other_gradient = both(wild, np.where(targets == 0, 4, targets))
    assert float(loss) == float(other_loss)
    np.testing.assert_array_equal(gradient, other_gradient)
    assert not np.asarray(gradient)[weights == 0].any()


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.floats(-80, 80))
def test_log_probabilities_are_normalised_and_ignore_a_shift(seed, shift):
    random = np.random.default_rng(seed)
    logits = random.standard_normal((1, 5, 5), np.float32) + np.float32(shift)
    everything = np.tile(logits[:, :1], (1, 5, 1))
    found = token_log_probabilities(everything, np.arange(5)[None])
    assert float(np.exp(found).sum()) == pytest.approx(1, abs=1e-4)


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((1, 1000, 3), jnp.bfloat16)
    sums = token_sums(logits, jnp.zeros((1, 1000), jnp.int32), jnp.ones((1, 1000)))
    assert sums.loss.dtype == jnp.float32
    assert float(sums.loss) == pytest.approx(1000 * np.log(3), rel=1e-5)


def test_scores_of_classes_worked_example():
    labels, scores = jnp.asarray([[2, 0, -1], [1, -1, -1]]), jnp.asarray([[0.3, 1, 0], [0.6, 0, 0]])
    found = class_scores(labels, scores, 3)
    np.testing.assert_allclose(found, [[1, 0, 0.3], [0, 0.6, 0]], rtol=1e-6)
    assert np.isnan(class_scores(labels, scores, 2)[0]).all()


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        # Even logits over four classes: ln 4, whatever the shares are; or ln 2 for every class.
        ("softmax", 2 * np.log(4)),
        ("sigmoid", 2 * 4 * np.log(2)),
    ],
)
def test_class_sums_worked_example(objective, loss):
    """The likeliest of equals is class 0, whose scores are 0.9 and 0; the third row has none."""
    labels = jnp.asarray([[1, 0], [3, -1], [2, -1]])
    scores = jnp.asarray([[0.3, 0.9], [1.0, 0.0], [0.0, 0.0]])
    sums = class_sums(jnp.zeros((3, 4), jnp.bfloat16), labels, scores, objective)
    np.testing.assert_allclose(sums, [loss, 0.9, 2], rtol=1e-6)


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_a_row_without_scores_has_no_gradient(objective):
    random = np.random.default_rng(0)
    logits = random.standard_normal((3, 4), np.float32)
    labels, scores = jnp.asarray([[1], [3], [2]]), jnp.asarray([[0.5], [0.0], [1.0]])
    gradient = jax.grad(lambda x: class_sums(x, labels, scores, objective).loss)(logits)
    targets = np.float64([[0, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
    if objective == "softmax":
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = chances - np.array([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
    else:
        expected = 1 / (1 + np.exp(-logits)) - targets
    expected[1] = 0
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
