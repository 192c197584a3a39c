"""The paper's optimizer: AdamW with a short linear warm-up and a linear decay (section 4.1)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from simvlm_jax.errors import UserError
from simvlm_jax.training.freezing import PartialOptimizer, freeze

DECAYED_NAMES = ("kernel", "embedding", "token_embedding")


def warmup_linear_decay(
    peak_learning_rate: float, updates: int, warmup_share: float = 0.02
) -> optax.Schedule:
    """Linear up to the peak over the first updates, then linear down to 0 (section 4.1).

    With W = max(1, round(warmup_share * updates)), update number i (from 0) uses
    peak * min((i + 1) / W, (updates - i) / (updates - W)): no update is spent on a rate of 0, the
    peak is used by updates W - 1 and W, and the rate is 0 from update `updates` on.

    Args:
        peak_learning_rate: The highest rate.
        updates: How many updates the whole run makes.
        warmup_share: The share of the updates that warm up, from 0 to 1.

    Returns:
        A function from the update's number (int32 scalar) to the rate (float32 scalar).
    """
    warmup = max(1, round(warmup_share * updates))
    decay = max(1, updates - warmup)

    def rate(count: jax.Array) -> jax.Array:
        share = jnp.minimum((count + 1) / warmup, (updates - count) / decay)
        return peak_learning_rate * jnp.clip(share, 0.0, 1.0)

    return rate


def decay_mask(params: Any) -> Any:
    """Says which parameters decay: leaves named in `DECAYED_NAMES`, kernels and embeddings.

    The name decides, not the rank, because scanning over layers gives every bias a second axis.
    Scales, biases, position tables and relative-bias tables do not decay.

    Args:
        params: A pytree of parameters, or of anything else, with named leaves.

    Returns:
        The same pytree with a bool at every leaf.
    """

    def decays(path: tuple, _: Any) -> bool:
        return jax.tree_util.keystr(path[-1:], simple=True) in DECAYED_NAMES

    return jax.tree_util.tree_map_with_path(decays, params)


def average_params(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters; leaves the updates as they are.

    It stands last in a chain, where the updates are final: ema = decay * ema + (1 - decay) *
    (params + updates). The average starts at the initial parameters.

    Args:
        decay: How much of the old average stays at each update, from 0 to 1.

    Returns:
        An optax transform whose state is an `optax.EmaState`.
    """

    def init(params: Any) -> optax.EmaState:
        # A copy: the average and the parameters are both donated, so they cannot share buffers.
        return optax.EmaState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: optax.EmaState, params: Any = None) -> tuple:
        new_params = optax.apply_updates(params, updates)
        ema = optax.incremental_update(new_params, state.ema, 1.0 - decay)
        return updates, optax.EmaState(state.count + 1, ema)

    return optax.GradientTransformation(init, update)


def ema_params(opt_state: Any) -> Any:
    """Finds the moving average of the parameters inside an optimizer's state.

    Frozen ones are not in it: an `optax.MaskedNode` stands in place of each.

    Raises:
        UserError: If the optimizer keeps none.
    """
    is_average = lambda node: isinstance(node, optax.EmaState)  # noqa: E731
    for node in jax.tree.leaves(opt_state, is_leaf=is_average):
        if is_average(node):
            return node.ema
    raise UserError(
        "The optimizer keeps no moving average of the parameters: train with "
        "adamw.ema_decay set, or ask for the parameters themselves."
    )


def adamw(
    peak_learning_rate: float = 5e-4,
    *,
    total_steps: int,
    warmup_share: float = 0.02,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    clip_norm: float | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
    frozen: Sequence[str] = (),
) -> optax.GradientTransformation | PartialOptimizer:
    """Builds the paper's AdamW (section 4.1); epsilon and clipping are not stated there.

    Only parameters named "kernel", "embedding" or "token_embedding" decay (see `decay_mask`).

    Args:
        peak_learning_rate: The rate at the end of the warm-up.
        total_steps: Batches in the whole run, the same number that `train` is given.
        warmup_share: The share of the updates that warm up.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled decay, multiplied by the rate.
        clip_norm: The largest global norm of a gradient; None leaves it alone.
        accumulate: Batches per update; their gradients are averaged, so a loss that is a sum over a
            constant gives the same update as one batch of all. All else counts updates.
        ema_decay: Keeps a moving average of the parameters with this decay; None keeps none.
        frozen: Patterns of parameters that are left as they are, see `freezing.freeze`.

    Returns:
        The transform; its state holds an `optax.EmaState` where `ema_decay` is given.

    Raises:
        UserError: If the last batches of a run would not make a whole update.
    """
    if total_steps % accumulate:
        lower = total_steps // accumulate * accumulate
        raise UserError(
            f"total_steps={total_steps} is not a multiple of accumulate={accumulate}, so the last "
            f"batches would be lost: use total_steps={lower or accumulate} or "
            f"{lower + accumulate}."
        )
    schedule = warmup_linear_decay(peak_learning_rate, total_steps // accumulate, warmup_share)
    transforms = [optax.adamw(schedule, b1, b2, eps, weight_decay=weight_decay, mask=decay_mask)]
    if clip_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(clip_norm))
    if ema_decay is not None:
        transforms.append(average_params(ema_decay))
    optimizer = optax.chain(*transforms)
    if accumulate > 1:
        optimizer = optax.MultiSteps(optimizer, accumulate).gradient_transformation()
    return freeze(optimizer, frozen)
