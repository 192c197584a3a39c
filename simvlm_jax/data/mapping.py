"""One way to map a function over examples."""

from collections.abc import Callable, Mapping

import tensorflow as tf

Example = Mapping[str, tf.Tensor]


def map_examples(
    dataset: tf.data.Dataset, function: Callable[..., dict[str, tf.Tensor]]
) -> tf.data.Dataset:
    """Maps a function over a dataset, in order; in parallel where the dataset is read as it is.

    Within a traced function, as `TaskExamples` has, threads run beside each other already, and
    handing every example from thread to thread would cost a third more.

    Args:
      dataset: any dataset.
      function: built of TensorFlow ops alone: no Python `if` or loop over a tensor, since
        AutoGraph, which would rewrite them and takes most of the start-up time, is left out.

    Returns:
      The mapped dataset, of the same order and cardinality.
    """
    plain = tf.autograph.experimental.do_not_convert(function)
    if not tf.executing_eagerly():
        return dataset.map(plain)
    return dataset.map(plain, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
