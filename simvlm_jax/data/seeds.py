"""Random numbers that are a function of (seed, epoch, example id) and of nothing else.

The streams put `seed` and `epoch` beside the `id` of each raw record. Neither the order of
reading nor the number of hosts enters, so a resumed or resharded run draws what an
uninterrupted one would have drawn.
"""

from collections.abc import Mapping

import tensorflow as tf

from simvlm_jax.errors import UserError

# One number per use: draws of different uses are independent of one another.
PREFIX, IMAGE, SPANS = 1, 2, 3


def example_key(example: Mapping[str, tf.Tensor], stream: int) -> tf.Tensor:
    """Derives the stateless seed of one example for one use.

    Args:
      example: a record with an integer `id`, and `seed` and `epoch` where a training stream put
        them (both count as 0 where it did not).
      stream: which use: PREFIX, IMAGE or SPANS.

    Returns:
      int64 [2], a seed for `tf.random.stateless_*`.

    Raises:
      UserError: the records have no `id`.
    """
    if "id" not in example:
        raise UserError(
            f"Each record needs an integer field 'id', the same in every epoch, and this source "
            f"has only {sorted(example)}; add it when the data is prepared."
        )
    zero = tf.constant(0, tf.int64)
    key = tf.stack([tf.cast(example.get("seed", zero), tf.int64), tf.constant(stream, tf.int64)])
    key = fold_in(key, tf.cast(example.get("epoch", zero), tf.int64))
    return fold_in(key, tf.cast(example["id"], tf.int64))


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
    """Draws one int32 from low..high, both ends included, as a function of `key` (integer [2])."""
    low, high = tf.cast(low, tf.int32), tf.cast(high, tf.int32)
    return tf.random.stateless_uniform([], key, low, high + 1, tf.int32, alg="philox")


def augmentation_seed(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns an example's `example_seed` feature.

    Args:
      example: a record; see `example_key`.

    Returns:
      int32 [2]: [0, 0] (no augmentation: evaluation) unless the record has an `epoch`, which only
      a training stream adds; never [0, 0] where it has one.
    """
    if "epoch" not in example:
        return tf.zeros([2], tf.int32)
    key = example_key(example, IMAGE)
    words = tf.random.stateless_uniform([2], key, None, None, tf.int32, alg="philox")
    return tf.where(tf.reduce_any(words != 0), words, tf.ones_like(words))
