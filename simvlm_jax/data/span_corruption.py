"""Span corruption, an objective of the paper's ablation study (T5 in arXiv 1910.10683).

Spans of the text are replaced by sentinels in `inputs`; `targets` lists the sentinels, each with
the tokens that it stands for. Where spans lie is a function of (seed, epoch, example id).
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf

from simvlm_jax.data.mapping import map_examples
from simvlm_jax.data.prefix import Lengths, limits
from simvlm_jax.data.seeds import SPANS, example_key, fold_in
from simvlm_jax.errors import UserError

DENSITY = 0.15
MEAN_LENGTH = 3.0


def span_counts(
    tokens: tf.Tensor | int, density: float, mean_length: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives how many tokens are hidden, and in how many spans.

    Example: 40 tokens at 15 % and mean length 3: 6 tokens in 2 spans; 1 token: 1 in 1 span.

    Args:
      tokens: int32, any shape, the text's length, at least 1.
      density: share of the tokens to hide, in (0, 1).
      mean_length: mean tokens per span, at least 1.

    Returns:
      (hidden tokens, spans), int32; at least 1 each, spans never touch and never outnumber tokens.
    """
    hidden = tf.maximum(1, tf.cast(tf.round(tf.cast(tokens, tf.float32) * density), tf.int32))
    spans = tf.maximum(1, tf.cast(tf.round(tf.cast(hidden, tf.float32) / mean_length), tf.int32))
    spans = tf.minimum(spans, tokens - hidden + 1)  # one visible token between any two
    return hidden, spans


def longest_text(
    inputs: int, targets: int, sentinels: int, density: float, mean_length: float
) -> int:
    """Gives the most tokens of which both sides fit after corruption.

    Args:
      inputs: limit of visible tokens and sentinels.
      targets: limit of sentinels, hidden tokens and the end of the sequence.
      sentinels: how many there are.
      density: see `span_counts`.
      mean_length: see `span_counts`.

    Returns:
      The largest length n such that every text of up to n tokens fits; 0 if none does.
    """
    with tf.init_scope():  # a number, also where a stream traces its preprocessing
        lengths = tf.range(1, min(inputs + targets, 1 << 16) + 1)
        hidden, spans = span_counts(lengths, density, mean_length)
        visible = lengths - hidden
        fits = (visible + spans <= inputs) & (hidden + spans + 1 <= targets) & (spans <= sentinels)
        return int(tf.reduce_sum(tf.math.cumprod(tf.cast(fits, tf.int32))))


