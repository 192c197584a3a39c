"""A linear classifier on what the trunk makes of an example (paper sections 4.1 and 4.2).

Dimension letters: B examples, R images of each, H W image height and width, E prefix tokens,
T decoder tokens, S prefix positions, D model width, C classes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from simvlm_jax.models.layers import constrain, dense
from simvlm_jax.models.masks import last_positions
from simvlm_jax.models.simvlm import SimVLM

HEAD = "classifier"  # its parameters' name, beside those of the trunk
FEATURES = ("decoder", "encoder_mean")


class Classifier(SimVLM):
    """SimVLM with classes in place of words; the trunk's parameters have the same names.

    An example with R images is R examples here, one after the other, each with the same text; what
    the trunk makes of them is concatenated (NLVR2, section 4.1).

    Attributes:
      classes: C.
      features: what the classifier reads: 'decoder', the state of the decoder's last real token
        after the final norm; or 'encoder_mean', the mean of the encoder's states (ImageNet).
      images: R.
    """

    classes: int
    features: str
    images: int

    def setup(self) -> None:
        """Makes the trunk and the classifier."""
        super().setup()
        # In float32, as the logits over words are. Its inputs are cut as hidden units are: on many
        # devices a kernel of thousands of classes has to be, and few numbers divide 3,129.
        small = nn.initializers.normal(0.02)
        self.classifier = dense(
            self.classes, ("mlp", "classes"), "vit", "float32", kernel_init=small
        )

    def initial_parameters(self, rng: jax.Array) -> Any:
        """Fresh parameters, those of the trunk as `SimVLM` draws them from the same key."""
        return super().initial_parameters(rng, self.images)

    def __call__(
        self,
        image: jax.Array | None,
        encoder_input_tokens: jax.Array,
        decoder_input_tokens: jax.Array,
    ) -> jax.Array:
        """Logits over the classes; see `classify`."""
        if self.is_initializing():  # the whole trunk, whatever the features read of it
            super().__call__(image, encoder_input_tokens, decoder_input_tokens)
        return self.classify([(image, encoder_input_tokens, decoder_input_tokens)])[0]

    def classify(
        self, inputs: Sequence[tuple[jax.Array | None, jax.Array, jax.Array]]
    ) -> list[jax.Array]:
        """Logits of several kinds of example in one pass over the layers.

        Args:
          inputs: (image, encoder_input_tokens, decoder_input_tokens) of each: uint8
            [B * R, H, W, 3] or None, int32 [B * R, E], int32 [B * R, T], 0 first and after the
            text.

        Returns:
          float32 [B, C] of each.
        """
        represent = {"decoder": self._last_states, "encoder_mean": self._encoder_means}
        found = represent[self.features](inputs)
        return [self.classifier(x.reshape(-1, self.images * x.shape[-1])) for x in found]

    def _last_states(self, inputs: Sequence[tuple]) -> list[jax.Array]:
        """The finished state of each example's last real decoder token, [B * R, D]."""
        found = []
        for x, (_, _, tokens) in zip(self.decoder_states(inputs), inputs, strict=True):
            last = last_positions(tokens)[:, None, None]
            chosen = jnp.take_along_axis(x, last, axis=1)[:, 0]
            found.append(self.finish(constrain(chosen, "batch", "embed")))
        return found

    def _encoder_means(self, inputs: Sequence[tuple]) -> list[jax.Array]:
        """The mean of the encoder's states over each example's real positions, [B * R, D]."""
        for _, tokens, _ in inputs:
            self._check_lengths(tokens.shape[1], 0)
        rows = self._look_up([tokens for _, tokens, _ in inputs])
        encoded = self._encode(
            [(image, tokens, row) for (image, tokens, _), row in zip(inputs, rows, strict=True)]
        )
        return [constrain(masked_mean(x, mask), "batch", "embed") for x, mask in encoded]


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over the positions that a mask lets through; zeros where it lets none through.

    Args:
      x: [B, S, D].
      mask: bool [B, S].

    Returns:
      float32 [B, D].
    """
    total = jnp.sum(x.astype(jnp.float32), axis=1, where=mask[..., None])
    return total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
