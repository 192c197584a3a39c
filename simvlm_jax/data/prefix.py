"""The PrefixLM objective as a seqio preprocessor: where a text is cut into prefix and rest.

Paper (arXiv 2108.10904) section 3.2. The prefix goes to the encoder after the image and is
attended in both directions; the rest is predicted from left to right. How the length is
distributed is left open there: here it is drawn per example, uniformly over the positions at
which both parts fit.
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf

from simvlm_jax.data.mapping import NotAtOnceError, map_examples
from simvlm_jax.data.seeds import PREFIX, example_key, uniform_integer
from simvlm_jax.errors import UserError

UNLIMITED = 1 << 29  # where seqio gives no length; the sum of two must be an int32
DISTRIBUTIONS = ("uniform", "zero")
Lengths = Mapping[str, int] | None


def limits(sequence_length: Lengths) -> tuple[int, int]:
    """Returns the most tokens that `inputs` and `targets` may have.

    Raises:
      UserError: `targets` has no room for one token and the end of the sequence.
    """
    lengths = sequence_length or {}
    inputs, targets = lengths.get("inputs", UNLIMITED), lengths.get("targets", UNLIMITED)
    if targets < 2 or inputs < 0:
        raise UserError(
            f"The lengths inputs={inputs}, targets={targets} are too small: targets must hold at "
            "least one token and the end of the sequence (2)."
        )
    return inputs, targets


def prefix_bounds(
    tokens: tf.Tensor | int, inputs: int, targets: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives the admissible prefix lengths of a text that fits.

    The rest and its end of sequence must fit into `targets`, the prefix into `inputs`, and at
    least one token must be left to predict. Example: 5 tokens, inputs 3, targets 4: the rest has
    at most 3 tokens, so the prefix has at least 2; it has at most min(5 - 1, 3) = 3.

    Args:
      tokens: int32 scalar, the text's length n, 1 <= n < inputs + targets.
      inputs: most tokens in the prefix.
      targets: most tokens in the rest, end of sequence included; at least 2.

    Returns:
      (lowest, highest), int32 scalars, both admissible.
    """
    return tf.maximum(0, tokens + 1 - targets), tf.minimum(tokens - 1, inputs)


