"""What the fields of benchmarks' records are for TensorFlow's parser."""

import tensorflow as tf

from simvlm_jax.data.sources.base import Features

STRING = tf.io.FixedLenFeature([], tf.string)
NUMBER = tf.io.FixedLenFeature([], tf.int64)
STRINGS = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)  # any number of them


def fields(strings: str = "", numbers: str = "", lists: str = "") -> Features:
    """Returns the features of a record.

    Args:
      strings: names of texts, separated by blanks.
      numbers: of integers.
      lists: of any number of texts.
    """
    return (
        dict.fromkeys(strings.split(), STRING)
        | dict.fromkeys(numbers.split(), NUMBER)
        | dict.fromkeys(lists.split(), STRINGS)
    )
