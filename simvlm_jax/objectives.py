"""Losses: PrefixLM's, on the text after the prefix (paper section 3.1), and those of classifiers.

Dimension letters: B batch, T decoder tokens, V vocabulary, K labels of an example, C classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

CLASS_OBJECTIVES = ("softmax", "sigmoid")


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


class ClassSums(NamedTuple):
    """Sums over the examples of a batch that have something to learn, all float32 scalars.

    Attributes:
      loss: cross-entropy in nats.
      score: the score that each example gives its likeliest class, its accuracy.
      examples: how many there are.
    """

    loss: jax.Array
    score: jax.Array
    examples: jax.Array


def class_scores(labels: jax.Array, label_scores: jax.Array, classes: int) -> jax.Array:
    """The score of every class: 0 but for the labels.

    Example, of 3 classes: labels [2, 0, -1] with scores [0.3, 1, 0] give [1, 0, 0.3].

    Args:
      labels: int32 [B, K], -1 where there is none.
      label_scores: float32 [B, K].
      classes: C.

    Returns:
      float32 [B, C]. A label beyond the classes makes its example no number, and so the loss: it
      must neither be lost nor end the program, which cannot look into arrays.
    """
    scores = jnp.where(labels < classes, label_scores, jnp.nan)
    return jnp.einsum("bk,bkc->bc", scores, jax.nn.one_hot(labels, classes))


def class_sums(
    logits: jax.Array, labels: jax.Array, label_scores: jax.Array, objective: str
) -> ClassSums:
    """Loss and accuracy of a classifier; an example whose scores are all 0 adds nothing.

    Args:
      logits: [B, C].
      labels: int32 [B, K], -1 where there is none.
      label_scores: float32 [B, K], from 0 to 1.
      objective: 'softmax', cross-entropy with the scores divided by their sum; or 'sigmoid', binary
        cross-entropy with each class's score, summed over the classes.
    """
    logits = logits.astype(jnp.float32)
    scores = class_scores(labels, label_scores, logits.shape[-1])
    total = jnp.sum(scores, axis=-1, keepdims=True)
    taught = total[:, 0] != 0
    if objective == "softmax":
        shares = scores / jnp.where(total == 0, 1.0, total)
        losses = optax.losses.softmax_cross_entropy(logits, shares)
    else:
        losses = jnp.sum(optax.losses.sigmoid_binary_cross_entropy(logits, scores), axis=-1)
    chosen = jnp.argmax(logits, axis=-1, keepdims=True)
    reached = jnp.take_along_axis(scores, chosen, axis=-1)[:, 0]
    sums = (jnp.sum(value, where=taught) for value in (losses, reached))
    return ClassSums(*sums, jnp.sum(taught, dtype=jnp.float32))
