"""What a plan compiles: the training step itself, or evaluation and decoding on its mesh."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from simvlm_jax.data.features import SimVLMFeatureConverter
from simvlm_jax.data.streams import DOCUMENT_PREFIX, check_layout
from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.partitioning import Layout, Partitioner
from simvlm_jax.planning.topologies import Topology
from simvlm_jax.training.state import TrainState, abstract_state, lay_out
from simvlm_jax.training.step import compile_step

STEPS = ("train", "finetune", "evaluate", "decode")
# Paper section 4.1: what finetuning adds.
_FINETUNING = {"dropout_rate": 0.1, "stochastic_depth_rate": 0.1, "image_size": (480, 480)}


@dataclasses.dataclass
class Shapes:
    """A batch without data, as a stream describes it: shapes and dtypes by name."""

    input_shapes: Mapping[str, tuple[int, ...]]
    input_types: Mapping[str, np.dtype]


def batch_shapes(stream: Mapping[str, Any]) -> Shapes:
    """The batches of a `GroupStream` with these arguments; its tasks and data need not be there.

    Raises:
      UserError: tasks, groups or lengths do not fit one another.
    """
    groups, pairs, documents = (stream[name] for name in ("groups", "pairs", "documents"))
    check_layout(pairs, documents, groups)
    converter = SimVLMFeatureConverter(image_size=stream["image_size"])
    sides = [("", pairs, "pair_lengths"), (DOCUMENT_PREFIX, documents, "document_lengths")]
    found = {
        prefix + name: ((groups, sum(tasks.values()), *shape), np.dtype(dtype.name))
        for prefix, tasks, lengths in sides
        if tasks
        for name, (shape, dtype) in converter.model_feature_shapes(stream[lengths]).items()
    }
    return Shapes(
        {name: shape for name, (shape, _) in found.items()},
        {name: dtype for name, (_, dtype) in found.items()},
    )


@dataclasses.dataclass
class Job:
    """A function with abstract arguments.

    Attributes:
      function: jitted; `function.lower(*arguments)` is what is compiled.
      arguments: shapes with shardings.
      model: the network's model.
      layout: where everything lies.
      state: parameters and optimizer, abstract.
      shapes: the batch.
      model_flops: floating-point operations of a step by the analytic formula.
    """

    function: Callable
    arguments: tuple
    model: PrefixLMModel
    layout: Layout
    state: TrainState
    shapes: Shapes
    model_flops: float


def build(
    step: str,
    model: PrefixLMModel,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    shapes: Any,
    topology: Topology,
) -> Job:
    """Prepares a step for a topology, without making an array.

    Args:
      step: one of `STEPS`. 'train' is the function that `simvlm train` runs. 'finetune' is the
        same on pairs alone with 480 x 480 images, dropout and stochastic depth; 'evaluate' is the
        loss without gradient; 'decode' generates captions, by the model's decoding settings.
      model: the model.
      optimizer: its optimizer.
      partitioner: chooses the mesh.
      shapes: offers `input_shapes` and `input_types` of a training batch.
      topology: the machine.

    Raises:
      UserError: model, batch and machine do not fit one another.
    """
    if not isinstance(model, PrefixLMModel):
        raise UserError(
            "A plan is made for a PrefixLM model, and MODEL is another: give a pretraining run, "
            "with --step=finetune for what finetuning takes."
        )
    if step == "finetune":
        model = _with(model, **_FINETUNING)
    if step != "train":
        shapes = _pairs_only(shapes, model, plain=step == "decode")
    layout = lay_out(model, shapes, partitioner, topology.devices)
    state = abstract_state(model, optimizer, shapes, layout)
    batch = {
        name: jax.ShapeDtypeStruct(shape, shapes.input_types[name], sharding=layout.by_group)
        for name, shape in shapes.input_shapes.items()
    }
    flops = model.train_flops(shapes.input_shapes)
    if step in ("train", "finetune"):
        function = compile_step(model, optimizer, state, layout, seed=0)
        return Job(function, (state, batch), model, layout, state, shapes, flops)
    function = _forward(model, layout, step == "decode")
    return Job(function, (state.params, batch), model, layout, state, shapes, flops / 3)


def _forward(model: PrefixLMModel, layout: Layout, decode: bool) -> Callable:
    """Jits evaluation or decoding on a mesh."""
    run = model.predict_batch_with_aux if decode else model.eval_fn

    def forward(params: Any, batch: dict) -> Any:
        with layout.rules():
            return run(params, batch)

    return jax.jit(forward)


def _with(model: PrefixLMModel, **changes: Any) -> PrefixLMModel:
    model = copy.copy(model)
    model.config = dataclasses.replace(model.config, **changes)
    model.network = SimVLM(model.config)
    return model


def _pairs_only(shapes: Any, model: PrefixLMModel, plain: bool) -> Shapes:
    """The pairs of a batch, at the model's image size; plain is [B, ...] instead of [G, M, ...]."""
    found = {
        name: shape
        for name, shape in shapes.input_shapes.items()
        if not name.startswith("document_")
    }
    if "image" not in found:
        raise UserError("Only training can be planned for a batch of documents: set PAIRS.")
    found["image"] = (*found["image"][:2], *model.config.image_size, 3)
    if plain:
        found = {name: (shape[0] * shape[1], *shape[2:]) for name, shape in found.items()}
    return Shapes(found, {name: shapes.input_types[name] for name in found})
