"""One way to map a function over examples: one by one over a dataset, or a batch at once."""

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

Example = Mapping[str, tf.Tensor]
Function = Callable[..., dict[str, tf.Tensor]]


class NotAtOnceError(TypeError):
    """A preprocessor knows examples one by one only."""


@dataclasses.dataclass(frozen=True)
class ExampleBatch:
    """Stands for a dataset where preprocessors can take all its examples at once.

    Attributes:
      examples: fields by name, each with a first axis [n].
    """

    examples: dict[str, tf.Tensor]

    def __getattr__(self, name: str):
        """What a preprocessor of another kind asks of a dataset is not here."""
        raise NotAtOnceError(f"A batch of examples has no {name}.")


def map_examples(
    dataset: tf.data.Dataset | ExampleBatch, function: Function, at_once: Function | None = None
) -> tf.data.Dataset | ExampleBatch:
    """Maps a function over a dataset, in order; in parallel where the dataset is read as it is.

    Within a traced function, as `TaskExamples` has, threads run beside each other already, and
    handing every example from thread to thread would only cost time.

    Args:
      dataset: any dataset, or a batch that stands for one.
      function: built of TensorFlow ops alone: no Python `if` or loop over a tensor, since
        AutoGraph, which would rewrite them and takes most of the start-up time, is left out.
      at_once: the same for fields with a first axis [n], which takes less time an example.

    Returns:
      The mapped dataset, of the same order and cardinality.

    Raises:
      NotAtOnceError: a batch was given, and no `at_once`.
    """
    if isinstance(dataset, ExampleBatch):
        if at_once is None:
            raise NotAtOnceError("This preprocessor takes examples one by one.")
        return ExampleBatch(at_once(dataset.examples))
    plain = tf.autograph.experimental.do_not_convert(function)
    if not tf.executing_eagerly():
        return dataset.map(plain)
    return dataset.map(plain, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
