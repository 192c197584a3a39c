"""Where a step's memory goes, per device, and whether it fits."""

import math
import re
from typing import Any

import jax

from simvlm_jax.planning.job import Job

_OF_LIMIT = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm")
_TEMPORARIES = re.compile(r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parts(job: Job, compiled: Any) -> dict[str, float]:
    """Bytes on each device while a step runs.

    Args:
      job: what was compiled.
      compiled: the result.

    Returns:
      'parameters', 'optimizer' and 'batch': exact, by their shardings; 'activations': what the
      forward pass keeps for the backward one; 'temporaries': everything else that lives at the
      peak, the padding of all arguments included; 'program': its code; 'total'.
    """
    found = compiled.memory_analysis()
    parameters = tree_bytes(job.state.params)
    training = isinstance(job.arguments[0], type(job.state))
    optimizer = tree_bytes(job.state.opt_state) if training else 0.0
    batch = tree_bytes(job.arguments[1])
    fresh = found.output_size_in_bytes - found.alias_size_in_bytes
    total = found.argument_size_in_bytes + found.temp_size_in_bytes + fresh
    kept = min(_activations(job), found.temp_size_in_bytes) if training else 0.0
    return {
        "parameters": parameters,
        "optimizer": optimizer,
        "batch": batch,
        "activations": kept,
        "temporaries": total - parameters - optimizer - batch - kept,
        "program": float(found.generated_code_size_in_bytes),
        "total": float(total + found.generated_code_size_in_bytes),
    }


def tree_bytes(tree: Any) -> float:
    """Bytes of abstract arrays with shardings on one device, without padding."""
    total = 0.0
    for leaf in jax.tree.leaves(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


def _activations(job: Job) -> float:
    """Residuals of the loss that grow with the batch, shared out as the batch is."""
    once, twice = (_residual_bytes(job, times) for times in (1, 2))
    return (twice - once) / job.layout.batch_ways


def _residual_bytes(job: Job, times: int) -> float:
    shapes = job.shapes.input_shapes
    batch = {
        name: jax.ShapeDtypeStruct((times * shape[0], *shape[1:]), job.shapes.input_types[name])
        for name, shape in shapes.items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))

    def pullback(params: Any, batch: Any, key: jax.Array) -> Any:
        return jax.vjp(lambda tree: job.model.loss_fn(tree, batch, key)[0], params)[1]

    residuals = jax.eval_shape(pullback, job.state.params, batch, key)
    return sum(leaf.size * _itemsize(leaf.dtype) for leaf in jax.tree.leaves(residuals))


def _itemsize(dtype: Any) -> int:
    return getattr(dtype, "itemsize", 4)


def shortage(message: str) -> tuple[float, float] | None:
    """(bytes needed, bytes there are) from the compiler's refusal, or None if it is another."""
    found = _OF_LIMIT.search(message) or _TEMPORARIES.search(message)
    if not found:
        return None
    needed, unit, limit, limit_unit = found.groups()
    return float(needed) * _UNITS[unit], float(limit) * _UNITS[limit_unit]