def random_composition(total: tf.Tensor, parts: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Writes `total` as an ordered sum of positive parts, each such sum equally likely.

    The total - 1 places between units are shuffled and the first parts - 1 of them become cuts.

    Args:
      total: int32 scalar, at least `parts`.
      parts: int32 scalar, at least 1.
      key: integer [2], stateless seed.

    Returns:
      int32 [parts], each at least 1, of sum `total`.
    """
    places = 1 + tf.argsort(tf.random.stateless_uniform([total - 1], key, alg="philox"))
    cuts = tf.concat([[0], tf.sort(places[: parts - 1]), [total]], axis=0)
    return cuts[1:] - cuts[:-1]


def span_mask(tokens: tf.Tensor, density: float, mean_length: float, key: tf.Tensor) -> tf.Tensor:
    """Chooses which tokens to hide.

    Args:
      tokens: int32 scalar, the text's length, at least 1.
      density: see `span_counts`.
      mean_length: see `span_counts`.
      key: integer [2], stateless seed.

    Returns:
      bool [tokens], true on hidden tokens. Any two spans have a visible token between them; the
      first and the last token may be hidden.
    """
    hidden, spans = span_counts(tokens, density, mean_length)
    lengths = random_composition(hidden, spans, fold_in(key, 0))
    # The gaps before the first and after the last span may be empty: give each a unit, take it off.
    gaps = random_composition(tokens - hidden + 2, spans + 1, fold_in(key, 1))
    gaps -= tf.concat([[1], tf.zeros([spans - 1], tf.int32), [1]], axis=0)
    runs = tf.concat([tf.reshape(tf.stack([gaps[:-1], lengths], 1), [-1]), gaps[-1:]], axis=0)
    return tf.repeat(tf.range(2 * spans + 1) % 2 == 1, runs)


def corrupt(
    tokens: tf.Tensor, hidden: tf.Tensor, first_sentinel: int, end: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits a text into its corrupted form and what was taken out.

    Worked example, first sentinel 99 (the next is 98), end of sequence 1:

        tokens   21 22 23 24 25 26
        hidden    .  x  x  .  .  x
        inputs   21 99 24 25 98
        targets  99 22 23 98 26  1

    Args:
      tokens: int32 [n].
      hidden: bool [n].
      first_sentinel: id of the first sentinel; later ones count downwards (T5's order).
      end: id of the end of the sequence.

    Returns:
      (inputs int32 [visible + spans], targets int32 [hidden + spans + 1]).
    """
    starts = hidden & ~tf.concat([[False], hidden[:-1]], axis=0)
    sentinels = first_sentinel + 1 - tf.cumsum(tf.cast(starts, tf.int32))
    visible = tf.boolean_mask(tf.where(starts, sentinels, tokens), ~hidden | starts)
    pairs = tf.reshape(tf.stack([sentinels, tokens], axis=1), [-1])
    wanted = tf.reshape(tf.stack([starts, hidden], axis=1), [-1])
    return visible, tf.concat([tf.boolean_mask(pairs, wanted), [end]], axis=0)


def span_corruption(
    dataset: tf.data.Dataset,
    sequence_length: Lengths,
    output_features: Mapping[str, seqio.Feature],
    density: float = DENSITY,
    mean_length: float = MEAN_LENGTH,
) -> tf.data.Dataset:
    """Turns the text of each example into a corrupted text and the spans to predict.

    A text that is too long is cut first, to the most tokens of which both sides fit; an empty one
    gives empty sides (nothing to learn).

    Args:
      dataset: as for `prefix_lm`.
      sequence_length: most tokens in `inputs` and `targets`; None for no limit.
      output_features: seqio's; the vocabulary's extra ids are the sentinels.
      density: share of the tokens to hide.
      mean_length: mean tokens per span.

    Returns:
      The dataset with int32 `inputs` and `targets`, the text kept as `targets_pretokenized`.

    Raises:
      UserError: a setting out of range, no sentinels, or lengths that hold no text at all.
    """
    vocabulary = output_features["targets"].vocabulary
    if not 0 < density < 1 or mean_length < 1:
        raise UserError(
            f"Span corruption needs 0 < density < 1 and mean_length >= 1, not density={density}, "
            f"mean_length={mean_length}."
        )
    inputs, targets = limits(sequence_length)
    sentinels = vocabulary.extra_ids
    most = longest_text(inputs, targets, sentinels, density, mean_length)
    if not most:
        raise UserError(
            f"Span corruption fits no text into inputs={inputs}, targets={targets} with "
            f"{sentinels} sentinels; use longer sequences or a vocabulary with sentinels."
        )
    first_sentinel = vocabulary.vocab_size - 1

    def corrupt_example(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        text = example["targets"]
        tokens = tf.cast(vocabulary.encode_tf(text), tf.int32)[:most]
        key = example_key(example, SPANS)
        hidden = span_mask(tf.maximum(1, tf.size(tokens)), density, mean_length, key)
        empty = tf.zeros([0], tf.int32)
        sides = tf.cond(
            tf.size(tokens) > 0,
            lambda: corrupt(tokens, hidden, first_sentinel, vocabulary.eos_id),
            lambda: (empty, empty),
        )
        return {**example, "inputs": sides[0], "targets": sides[1], "targets_pretokenized": text}

    return map_examples(dataset, corrupt_example)
