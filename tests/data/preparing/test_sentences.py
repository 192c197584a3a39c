import json

import pytest
import sentencepiece

from made_inputs import example, pair, silent, write
from simvlm_jax.data.preparing import sentences
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.errors import UserError


def source(folder, texts, field="text"):
    return Input(write(folder, [example(**{field: text}) for text in texts]), text_field="")


def test_all_sentences_in_their_order(tmp_path):
    one = source(tmp_path / "one", ["a b\n\nc ", "d"])
    two = source(tmp_path / "two", ["e"], "caption")
    assert sentences.draw([one, two], 100, 0, silent) == ["a b", "c", "d", "e"]


def test_a_sample_is_bounded_fair_and_repeatable(tmp_path):
    inputs = [source(tmp_path / str(i), [f"{i} {n}" for n in range(300)]) for i in range(2)]
    found = sentences.draw(inputs, 100, 0, silent)
    assert len(set(found)) == 100 and found == sentences.draw(inputs, 100, 0, silent)
    assert found != sentences.draw(inputs, 100, 1, silent)
    assert 30 < sum(text.startswith("0") for text in found) < 70
    places = [(int(a), int(b)) for a, b in map(str.split, found)]
    assert places == sorted(places)
    more = sentences.draw(inputs, 150, 0, silent)
    assert set(found) < set(more)  # a larger sample holds the smaller


def test_long_texts_are_cut_between_words(tmp_path):
    text = "word " * 1000 + "y" * 2500
    found = sentences.draw([source(tmp_path, [text])], 100, 0, silent)
    assert max(map(len, found)) <= sentences.LONGEST_SENTENCE
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert [set(part.split()) for part in found[:5]] == [{"word"}] * 5


def test_bad_records_are_left_out(tmp_path):
    found = sentences.draw([source(tmp_path, [b"\xff", "a\0b", "good"])], 9, 0, silent)
    assert found == ["good"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="no field caption or text; they have title"):
        sentences.draw([source(tmp_path / "a", ["x"], "title")], 9, 0, silent)
    with pytest.raises(UserError, match="There is no text in"):
        sentences.draw([source(tmp_path / "b", [" "])], 9, 0, silent)
    (tmp_path / "a.jsonl").write_text('{"title": "a"}\n')
    with pytest.raises(UserError, match="There is no text in .*a.jsonl; name the field"):
        sentences.draw([Input(str(tmp_path / "a.jsonl"), text_field="")], 9, 0, silent)


def test_json_lines_are_read_by_the_field_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a red cat"}\n{"text": "a dog"}\n')
    found = sentences.draw(
        [Input(str(tmp_path / "a.jsonl"), image_field="", text_field="")], 9, 0, silent
    )
    assert found == ["a red cat", "a dog"]


def make(tmp_path, output="data/vocabulary.model", size=165, records=40):
    captions = [pair(n, caption=f"a small picture of {n % 7} red cats") for n in range(records)]
    inputs = [Input(write(tmp_path / "in", captions), text_field="")]
    return sentences.make_vocabulary(inputs, tmp_path / output, size, 1000, 0, silent)


def test_a_vocabulary_is_written_once(tmp_path):
    model = tmp_path / "data" / "vocabulary.model"
    assert make(tmp_path) is False
    assert sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size() == 165
    facts = json.loads((tmp_path / "data" / "vocabulary.json").read_text())
    assert facts["sentences"] == 40 and facts["settings"]["vocabulary_size"] == 165
    before = model.stat().st_mtime_ns
    assert make(tmp_path) is True
    assert model.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="is another vocabulary"):
        make(tmp_path, size=166)
    assert model.stat().st_mtime_ns == before
    assert sorted(p.name for p in model.parent.iterdir()) == ["vocabulary.json", "vocabulary.model"]


def test_a_size_that_does_not_fit_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="5000 pieces cannot be trained"):
        make(tmp_path, size=5000)
    assert list((tmp_path / "data").iterdir()) == []
