"""SimVLM as a classifier (paper sections 4.1 and 4.2), with T5X's protocol as `model` has it.

Dimension letters: G groups, M examples of one kind in a group, B = G * M examples, R images of an
example, H W image height and width, E prefix tokens, T decoder tokens, K labels of an example,
C classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from simvlm_jax import objectives
from simvlm_jax.errors import UserError
from simvlm_jax.models.classifier import FEATURES, HEAD, Classifier
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.flops import encoder_flops, trunk_flops
from simvlm_jax.protocol import STREAMS, Batch, NetworkModel, Sum, split_streams

KIND = "classifier"  # in a run's model_config.json
IMAGES = ("image", "second_image")
MOST_CLASSES = 1 << 20
_OPTIONS = ("classes", "features", "images", "objective", "frozen_trunk")


class ClassifierModel(NetworkModel):
    """A SimVLM trunk with a linear classifier, its loss and predictions.

    A batch's leaves, [G, M, ...] or [B, ...]: 'encoder_input_tokens' int32 [E],
    'decoder_input_tokens' int32 [T] (0 first and after the text), 'labels' int32 [K] (-1 where
    there is none), 'label_scores' float32 [K] and the images, uint8 [H, W, 3]; the same under the
    prefix 'document_' without images. An example whose scores are all 0 teaches and counts nothing.

    Attributes:
      config: the network's sizes and options.
      network: the Flax module.
      classes, features, images, objective, frozen_trunk: as given.
    """

    def __init__(
        self,
        config: SimVLMConfig,
        classes: int,
        features: str = "decoder",
        images: int = 1,
        objective: str = "softmax",
        nominal_batch_size: int = 1,
        optimizer_def: Any = None,
        frozen_trunk: bool = False,
    ) -> None:
        """Keeps the parts.

        Args:
          config: the trunk.
          classes: C.
          features: 'decoder', the decoder's last real token (VQA, SNLI-VE, NLVR2, GLUE), or
            'encoder_mean', the mean of the encoder's states (ImageNet); the decoder is not run.
          images: 1, or 2 for 'image' and 'second_image', each with the same text.
          objective: 'softmax' or 'sigmoid', see `objectives.class_sums`. Of the paper's tasks VQA
            alone has several right answers; it does not say how they are trained, sigmoid is usual.
          nominal_batch_size: leading size of a whole training batch, as in `PrefixLMModel`.
          optimizer_def: for T5X only.
          frozen_trunk: trains the classifier alone: no gradient and no dropout in the trunk. Our
            loop freezes `frozen` in the optimizer too; for T5X set `optimizers.adamw.frozen`.

        Raises:
          UserError: an option is none, or does not fit another.
        """
        _require_options(config, classes, features, images, objective, frozen_trunk)
        super().__init__(
            Classifier(config, classes, features, images), nominal_batch_size, optimizer_def
        )
        self.classes, self.features, self.images = classes, features, images
        self.objective, self.frozen_trunk = objective, frozen_trunk

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the parameters that no optimizer should touch; see `optimizers.freeze`."""
        return (f"(?!{HEAD}/).*",) if self.frozen_trunk else ()

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint carries to be opened without gin or seqio."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        return {"kind": KIND, "network": self.config.to_json(), **options}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ClassifierModel":
        """The model that `to_json` described.

        Raises:
          UserError: the values describe none.
        """
        network = values.get("network")
        if values.get("kind") != KIND or not isinstance(network, dict):
            raise UserError("The model configuration describes no classifier: see to_json.")
        if missing := [name for name in _OPTIONS if name not in values]:
            raise UserError(f"The model configuration of the classifier lacks {missing[0]!r}.")
        options = {name: values[name] for name in _OPTIONS}
        return cls(SimVLMConfig.from_json(network), **options)

    def _logits(
        self, params: Any, streams: Sequence[Batch], dropout_rng: jax.Array | None
    ) -> list[jax.Array]:
        """Logits of every stream, float32 [B, C], in one pass over the network."""
        if self.frozen_trunk:  # before the trunk, so that nothing is kept for a backward pass
            params = {
                name: value if name == HEAD else jax.lax.stop_gradient(value)
                for name, value in params.items()
            }
            dropout_rng = None
        return self.network.apply(
            {"params": params},
            [self._inputs(stream) for stream in streams],
            rngs=None if dropout_rng is None else {"dropout": dropout_rng},
            method="classify",
        )

    def _inputs(self, stream: Batch) -> tuple[jax.Array | None, jax.Array, jax.Array]:
        """Image and both texts, where an example of R images is R examples in a row.

        Worked example: images [a, b] and second images [c, d] with the texts [s, t] become
        [a, c, b, d] with [s, s, t, t]; so devices that share the examples out keep their own.
        """
        tokens = stream["encoder_input_tokens"], stream["decoder_input_tokens"]
        if self.images == 1:
            return stream.get("image"), *tokens
        if missing := [name for name in IMAGES if name not in stream]:
            raise UserError(
                f"A classifier of two images needs {missing[0]!r} in every batch; this one has "
                f"{sorted(stream)}: set images to 1, or give it a task with two images."
            )
        pairs = jnp.stack([stream[name] for name in IMAGES], axis=1)
        both = pairs.reshape(-1, *pairs.shape[2:])
        return both, *(jnp.repeat(text, self.images, axis=0) for text in tokens)

    def loss_fn(
        self, params: Any, batch: Batch, dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, dict[str, clu_metrics.Metric]]:
        """The training loss of a batch or microbatch.

        Args:
          params: parameters.
          batch: leaves [G, M, ...] or [B, ...], see the class.
          dropout_rng: None turns dropout and stochastic depth off.

        Returns:
          Scalar loss: the sum over examples over their nominal number in a whole batch; and
          metrics: 'loss' (nats per example that has scores), 'accuracy' (the score of the likeliest
          class, so a part of 1 where VQA's annotators disagree), 'examples' (all of them).
        """
        streams = split_streams(batch, told_by="labels")
        logits = self._logits(params, streams, dropout_rng)
        with jax.named_scope("loss"):
            parts = [
                objectives.class_sums(
                    of_stream, stream["labels"], stream["label_scores"], self.objective
                )
                for of_stream, stream in zip(logits, streams, strict=True)
            ]
            sums = jax.tree.map(lambda *parts: sum(parts), *parts)
        examples, constant = self.count_examples(batch, streams)
        average = clu_metrics.Average
        metrics = {
            "loss": average(total=sums.loss, count=sums.examples),
            "accuracy": average(total=sums.score, count=sums.examples),
            "examples": Sum(total=jnp.float32(examples)),
        }
        return sums.loss / constant, metrics

    def predict_batch(self, params: Any, batch: Batch, rng: jax.Array | None = None) -> jax.Array:
        """The likeliest class of each example, int32 [B]."""
        return self.predict_batch_with_aux(params, batch, rng)[0]

    def predict_batch_with_aux(
        self, params: Any, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies plain examples.

        Args:
          params: parameters.
          batch: plain leaves [B, ...]; labels and scores are not needed.
          rng: of no effect.

        Returns:
          The likeliest class, int32 [B], and {'logits': float32 [B, C]}.
        """
        del rng
        (logits,) = self._logits(params, [batch], None)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32), {"logits": logits}

    def train_flops(self, input_shapes: Mapping[str, tuple[int, ...]]) -> float:
        """Floating-point operations of forward and backward over a batch of these shapes."""
        total, passes = 0.0, 1.0 if self.frozen_trunk else 3.0
        for prefix in STREAMS:
            shape = input_shapes.get(f"{prefix}decoder_input_tokens")
            if shape is None:
                continue
            encoder = input_shapes[f"{prefix}encoder_input_tokens"][-1]
            with_image = f"{prefix}image" in input_shapes
            if self.features == "decoder":
                one = trunk_flops(self.config, encoder, shape[-1], with_image)
            else:
                one = encoder_flops(self.config, encoder, with_image)
            head = 2.0 * self.config.width * self.classes
            total += math.prod(shape[:-1]) * self.images * (passes * one + 3.0 * head)
        return total


def _require_options(
    config: SimVLMConfig,
    classes: Any,
    features: Any,
    images: Any,
    objective: Any,
    frozen_trunk: Any,
) -> None:
    """Refuses options that make no classifier."""
    whole = isinstance(classes, int) and not isinstance(classes, bool)
    if not whole or not 2 <= classes <= MOST_CLASSES:
        raise UserError(f"classes={classes!r} must be a whole number from 2 to {MOST_CLASSES}.")
    for name, value, allowed in (
        ("features", features, FEATURES),
        ("objective", objective, objectives.CLASS_OBJECTIVES),
        ("images", images, (1, 2)),
        ("frozen_trunk", frozen_trunk, (False, True)),
    ):
        if type(value) is not type(allowed[0]) or value not in allowed:
            choices = ", ".join(map(str, allowed))
            raise UserError(f"{name}={value!r} of a classifier must be one of {choices}.")
    if features == "encoder_mean" and config.decoder_only:
        raise UserError(
            "features='encoder_mean' needs an encoder, and this network is decoder_only: use "
            "features='decoder'."
        )
