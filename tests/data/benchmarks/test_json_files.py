import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.benchmarks import json_files
from simvlm_jax.data.benchmarks.json_files import array_elements, line_objects, text_lines
from simvlm_jax.data.sources.official import FAULT
from simvlm_jax.errors import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    elements=st.lists(VALUES, max_size=6),
    after=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    indent=st.sampled_from([None, 1]),
    letters=st.booleans(),
    chunk=st.integers(1, 40),
)
@settings(deadline=None, max_examples=200)
def test_elements_are_those_that_json_gives(
    tmp_path_factory, before, elements, after, indent, letters, chunk
):
    value = {**before, "wanted": elements, **{f"{k}!": v for k, v in after.items()}}
    path = tmp_path_factory.getbasetemp() / "elements.json"
    text = json.dumps(value, indent=indent, ensure_ascii=letters)
    path.write_bytes(text.encode(errors="surrogatepass" if letters else "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "CHUNK", chunk)
        found = list(array_elements(str(path), "wanted"))
    assert found == json.loads(path.read_bytes())["wanted"]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"wanted"', '{"wanted": [1, 2', '{"wanted": [1 2]}', '{"wanted": [1,]}',
        '{"wanted": [1], "b": }', '{"wanted": [nul]}', '{"wanted": ["a]}', '{"wanted": [1]',
        '{"wanted": ' + "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_such_json_is_a_sentence(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is not the JSON that it should be.*bad|bad.json is not"):
        list(array_elements(str(path), "wanted"))


def test_other_troubles_are_told(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text('{"other": [1]}')
    with pytest.raises(UserError, match="has no array 'wanted'"):
        list(array_elements(str(path), "wanted"))
    path.write_bytes(b'{"wanted": ["\xff"]}')
    with pytest.raises(UserError, match="is not UTF-8"):
        list(array_elements(str(path), "wanted"))
    monkeypatch.setattr(json_files, "LONGEST_ELEMENT", 50)
    monkeypatch.setattr(json_files, "CHUNK", 10)
    path.write_text(json.dumps({"wanted": ["x" * 200]}))
    with pytest.raises(UserError, match="longer than"):
        list(array_elements(str(path), "wanted"))


def test_lines_keep_their_places(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes('\ufeff{"a": 1}\r\n\n[2]\n{"b": "\u2028"}\nno\n'.encode() + b"\xff\n{}")
    causes = ["the line is not a JSON object", "the line is not JSON", "the line is not UTF-8"]
    assert list(line_objects(str(path))) == [
        {"a": 1}, {FAULT: causes[0]}, {"b": "\u2028"}, {FAULT: causes[1]}, {FAULT: causes[2]}, {},
    ]  # fmt: skip
    path.write_text("a\n\n b\u2028c \n")
    assert list(text_lines(str(path), keep_blank=True)) == ["a", "", " b\u2028c "]
    assert list(text_lines(str(path))) == ["a", " b\u2028c "]


def test_a_line_without_end_takes_one_place(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "LONGEST", 100)
    monkeypatch.setattr("simvlm_jax.data.sources.lines.LONGEST", 100)
    path = tmp_path / "lines"
    path.write_text("a\n" + "x" * 1000 + "\nb\n")
    first, fault, last = text_lines(str(path))
    assert (first, last) == ("a", "b") and "longer than" in fault[FAULT]
