"""Whether a serialized tf.train.Example has what a source promises, before TensorFlow parses it."""

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from simvlm_jax.data.sources.base import Features, Unreadable

NO_EXAMPLE = Unreadable("the record is no tf.train.Example")


def fault_of(data: bytes, features: Features) -> Unreadable | None:
    """Tells why `tf.io.parse_single_example` would refuse a record, which would end the pipeline.

    Args:
      data: the record.
      features: what would be parsed.

    Returns:
      The first fault, or None.
    """
    try:
        example = tf.train.Example.FromString(data)
    except DecodeError:
        return NO_EXAMPLE
    present = example.features.feature
    for name, feature in features.items():
        kind = present[name].WhichOneof("kind") if name in present else None
        any_number = isinstance(feature, tf.io.FixedLenSequenceFeature)
        if kind is None:
            if feature.default_value is None and not any_number:
                return Unreadable(f"the record has no field {name!r}")
            continue
        if kind != _kind(feature.dtype):
            return Unreadable(f"the field {name!r} has another type")
        count = len(getattr(present[name], kind).value)
        if not any_number and count != np.prod(feature.shape, dtype=int):
            return Unreadable(f"the field {name!r} has another number of values")
    # TensorFlow's parser is stricter about what is in no schema, as damage leaves it.
    example.DiscardUnknownFields()
    usual = example.ByteSize() == len(data)
    return None if usual or _parses(data, features) else NO_EXAMPLE


def _parses(data: bytes, features: Features) -> bool:
    try:
        tf.io.parse_single_example(data, features)
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the latter of its own message
        return False
    return True


def _kind(dtype: tf.DType) -> str:
    if dtype == tf.string:
        return "bytes_list"
    return "int64_list" if dtype.is_integer else "float_list"
