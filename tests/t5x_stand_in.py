"""Calls a model as T5X's trainer, evaluator and inference do, without T5X.

What it insists on is what T5X insists on: one leading size for all leaves, an axis name for
every dimension of every parameter, gradients that may be summed over microbatches, clu metrics.
"""

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from clu import values as clu_values
from flax.linen import partitioning as flax_partitioning
from flax.traverse_util import flatten_dict


def leading_size(batch):
    sizes = {leaf.shape[0] for leaf in batch.values()}
    assert len(sizes) == 1, f"leaves of one batch have leading sizes {sorted(sizes)}"
    return sizes.pop()


def input_shapes(batch):
    leading_size(batch)
    return {name: leaf.shape for name, leaf in batch.items()}


def initial_variables(model, batch, with_types=True):
    """As T5X's train state initializer: shapes first, then values, under jit, from a raw key."""

    def create(rng):
        types = {name: leaf.dtype for name, leaf in batch.items()} if with_types else None
        return model.get_initial_variables(
            rng=rng, input_shapes=input_shapes(batch), input_types=types
        )

    rng = jax.random.PRNGKey(0)
    shapes = jax.eval_shape(create, rng)
    variables = jax.jit(create)(rng)
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(
        lambda leaf: leaf.shape, shapes["params"]
    )
    check_axes(variables["params"], variables["params_axes"])
    return variables["params"]


def check_axes(params, params_axes):
    """Every parameter has as many axis names as dimensions, none of them twice."""
    flat, axes = flatten_dict(params), flatten_dict(params_axes)
    assert set(axes) == {(*path[:-1], f"{path[-1]}_axes") for path in flat}
    for path, leaf in flat.items():
        metadata = axes[(*path[:-1], f"{path[-1]}_axes")]
        assert isinstance(metadata, flax_partitioning.AxisMetadata), path
        assert len(metadata.names) == leaf.ndim, path
        assert all(isinstance(name, str) for name in metadata.names), path
        assert len(set(metadata.names)) == leaf.ndim, path
        assert leaf.dtype == jnp.float32, path


def accumulated_gradients(model, params, batch, dropout_rng, microbatches):
    """Summed losses and gradients and merged metrics over slices of the leading axis."""
    size = leading_size(batch) // microbatches
    gradient_of_loss = jax.value_and_grad(model.loss_fn, has_aux=True)

    def one(index, rng):
        part = {
            name: jax.lax.dynamic_slice(
                leaf, (index * size,) + (0,) * (leaf.ndim - 1), (size, *leaf.shape[1:])
            )
            for name, leaf in batch.items()
        }
        (loss, metrics), gradient = gradient_of_loss(params, part, rng)
        assert all(isinstance(m, clu_metrics.Metric) for m in metrics.values())
        return loss, gradient, metrics

    def merge(a, b):
        return jax.tree.map(
            lambda x, y: x.merge(y), a, b, is_leaf=lambda m: isinstance(m, clu_metrics.Metric)
        )

    def step(index, state):
        rng, loss, gradient, metrics = state
        rng, sub_rng = jax.random.split(rng)
        more_loss, more, more_metrics = one(index, sub_rng)
        metrics = jax.lax.cond(
            index == 0, lambda: more_metrics, lambda: merge(metrics, more_metrics)
        )
        return rng, loss + more_loss, jax.tree.map(jnp.add, gradient, more), metrics

    empty = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, 0, dropout_rng)
    )
    _, *results = jax.lax.fori_loop(0, microbatches, step, (dropout_rng, *empty))
    return results


def train_step(model, params, batch, microbatches=1, learning_rate=0.0):
    """A compiled step of gradient descent: new parameters, loss, gradient, written metrics."""

    @jax.jit
    def step(params, batch, rng):
        loss, gradient, metrics = accumulated_gradients(model, params, batch, rng, microbatches)
        metrics["learning_rate"] = clu_metrics.Average.from_model_output(
            jnp.asarray([learning_rate])
        )
        updated = jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)
        return updated, loss, gradient, metrics

    updated, loss, gradient, metrics = step(params, batch, jax.random.PRNGKey(1))
    return updated, loss, gradient, written(metrics)


def evaluate(model, params, batch):
    _, metrics = jax.jit(model.eval_fn)(params, batch)
    return written(metrics)


def written(metrics):
    """What the summary writer receives of each metric."""
    summary = {name: metric.compute_value() for name, metric in jax.device_get(metrics).items()}
    assert all(isinstance(value, clu_values.Scalar) for value in summary.values())
    return {name: float(value.value) for name, value in summary.items()}


def infer(model, params, batch, rng=None):
    """Predictions with extras and scores, each compiled as inference compiles them."""
    extra = {} if rng is None else {"rng": rng}
    predictions = jax.jit(model.predict_batch)(params, batch, **extra)
    again, auxiliary = jax.jit(model.predict_batch_with_aux)(params, batch, **extra)
    np.testing.assert_array_equal(predictions, again)
    scored = batch | {
        "decoder_target_tokens": again,
        "decoder_input_tokens": jnp.pad(again, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": (again != 0).astype(jnp.float32),
    }
    scores = jax.jit(model.score_batch)(params, scored)
    return np.asarray(again), np.asarray(auxiliary["scores"]), np.asarray(scores)
