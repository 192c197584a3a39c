"""One training step as a compiled function; the loop runs it, and a plan compiles it for a pod."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from simvlm_jax.partitioning import Layout
from simvlm_jax.training import freezing
from simvlm_jax.training.state import TrainState


def compile_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    target: TrainState,
    layout: Layout,
    seed: int,
) -> Callable:
    """Makes the jitted (state, batch) -> (state, loss, gradient's norm, metrics).

    The state is donated. Gradients are reduced to where their parameters lie, and the loss and the
    optimizer have names of their own in profiles (so have the network's modules).

    Args:
        model: Offers `loss_fn`, and may offer `frozen`.
        optimizer: Any optax transform.
        target: What `abstract_state` returned.
        layout: Where parameters, batches and activations lie.
        seed: Of dropout.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    optimizer = freezing.for_model(optimizer, model)

    def loss_fn(params: Any, batch: dict, dropout_key: jax.Array) -> tuple:
        return model.loss_fn(freezing.hold(optimizer, params), batch, dropout_key)

    def step(state: TrainState, batch: dict) -> tuple:
        dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
        value_and_gradient = jax.value_and_grad(loss_fn, has_aux=True)
        with layout.rules():
            (loss, metrics), gradient = value_and_gradient(state.params, batch, dropout_key)
        gradient = jax.lax.with_sharding_constraint(gradient, shardings.params)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            norm = optax.tree.norm(gradient)
        return TrainState(state.step + 1, params, opt_state), loss, norm, metrics

    everywhere = layout.replicated
    return jax.jit(
        step,
        in_shardings=(shardings, layout.by_group),
        out_shardings=(shardings, everywhere, everywhere, everywhere),
        donate_argnums=0,
    )
