"""What a training step reads and writes, as one pytree, and how it begins."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from simvlm_jax.errors import UserError
from simvlm_jax.partitioning import Layout, Partitioner, nearest_divisors
from simvlm_jax.training import digests, freezing

ITEMS = ("params", "optimizer")  # the parts of a state that a checkpoint keeps apart


class TrainState(flax.struct.PyTreeNode):
    """The whole of a run: with the seed and the step, everything else follows.

    Attributes:
        step: int32 scalar, the number of batches that were trained on.
        params: The model's parameters.
        opt_state: The optax state that belongs to them.
    """

    step: jax.Array
    params: Any
    opt_state: Any


def items_of(state: TrainState) -> dict[str, Any]:
    """The state as a checkpoint's `ITEMS`: the parameters, and the optimizer with the step."""
    optimizer = {"step": state.step, "opt_state": state.opt_state}
    return dict(zip(ITEMS, (state.params, optimizer), strict=True))


def first_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Makes the state of step 0; its buffers are its own, so that it can be donated."""
    params = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros([], jnp.int32), params, optimizer.init(params))


def lay_out(
    model: Any, stream: Any, partitioner: Partitioner, devices: Sequence[Any] | None = None
) -> Layout:
    """Chooses the mesh for a model and its batches.

    Args:
        model: Offers `get_initial_variables`.
        stream: Offers `input_shapes` and `input_types`; the first axis of a batch is its groups.
        partitioner: Chooses.
        devices: Real ones or those of a described topology; by default all there are.

    Raises:
        UserError: If model, batch and devices do not fit one another.
    """
    variables = jax.eval_shape(lambda: _variables(model, stream, 0))
    groups = next(iter(stream.input_shapes.values()))[0]
    layout = partitioner.layout(groups, variables["params_axes"], variables["params"], devices)
    heads, ways = getattr(getattr(model, "config", None), "heads", 0), layout.sizes["tensor"]
    if heads % ways:
        raise UserError(
            f"tensor={ways} does not divide the model's {heads} attention heads: set tensor to "
            f"{nearest_divisors(heads, ways)}."
        )
    return layout


def abstract_state(
    model: Any, optimizer: optax.GradientTransformation, stream: Any, layout: Layout
) -> TrainState:
    """Works out shapes, dtypes and shardings of the state, without making any array.

    Args:
        model: Offers `get_initial_variables`, and may offer `frozen`.
        optimizer: Any optax transform; those of its arrays that mirror the parameters are sharded
            as they are.
        stream: Offers `input_shapes` and `input_types`.
        layout: How the parameters lie on the devices.

    Returns:
        A state whose leaves are `jax.ShapeDtypeStruct` with a sharding.
    """
    optimizer = freezing.for_model(optimizer, model)
    variables = jax.eval_shape(lambda: _variables(model, stream, 0))
    params = variables["params"]
    state = jax.eval_shape(lambda tree: first_state(tree, optimizer), params)
    everywhere = layout.replicated
    shardings = layout.parameters(variables["params_axes"], params)
    opt_shardings = optax.tree_map_params(
        optimizer,
        lambda leaf, sharding: leaf if _is_frozen(leaf) else sharding,
        state.opt_state,
        shardings,
        transform_non_params=lambda _: everywhere,
        is_leaf=_is_frozen,
    )
    shardings = TrainState(everywhere, shardings, opt_shardings)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )


def create_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    stream: Any,
    target: TrainState,
    seed: int,
    initial_params: Any = None,
) -> TrainState:
    """Makes the arrays of step 0 where they belong.

    Args:
        model: Offers `get_initial_variables`.
        optimizer: Any optax transform.
        stream: Offers `input_shapes` and `input_types`.
        target: What `abstract_state` returned.
        seed: Of the initial parameters.
        initial_params: Take these, or those that this function returns, instead of the model's own.

    Raises:
        UserError: If `initial_params` have other names or shapes than the model's.
    """
    optimizer = freezing.for_model(optimizer, model)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    if callable(initial_params):
        initial_params = initial_params()
    if initial_params is None:
        make = lambda: first_state(_variables(model, stream, seed)["params"], optimizer)  # noqa: E731
        return jax.jit(make, out_shardings=shardings)()
    found, wanted = digests.layout(initial_params), digests.layout(target.params)
    difference = digests.first_difference(found, wanted)
    if difference:
        raise UserError(f"The initial parameters are those of another model: {difference}.")
    make = jax.jit(lambda params: first_state(params, optimizer), out_shardings=shardings)
    return make(initial_params)


def _is_frozen(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)  # what a frozen parameter has in place of a state


def _variables(model: Any, stream: Any, seed: int) -> Any:
    key = jax.random.key(seed)
    return model.get_initial_variables(key, stream.input_shapes, stream.input_types)
