"""What our model objects share: batches of one or two kinds, initial variables, evaluation.

T5X calls these methods on whatever object a gin file names; nothing here imports T5X.

Dimension letters: G groups, M examples of one kind in a group, B = G * M examples.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics
from flax.linen import partitioning as flax_partitioning

from simvlm_jax.errors import UserError
from simvlm_jax.models.simvlm import SimVLM

# A batch may hold both kinds: image-text pairs, and text-only documents under this prefix.
STREAMS = ("", "document_")
Batch = Mapping[str, jax.Array]


def split_streams(batch: Batch, told_by: str = "decoder_target_tokens") -> list[dict[str, Any]]:
    """The kinds of example in a batch, each flattened to plain leaves [B, ...].

    Pair leaves may be [B, ...] (evaluation) or [G, M, ...] (training in groups); the leaf
    `told_by` tells which, being of rank 2 or 3, and whether there are examples of a kind.
    """
    streams = []
    for prefix in STREAMS:
        if f"{prefix}{told_by}" not in batch:
            continue
        names = [n for n in batch if n.startswith("document_") == bool(prefix)]
        grouped = batch[f"{prefix}{told_by}"].ndim == 3
        streams.append(
            {
                name.removeprefix(prefix): batch[name].reshape(-1, *batch[name].shape[2:])
                if grouped
                else batch[name]
                for name in names
            }
        )
    if not streams:
        raise UserError(f"A batch needs {told_by!r}; this one has {sorted(batch)}.")
    return streams


@flax.struct.dataclass
class Sum(clu_metrics.Metric):
    """A running total (clu has averages, but no sum)."""

    total: jax.Array

    @classmethod
    def empty(cls) -> "Sum":
        """A total of zero."""
        return cls(total=jnp.float32(0))

    def merge(self, other: "Sum") -> "Sum":
        """The total of both."""
        return type(self)(total=self.total + other.total)

    def compute(self) -> jax.Array:
        """The total."""
        return self.total


class NetworkModel:
    """A network with its initial variables; a kind of model adds loss and predictions.

    Attributes:
      config: the network's sizes and options.
      network: the Flax module.
      nominal_batch_size: leading size of a whole training batch (groups G, or examples).
      optimizer_def: what T5X's trainer reads; our loop is given its optimizer apart.
    """

    def __init__(self, network: SimVLM, nominal_batch_size: int, optimizer_def: Any) -> None:
        """Keeps the parts."""
        self.config, self.network = network.config, network
        self.nominal_batch_size, self.optimizer_def = nominal_batch_size, optimizer_def

    @property
    def FEATURE_CONVERTER_CLS(self):  # noqa: N802 - the name is T5X's
        """The seqio feature converter for this image size; imports TensorFlow when asked for."""
        from simvlm_jax.data.features import SimVLMFeatureConverter

        return functools.partial(SimVLMFeatureConverter, image_size=self.config.image_size)

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Fresh parameters and their logical axis names.

        Args:
          rng: random key.
          input_shapes: shape of each leaf of a batch; only checked, parameters do not depend
            on it.
          input_types: not needed; T5X's evaluation passes None.

        Returns:
          'params' and 'params_axes', two trees of one structure; leaf `x` of the first has its
          `flax.linen.partitioning.AxisMetadata` as leaf `x_axes` of the second.

        Raises:
          UserError: the batch's images have another size than the network's.
        """
        image_shape = (*self.config.image_size, 3)
        given = tuple(input_shapes.get("image", image_shape))[-3:]
        if given != image_shape:
            raise UserError(
                f"Batches have images of shape {given}, the model expects {image_shape}; set the "
                "data's image_size and the model's to the same value."
            )
        boxed = jax.jit(self.network.initial_parameters)(rng)
        return {"params": nn.meta.unbox(boxed), "params_axes": _axes(boxed)}

    def loss_fn(
        self, params: Any, batch: Batch, dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, dict[str, clu_metrics.Metric]]:
        """The training loss and metrics of a batch or microbatch."""
        raise NotImplementedError

    def eval_fn(self, params: Any, batch: Batch) -> tuple[jax.Array, dict[str, clu_metrics.Metric]]:
        """`loss_fn` without dropout."""
        return self.loss_fn(params, batch, None)

    def count_examples(self, batch: Batch, streams: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        """Examples of a batch or microbatch, and of the whole batch that it nominally is a part of.

        A loss is a sum divided by the second number, a constant: summed microbatch gradients then
        equal those of the whole batch.

        Args:
          batch: all leaves.
          streams: what `split_streams` made of it.
        """
        leading = next(iter(batch.values())).shape[0]
        examples = sum(next(iter(stream.values())).shape[0] for stream in streams)
        return examples, self.nominal_batch_size * (examples // leading)


def _axes(boxed: Mapping[str, Any]) -> dict[str, Any]:
    """T5X's 'params_axes' from parameters boxed with their logical axis names."""
    return {
        name if isinstance(value, dict) else f"{name}_axes": _axes(value)
        if isinstance(value, dict)
        else flax_partitioning.AxisMetadata(value.names)
        for name, value in boxed.items()
    }
