"""Values of a row, as tables and JSON give them, to a record: a serialized tf.train.Example."""

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from simvlm_jax.data.sources.base import BadRecord, Features
from simvlm_jax.errors import UserError

IMAGE = "image/encoded"
LARGEST_FLOAT = float(np.finfo(np.float32).max)
ABSENT = object()
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


def check_features(name: str, features: Features) -> None:
    """Refuses what cannot be made from a row.

    Args:
      name: of the source.
      features: what its records should have.

    Raises:
      UserError: a feature that is not one value, a fixed number or any number of them, of text,
        int64 or float32.
    """
    for key, feature in features.items():
        any_number = isinstance(feature, tf.io.FixedLenSequenceFeature) and feature.allow_missing
        if (
            not (any_number or isinstance(feature, tf.io.FixedLenFeature))
            or feature.dtype not in (tf.string, tf.int64, tf.float32)
            or len(feature.shape) > (0 if any_number else 1)
        ):
            raise UserError(
                f"The feature {key!r} of {name} is {feature}; use a FixedLenFeature of shape [] or "
                "[n], or for any number of values FixedLenSequenceFeature([], dtype, "
                "allow_missing=True), of tf.string, tf.int64 or tf.float32."
            )


def encode(values: Mapping[str, object], features: Features, labels: Mapping[str, str]) -> bytes:
    """Makes a record.

    Args:
      values: by feature name: text, bytes, an integer, a float, or a list of these; None where
        the row has a null, ABSENT (or nothing) where it lacks the field.
      features: what the record should have. A null or absent one takes its `default_value`, if it
        has one, and is empty where it may have any number of values.
      labels: what sentences call each, for example "the column caption".

    Returns:
      A serialized tf.train.Example; equal values give equal bytes.

    Raises:
      BadRecord: a value is missing, null, of another type, or of another count.
    """
    example = tf.train.Example()
    for name, feature in features.items():
        value, label = values.get(name, ABSENT), labels[name]
        any_number = isinstance(feature, tf.io.FixedLenSequenceFeature)
        if value is None or value is ABSENT:
            if feature.default_value is not None or any_number:
                continue
            raise BadRecord(f"{label} is {'null' if value is None else 'missing'}")
        items = value if isinstance(value, list) else [value]
        if not any_number and len(items) != math.prod(feature.shape):
            raise BadRecord(f"{label} has not just {math.prod(feature.shape)} values")
        _fill(example.features.feature[name], feature.dtype, items, label)
    return example.SerializeToString(deterministic=True)


def parse_number(text: str, dtype: tf.DType, label: str) -> int | float:
    """Reads a number that a table holds as text.

    Raises:
      BadRecord: it is not one.
    """
    if dtype == tf.int64:
        if not _INTEGER.fullmatch(text):
            raise BadRecord(f"{label} is not an integer")
        return int(text)
    try:
        return float(text)
    except ValueError:
        raise BadRecord(f"{label} is not a number") from None


def _fill(target: tf.train.Feature, dtype: tf.DType, items: Iterable[object], label: str) -> None:
    convert = {tf.string: _bytes, tf.int64: _integer, tf.float32: _float}[dtype]
    converted = [convert(item, label) for item in items]
    if dtype == tf.string:
        target.bytes_list.value.extend(converted)
    elif dtype == tf.int64:
        target.int64_list.value.extend(converted)
    else:
        target.float_list.value.extend(converted)


def _bytes(item: object, label: str) -> bytes:
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str):
        raise BadRecord(f"{label} is not text")
    try:
        return item.encode()
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        raise BadRecord(f"{label} has half a character (a lone surrogate)") from None


def _integer(item: object, label: str) -> int:
    if not isinstance(item, int) or isinstance(item, bool):
        raise BadRecord(f"{label} is not an integer")
    if not -(1 << 63) <= item < 1 << 63:
        raise BadRecord(f"{label} is not within 64 bits")
    return item


def _float(item: object, label: str) -> float:
    if not isinstance(item, int | float) or isinstance(item, bool):
        raise BadRecord(f"{label} is not a number")
    if not abs(item) <= LARGEST_FLOAT:  # nor NaN
        raise BadRecord(f"{label} is not a finite number of 32 bits")
    return float(item)
