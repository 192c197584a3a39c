import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.sources.base import BadRecord
from simvlm_jax.data.sources.encoding import ABSENT, check_features, encode, parse_number
from simvlm_jax.errors import UserError

STRING, INTEGER, FLOAT = (
    tf.io.FixedLenFeature([], dtype) for dtype in (tf.string, tf.int64, tf.float32)
)


def made(value, feature):
    record = encode({"x": value}, {"x": feature}, {"x": "the field x"})
    return tf.io.parse_single_example(record, {"x": feature})["x"].numpy()


@settings(deadline=None, max_examples=50)
@given(
    text=st.text(),
    content=st.binary(),
    number=st.integers(-(2**63), 2**63 - 1),
    real=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_tensorflow_reads_the_values_back(text, content, number, real):
    assert made(text, STRING).decode() == text
    assert made(content, STRING) == content
    assert made(number, INTEGER) == number
    assert made(real, FLOAT) == np.float32(real)
    assert made(number, FLOAT) == np.float32(number)


def test_lists():
    pair = tf.io.FixedLenFeature([2], tf.int64)
    assert made([3, 4], pair).tolist() == [3, 4]
    assert made(["only"], STRING) == b"only"
    assert made("only", tf.io.FixedLenFeature([1], tf.string)).tolist() == [b"only"]


def test_any_number_of_values():
    several = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    check_features("letters", {"x": several})
    assert made(["a", "b", "a"], several).tolist() == [b"a", b"b", b"a"]
    assert made("only", several).tolist() == [b"only"]
    for nothing in ([], None, ABSENT):
        assert made(nothing, several).tolist() == []
    with pytest.raises(BadRecord, match="the field x is not text"):
        made(["a", None], several)


def test_defaults():
    with_default = tf.io.FixedLenFeature([], tf.int64, default_value=7)
    assert made(None, with_default) == made(ABSENT, with_default) == 7
    assert made(3, with_default) == 3


@pytest.mark.parametrize(
    ("value", "feature", "cause"),
    [
        (None, STRING, "the field x is null"),
        (ABSENT, STRING, "the field x is missing"),
        (3, STRING, "the field x is not text"),
        ("\ud83d", STRING, "the field x has half a character (a lone surrogate)"),
        (["a", "b"], STRING, "the field x has not just 1 values"),
        ([None], STRING, "the field x is not text"),
        ("3", INTEGER, "the field x is not an integer"),
        (3.0, INTEGER, "the field x is not an integer"),
        (True, INTEGER, "the field x is not an integer"),
        (2**63, INTEGER, "the field x is not within 64 bits"),
        (False, FLOAT, "the field x is not a number"),
        (float("nan"), FLOAT, "the field x is not a finite number of 32 bits"),
        (1e39, FLOAT, "the field x is not a finite number of 32 bits"),
        (10**400, FLOAT, "the field x is not a finite number of 32 bits"),
        ([1], tf.io.FixedLenFeature([2], tf.int64), "the field x has not just 2 values"),
    ],
)
def test_causes(value, feature, cause):
    with pytest.raises(BadRecord) as caught:
        made(value, feature)
    assert str(caught.value) == cause


def test_numbers_in_tables():
    assert parse_number("-12", tf.int64, "x") == -12
    assert parse_number("1e3", tf.float32, "x") == 1000
    for text, dtype in (("1_0", tf.int64), ("٣", tf.int64), ("1.0", tf.int64), ("", tf.int64)):
        with pytest.raises(BadRecord, match="x is not an integer"):
            parse_number(text, dtype, "x")
    with pytest.raises(BadRecord, match="x is not a number"):
        parse_number("one", tf.float32, "x")


@pytest.mark.parametrize(
    "feature",
    [
        tf.io.VarLenFeature(tf.string),
        tf.io.FixedLenSequenceFeature([2], tf.string, allow_missing=True),
        tf.io.FixedLenSequenceFeature([], tf.string),
        tf.io.FixedLenFeature([2, 2], tf.int64),
        tf.io.FixedLenFeature([], tf.int32),
    ],
)
def test_features_that_a_row_cannot_give(feature):
    check_features("letters", {"x": STRING})
    with pytest.raises(UserError, match="feature 'x' of letters"):
        check_features("letters", {"x": feature})