def split_text(
    tokens: tf.Tensor, key: tf.Tensor, inputs: int, targets: int, end: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts one text into prefix and rest at a random admissible position.

    Worked example, inputs=3, targets=4, end of sequence 1:

        tokens        21 22 23 24 25        admissible prefix lengths: 2, 3
        length 2      inputs [21 22]        targets [23 24 25  1]
        length 3      inputs [21 22 23]     targets [24 25  1]
        7 tokens      inputs [21 22 23]     targets [24 25 26 27]   (nothing lost; no end)
        8 tokens      the same: cut to 7, and a text that was cut has no end
        no tokens     inputs []             targets []              (nothing to learn: weight 0)

    Args:
      tokens: int32 [n], the text without an end of sequence.
      key: integer [2], stateless seed.
      inputs: most tokens in the prefix; 0 for no text prefix at all.
      targets: most tokens in the rest, end of sequence included; at least 2.
      end: id of the end of the sequence.

    Returns:
      (prefix int32 [<= inputs], rest int32 [<= targets]).
    """
    count = tf.size(tokens)
    lowest, highest = prefix_bounds(count, inputs, targets)
    fits = count < inputs + targets
    # Where the text does not fit or is empty the bounds cross; the draw is then not used.
    draw = uniform_integer(key, lowest, tf.maximum(lowest, highest))
    length = tf.where(fits, draw, inputs)
    rest = tokens[length : inputs + targets]
    return tokens[:length], close(rest, fits, end)


def split_all(
    tokens: tf.Tensor, counts: tf.Tensor, keys: tf.Tensor, inputs: int, targets: int, end: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """`split_text` of many texts at once.

    Args:
      tokens: int32 [n, inputs + targets], texts cut to that length and filled up with 0.
      counts: int32 [n], how many tokens each had before it was cut.
      keys: int64 [n, 2].
      inputs: as for `split_text`.
      targets: as for `split_text`.
      end: id of the end of the sequence.

    Returns:
      (prefixes int32 [n, inputs], rests int32 [n, targets]), filled up with 0.
    """
    lowest, highest = prefix_bounds(counts, inputs, targets)
    fits = counts < inputs + targets
    draws = uniform_integer(keys, lowest, tf.maximum(lowest, highest))
    lengths = tf.where(fits, draws, inputs)
    prefixes = tf.where(tf.range(inputs) < lengths[:, None], tokens[:, :inputs], 0)
    places = lengths[:, None] + tf.range(targets)
    rests = tf.gather(tf.pad(tokens, [[0, 0], [0, targets]]), places, batch_dims=1)
    return prefixes, close_all(rests, counts - lengths, fits, end)


def encode_all(
    vocabulary: seqio.Vocabulary, texts: tf.Tensor, most: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Tokenises many texts at once.

    Args:
      vocabulary: of SentencePiece.
      texts: string [n].
      most: tokens that are kept of each.

    Returns:
      (int32 [n, most] filled up with 0, int32 [n]: how many tokens each text has, uncut).

    Raises:
      NotAtOnceError: another vocabulary, which may know single texts only, or no limit.
    """
    if not isinstance(vocabulary, seqio.SentencePieceVocabulary) or most >= UNLIMITED:
        raise NotAtOnceError("This vocabulary takes texts one by one.")
    tokens = vocabulary.encode_tf(texts)
    counts = tf.cast(tokens.row_lengths(), tf.int32)
    return tf.cast(tokens[:, :most].to_tensor(shape=[None, most]), tf.int32), counts


def close_all(tokens: tf.Tensor, counts: tf.Tensor, whole: tf.Tensor, end: int) -> tf.Tensor:
    """`close` of many texts at once.

    Args:
      tokens: int32 [n, m], filled up with 0.
      counts: int32 [n], the tokens of each.
      whole: bool [n], whether nothing was cut off and the end fits.
      end: id of the end of the sequence.

    Returns:
      int32 [n, m].
    """
    ends = tf.range(tf.shape(tokens)[1]) == counts[:, None]
    return tf.where(ends & (whole & (counts > 0))[:, None], end, tokens)


def close(tokens: tf.Tensor, whole: tf.Tensor, end: int) -> tf.Tensor:
    """Appends the end of the sequence to a text that was not cut and is not empty.

    Args:
      tokens: int32 [n].
      whole: bool scalar, whether nothing was cut off and the end fits.
      end: id of the end of the sequence.

    Returns:
      int32 [n] or [n + 1].
    """
    ends = tf.cast(whole & (tf.size(tokens) > 0), tf.int32)
    return tf.concat([tokens, tf.fill([ends], end)], axis=0)


def prefix_lm(
    dataset: tf.data.Dataset,
    sequence_length: Lengths,
    output_features: Mapping[str, seqio.Feature],
    distribution: str = "uniform",
) -> tf.data.Dataset:
    """Turns the text of each example into a prefix and a rest to predict.

    Args:
      dataset: examples with string `targets` and integer `id`; `seed` and `epoch` where a
        training stream put them.
      sequence_length: most tokens in `inputs` and `targets`; None for no limit.
      output_features: seqio's, for the vocabulary.
      distribution: of the prefix length. "uniform": over the admissible positions; "zero": no
        text prefix (captioning; plain LM for a decoder-only model).

    Returns:
      The dataset with int32 `inputs` and `targets`, the text kept as `targets_pretokenized`.

    Raises:
      UserError: unknown distribution, lengths too small, or records without an `id`.
    """
    if distribution not in DISTRIBUTIONS:
        raise UserError(
            f"There is no prefix distribution {distribution!r}; use one of "
            f"{', '.join(DISTRIBUTIONS)}."
        )
    inputs, targets = limits(sequence_length)
    inputs = 0 if distribution == "zero" else inputs
    vocabulary = output_features["targets"].vocabulary

    def split(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        text = example["targets"]
        tokens = tf.cast(vocabulary.encode_tf(text), tf.int32)
        key = example_key(example, PREFIX)
        prefix, rest = split_text(tokens, key, inputs, targets, vocabulary.eos_id)
        return {**example, "inputs": prefix, "targets": rest, "targets_pretokenized": text}

    def split_batch(examples: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        tokens, counts = encode_all(vocabulary, examples["targets"], inputs + targets)
        key = example_key(examples, PREFIX)
        prefixes, rests = split_all(tokens, counts, key, inputs, targets, vocabulary.eos_id)
        return {**examples, "inputs": prefixes, "targets": rests}

    return map_examples(dataset, split, at_once=split_batch)


def lm(
    dataset: tf.data.Dataset,
    sequence_length: Lengths,
    output_features: Mapping[str, seqio.Feature],
) -> tf.data.Dataset:
    """Puts the whole text into `targets`: `prefix_lm` with no text prefix (ablation)."""
    return prefix_lm(dataset, sequence_length, output_features, distribution="zero")
