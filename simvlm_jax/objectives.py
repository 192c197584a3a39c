"""The PrefixLM loss: cross-entropy on the text after the prefix (paper section 3.1).

Dimension letters: B batch, T decoder tokens, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class TokenSums(NamedTuple):
    """Sums over the real target tokens of a batch, all float32 scalars.

    Attributes:
      loss: what is minimised, in nats: cross-entropy with label smoothing, plus z-loss.
      negative_log_likelihood: plain cross-entropy in nats.
      correct: tokens whose most likely prediction is the target.
      tokens: sum of the loss weights.
    """

    loss: jax.Array
    negative_log_likelihood: jax.Array
    correct: jax.Array
    tokens: jax.Array


def token_log_probabilities(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Natural log probability of each target: [B, T, V], int32 [B, T] -> float32 [B, T]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def token_sums(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> TokenSums:
    """Loss and counts of a batch; padding has weight 0 and adds nothing.

    Args:
      logits: [B, T, V].
      targets: int32 [B, T].
      weights: float32 [B, T], 1 on real target tokens, 0 on padding.
      label_smoothing: share of each target's probability spread evenly over the vocabulary.
      z_loss: coefficient of log(Z)^2, which keeps the softmax's normaliser near 1.
    """
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    nll = -token_log_probabilities(logits, targets)
    loss = nll
    if label_smoothing:
        even = log_z - jnp.mean(logits, axis=-1)
        loss = (1 - label_smoothing) * nll + label_smoothing * even
    if z_loss:
        loss = loss + z_loss * jnp.square(log_z)
    correct = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    sums = (jnp.sum(value * weights) for value in (loss, nll, correct))
    return TokenSums(*sums, jnp.sum(weights))
