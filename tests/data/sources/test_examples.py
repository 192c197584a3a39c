import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.records import encode_example
from simvlm_jax.data.sources.examples import fault_of

FEATURES = {
    "text": tf.io.FixedLenFeature([], tf.string),
    "width": tf.io.FixedLenFeature([], tf.int64, default_value=7),
    "box": tf.io.FixedLenFeature([2], tf.float32),
    "answers": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
}
WHOLE = {"text": ["a"], "width": [3], "box": [0.5, 1.0], "answers": ["b", "c"]}


def example(values):
    message = tf.train.Example()
    for name, value in values.items():
        feature = message.features.feature[name]
        kinds = {str: "bytes_list", int: "int64_list", float: "float_list"}
        kind = kinds[type(value[0])] if value else "int64_list"
        coded = [v.encode() if isinstance(v, str) else v for v in value]
        getattr(feature, kind).value.extend(coded)
        getattr(feature, kind).SetInParent()
    return message.SerializeToString()


def refused_by_tensorflow(data):
    try:
        tf.io.parse_single_example(data, FEATURES)
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):  # the latter of its own message
        return True
    return False


values = st.one_of(
    st.lists(st.text(max_size=3), max_size=3),
    st.lists(st.integers(-5, 5), max_size=3),
    st.lists(st.floats(width=32, allow_nan=False), max_size=3),
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from([*FEATURES, "other"]), values))
def test_a_fault_is_what_tensorflow_refuses(changed):
    data = example(WHOLE | changed)
    assert (fault_of(data, FEATURES) is not None) == refused_by_tensorflow(data)


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_what_tensorflow_refuses_in_damaged_bytes_is_a_fault(data):
    damaged = bytearray(example(WHOLE))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(damaged)))] or damaged)
    assert fault_of(damaged, FEATURES) is not None or not refused_by_tensorflow(damaged)


def test_an_unknown_field_that_only_tensorflow_refuses_is_a_fault():
    data = (
        b"\n4\n\x13\n\x03box\x12\x0c\x12\n\n\x08\x00\x00\x00?\x00\x00\x80?\t\x0e\n\x05width\x12\x05"
        b"\x1a\x03\n\x01\x03\n\r\n\x04text\x12\x05\n\x03\n\x01a"
    )
    assert tf.train.Example.FromString(data).features.feature["box"].float_list.value == [0.5, 1.0]
    assert refused_by_tensorflow(data)
    assert fault_of(data, FEATURES).cause == "the record is no tf.train.Example"


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"text": ["a"]}, "the record has no field 'box'"),
        (WHOLE | {"answers": [3]}, "the field 'answers' has another type"),
        (WHOLE | {"text": [3]}, "the field 'text' has another type"),
        (WHOLE | {"text": ["a", "b"]}, "the field 'text' has another number of values"),
    ],
)
def test_causes(values, cause):
    assert fault_of(example(values), FEATURES).cause == cause


def test_no_fault_of_what_is_whole():
    for number in range(1, 4):
        assert fault_of(example(WHOLE | {"answers": ["b"] * number}), FEATURES) is None
    without = {name: value for name, value in WHOLE.items() if name != "answers"}
    assert fault_of(example(without), FEATURES) is None
    assert fault_of(encode_example({"text": "a"}), {"text": FEATURES["text"]}) is None
