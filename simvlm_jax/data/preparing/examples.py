"""Fields of serialized tf.train.Examples whose content nobody has checked."""

from collections.abc import Sequence

import tensorflow as tf
from google.protobuf import message

from simvlm_jax.data.sources import Unreadable

KINDS = {"bytes_list": "bytes", "int64_list": "int64", "float_list": "float"}


def parse(record: bytes | Unreadable) -> tf.train.Example | Unreadable:
    """Parses a record, or says why it cannot be parsed."""
    if isinstance(record, Unreadable):
        return record
    try:
        return tf.train.Example.FromString(record)
    except message.DecodeError:
        return Unreadable("the record is no tf.train.Example")


def names(example: tf.train.Example) -> list[str]:
    """Returns the names of an example's fields, sorted."""
    return sorted(example.features.feature)


def values(example: tf.train.Example, name: str) -> tuple[str, Sequence]:
    """Returns a field's kind ("bytes", "int64", "float", or "" where it is absent) and values."""
    if name not in example.features.feature:
        return "", ()
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    return (KINDS[kind], getattr(feature, kind).value) if kind else ("empty", ())


def one_value(example: tf.train.Example, name: str) -> bytes | Unreadable:
    """Returns the content of a field that holds one string, or why there is none."""
    kind, content = values(example, name)
    if not kind:
        return Unreadable(f"there is no field {name}")
    if kind not in ("bytes", "empty"):
        return Unreadable(f"{name} is of type {kind}, not bytes")
    if len(content) != 1:
        return Unreadable(f"{name} has {'no value' if not content else 'several values'}")
    return content[0]


def text(example: tf.train.Example, name: str) -> str | Unreadable:
    """Returns a field's text without the blanks at its ends, or why there is none."""
    content = one_value(example, name)
    if isinstance(content, Unreadable):
        return content
    try:
        found = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        return Unreadable(f"{name} is not UTF-8")
    if not found:
        return Unreadable(f"{name} is empty")
    return Unreadable(f"{name} holds a NUL byte") if "\0" in found else found
