import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.training import optimizers
from standin import Model, Stream


@pytest.mark.parametrize(
    ("updates", "share", "expected"),
    [
        # W = 2: 1/2, 2/2, then (100 - i) / 98
        (100, 0.02, {0: 0.5, 1: 1.0, 2: 1.0, 51: 0.5, 99: 1 / 98, 100: 0.0, 150: 0.0}),
        # W = 1: no update is lost to a rate of 0
        (4, 0.0, {0: 1.0, 1: 1.0, 2: 2 / 3, 3: 1 / 3, 4: 0.0}),
        (4, 1.0, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0}),
        (1, 0.02, {0: 1.0}),
    ],
)
def test_schedule_has_the_values_worked_out_by_hand(updates, share, expected):
    schedule = optimizers.warmup_linear_decay(5e-4, updates, share)
    found = {step: float(schedule(jnp.int32(step))) for step in expected}
    assert found == pytest.approx({step: 5e-4 * value for step, value in expected.items()})


def test_only_kernels_and_embeddings_decay():
    params = {
        "token": {"embedding": 0},
        "token_embedding": 0,
        "image_positions": 0,
        "encoder": {"layers": {"kernel": 0, "bias": 0, "scale": 0, "relative_bias": 0}},
        "kernel": {"scale": 0},
    }
    assert optimizers.decay_mask(params) == {
        "token": {"embedding": True},
        "token_embedding": True,
        "image_positions": False,
        "encoder": {
            "layers": {"kernel": True, "bias": False, "scale": False, "relative_bias": False}
        },
        "kernel": {"scale": False},
    }


def numpy_adamw(params, gradients, rates, clip, decay, ema_decay):
    """AdamW as Loshchilov and Hutter write it, one array at a time."""
    b1, b2, eps = 0.8, 0.95, 1e-6
    first, second = ({name: 0.0 for name in params} for _ in range(2))
    average = dict(params)
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        norm = np.sqrt(sum((value**2).sum() for value in gradient.values()))
        for name, value in gradient.items():
            value = value * min(1.0, clip / norm)
            first[name] = b1 * first[name] + (1 - b1) * value
            second[name] = b2 * second[name] + (1 - b2) * value**2
            step = (first[name] / (1 - b1**number)) / (
                np.sqrt(second[name] / (1 - b2**number)) + eps
            )
            shrink = decay * params[name] if name == "kernel" else 0.0
            params = params | {name: params[name] - rate * (step + shrink)}
            average[name] = ema_decay * average[name] + (1 - ema_decay) * params[name]
    return params, average


def test_adamw_clipping_and_average_follow_numpy():
    generator = np.random.default_rng(0)
    start = {"kernel": generator.normal(size=(3, 2)), "bias": generator.normal(size=(2, 2))}
    gradients = [
        {name: generator.normal(size=value.shape) for name, value in start.items()}
        for _ in range(6)
    ]
    optimizer = optimizers.adamw(
        0.1,
        total_steps=6,
        warmup_share=0.5,
        b1=0.8,
        b2=0.95,
        eps=1e-6,
        weight_decay=0.3,
        clip_norm=2.0,
        ema_decay=0.7,
    )
    params = jax.tree.map(jnp.float32, start)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)
    rates = 0.1 * np.array([1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3])
    expected, average = numpy_adamw(start, gradients, rates, 2.0, 0.3, 0.7)
    for name in start:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-5)
        np.testing.assert_allclose(optimizers.ema_params(state)[name], average[name], rtol=1e-5)


MODEL = Model(dropout=0)
STREAM = Stream()


@functools.cache
def compiled(accumulate):
    optimizer = optimizers.adamw(
        0.05, total_steps=3 * accumulate, clip_norm=0.5, accumulate=accumulate, ema_decay=0.5
    )

    @jax.jit
    def step(params, state, batch):
        gradient = jax.grad(MODEL.loss_fn, has_aux=True)(params, batch, None)[0]
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return optimizer, step


def train(accumulate, batches):
    optimizer, step = compiled(accumulate)
    params = MODEL.get_initial_variables(jax.random.key(0), STREAM.input_shapes)["params"]
    state = optimizer.init(params)
    history = [params]
    for batch in batches:
        params, state = step(params, state, batch)
        history.append(params)
    return history, optimizers.ema_params(state)


@settings(deadline=None, max_examples=10)
@given(start=st.integers(0, 10**6))
def test_four_microbatches_make_the_update_of_one_batch(start):
    whole = [STREAM.batch(start + step) for step in range(3)]
    parts = [
        {name: value[2 * part : 2 * part + 2] for name, value in batch.items()}
        for batch in whole
        for part in range(4)
    ]
    one, one_average = train(1, whole)
    four, four_average = train(4, parts)
    close = lambda left, right: np.testing.assert_allclose(left, right, atol=1e-5)  # noqa: E731
    jax.tree.map(close, one[-1], four[-1])
    jax.tree.map(close, one_average, four_average)
    jax.tree.map(np.testing.assert_array_equal, four[0], four[3])  # three batches wait
    assert not np.array_equal(four[3]["head"]["kernel"], four[4]["head"]["kernel"])


def test_steps_that_do_not_fill_an_update_are_refused():
    with pytest.raises(UserError, match="use total_steps=8 or 12"):
        optimizers.adamw(total_steps=10, accumulate=4)


def test_an_optimizer_without_an_average_says_so():
    state = optimizers.adamw(total_steps=1).init({"kernel": jnp.ones(2)})
    with pytest.raises(UserError, match="no moving average"):
        optimizers.ema_params(state)
