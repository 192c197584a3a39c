"""Random numbers that are a function of (seed, epoch, example id) and of nothing else.

The streams put `seed` and `epoch` beside the `id` of each raw record. Neither the order of
reading nor the number of hosts enters, so a resumed or resharded run draws what an
uninterrupted one would have drawn.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from simvlm_jax.errors import UserError

# One number per use: draws of different uses are independent of one another.
PREFIX, IMAGE, SPANS, CHOICE = 1, 2, 3, 4
# Odd 64-bit numbers without a pattern (SplitMix64's), as int64: no small seed, epoch or id makes up
# for a step of another.
MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # SplitMix64's, by Vigna
USE_STEP, EPOCH_STEP = -7046029254386353131, -4658895280553007687
IMAGE_STEP = -7723592293110705685  # between the images of one example; of MIXING


def example_key(example: Mapping[str, tf.Tensor], stream: int) -> tf.Tensor:
    """Derives the stateless seed of one example for one use.

    Args:
      example: a record with an integer `id`, and `seed` and `epoch` where a training stream put
        them (both count as 0 where it did not).
      stream: which use: PREFIX, IMAGE, SPANS or CHOICE.

    Returns:
      int64 [2], a seed for `tf.random.stateless_*`; [n, 2] for a batch of records.

    Raises:
      UserError: the records have no `id`.
    """
    if "id" not in example:
        raise UserError(
            f"Each record needs an integer field 'id', the same in every epoch, and this source "
            f"has only {sorted(example)}; add it when the data is prepared."
        )
    zero = tf.constant(0, tf.int64)
    identity = tf.cast(example["id"], tf.int64)
    seed, epoch = (  # of a batch of records, as many as ids
        tf.cast(example.get(name, zero), tf.int64) + tf.zeros_like(identity)
        for name in ("seed", "epoch")
    )
    # Integer products wrap around. Plain arithmetic suffices: what takes the key mixes it.
    return tf.stack([seed + _wrapped(stream * USE_STEP), identity + epoch * EPOCH_STEP], axis=-1)


def fold_in(key: tf.Tensor, data: tf.Tensor | int) -> tf.Tensor:
    """Mixes a number into a stateless seed.

    Args:
      key: integer [2].
      data: integer scalar.

    Returns:
      A seed of the shape and dtype of `key`.
    """
    return tf.random.experimental.stateless_fold_in(key, tf.cast(data, key.dtype), alg="philox")


def uniform_integer(key: tf.Tensor, low: tf.Tensor | int, high: tf.Tensor | int) -> tf.Tensor:
    """Draws an integer as a function of a key, by SplitMix64.

    TensorFlow's own stateless draws take one key at a time.

    Args:
      key: integer [..., 2].
      low: int32 [...], the smallest number.
      high: int32 [...], the largest one.

    Returns:
      int32 [...], uniform over low..high, both ends included.
    """
    low, high = tf.cast(low, tf.int32), tf.cast(high, tf.int32)
    words = tf.bitcast(tf.cast(key, tf.int64), tf.uint64)
    mixed = _mixed_in_graph(_mixed_in_graph(words[..., 0]) + words[..., 1])
    number = tf.cast(tf.bitwise.right_shift(mixed, tf.constant(11, tf.uint64)), tf.int64)
    return low + tf.cast(number % tf.cast(high - low + 1, tf.int64), tf.int32)


def uniform_draws(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draws numbers for many examples at once, outside TensorFlow, by SplitMix64.

    A generator for each example would take the interpreter's lock for each.

    Args:
      seeds: int64 [n, 2].
      count: numbers for each.

    Returns:
      float64 [n, count], uniform in [0, 1).
    """
    words = np.ascontiguousarray(seeds, np.int64).view(np.uint64)
    states = _mixed(_mixed(words[:, 0]) + words[:, 1])
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(USE_STEP % (1 << 64))
    return (_mixed(states[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def _mixed(words: np.ndarray) -> np.ndarray:
    for shift, factor in MIXING:
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(31))


def _mixed_in_graph(words: tf.Tensor) -> tf.Tensor:
    for shift, factor in MIXING:
        shifted = tf.bitwise.right_shift(words, tf.constant(shift, tf.uint64))
        words = tf.bitwise.bitwise_xor(words, shifted) * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(words, tf.bitwise.right_shift(words, tf.constant(31, tf.uint64)))


def augmentation_seed(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns an example's `example_seed` feature.

    Args:
      example: a record; see `example_key`.

    Returns:
      int64 [2]: [0, 0] (no augmentation: evaluation) unless the record has an `epoch`, which only
      a training stream adds, and the key of its image where it has one.
    """
    key = example_key(example, IMAGE)
    return key if "epoch" in example else tf.zeros_like(key)


def image_seed(example_seed: tf.Tensor | np.ndarray, number: int) -> tf.Tensor | np.ndarray:
    """Returns the seed of one of an example's images, so that two are not cropped alike.

    Args:
      example_seed: int64 [..., 2], from `augmentation_seed`.
      number: of the image, from 0; the first has the example's own seed.

    Returns:
      int64 [..., 2]; [0, 0], no augmentation, for every image where the example has it.
    """
    steps = [number * IMAGE_STEP, 0]
    if isinstance(example_seed, np.ndarray):
        any_seed = example_seed.any(axis=-1, keepdims=True)
        return example_seed + np.where(any_seed, np.array(steps, np.int64), 0)
    any_seed = tf.reduce_any(example_seed != 0, axis=-1, keepdims=True)
    return example_seed + tf.where(any_seed, tf.constant(steps, tf.int64), 0)


def _wrapped(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
