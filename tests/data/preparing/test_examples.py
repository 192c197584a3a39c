import pytest

from made_inputs import example
from simvlm_jax.data.preparing import examples
from simvlm_jax.data.sources import Unreadable


def parsed(**fields):
    return examples.parse(example(**fields))


def test_a_field_of_each_type():
    found = parsed(b=[b"x", b"y"], a=3, c=0.5)
    assert examples.names(found) == ["a", "b", "c"]
    for name, kind, content in [
        ("a", "int64", [3]),
        ("b", "bytes", [b"x", b"y"]),
        ("c", "float", [0.5]),
        ("d", "", []),
    ]:
        found_kind, values = examples.values(found, name)
        assert (found_kind, list(values)) == (kind, content)


def test_looking_at_a_field_does_not_make_it():
    found = parsed(a=3)
    examples.one_value(found, "b")
    assert examples.names(found) == ["a"]


def test_no_example():
    assert examples.parse(b"\xff\xff\xff") == Unreadable("the record is no tf.train.Example")
    assert examples.parse(Unreadable("why")) == Unreadable("why")


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, "there is no field t"),
        ({"t": 1}, "t is of type int64, not bytes"),
        ({"t": 1.5}, "t is of type float, not bytes"),
        ({"t": ["a", "b"]}, "t has several values"),
        ({"t": []}, "t has no value"),
        ({"t": b"\xff"}, "t is not UTF-8"),
        ({"t": "\ud800".encode("utf-8", "surrogatepass")}, "t is not UTF-8"),
        ({"t": "a\0b"}, "t holds a NUL byte"),
        ({"t": " \n\t"}, "t is empty"),
        ({"t": ""}, "t is empty"),
    ],
)
def test_each_trouble_of_a_text_has_a_cause(fields, cause):
    assert examples.text(parsed(**fields), "t") == Unreadable(cause)


def test_blanks_at_the_ends_go():
    assert examples.text(parsed(t="\n größer  als "), "t") == "größer  als"
    assert examples.one_value(parsed(t=" a "), "t") == b" a "
