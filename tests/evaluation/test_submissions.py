import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.submissions import (
    check_nocaps_submission,
    check_submission,
    check_vqa_submission,
    nocaps_image_ids,
    nocaps_submission,
    vqa_question_ids,
    vqa_submission,
    write_submission,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "v2_OpenEnded_mscoco_test-dev2015_questions.json"
    rows = [{"question_id": n, "image_id": 1, "question": "Is it?"} for n in (2620010, 7, 8)]
    path.write_text(json.dumps({"info": {}, "questions": rows}))
    return path


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "nocaps_test_image_info.json"
    rows = [{"id": n, "file_name": f"{n}.jpg", "open_images_id": "0013ea2"} for n in (0, 1)]
    path.write_text(json.dumps({"images": rows, "info": {}, "licenses": []}))
    return path


def test_vqa_answers_are_written_as_the_server_reads_them(tmp_path, questions):
    answers = {np.int64(8): "yes", 7: "", 2620010: "café\n\U0001f600"}
    path = tmp_path / "answers.json"
    write_submission(path, vqa_submission(answers, vqa_question_ids(questions)))
    assert json.loads(path.read_text()) == [
        {"question_id": 2620010, "answer": "café\n\U0001f600"},
        {"question_id": 7, "answer": ""},
        {"question_id": 8, "answer": "yes"},
    ]
    assert check_vqa_submission(path, questions) == 3
    assert [each.name for each in tmp_path.glob(".*")] == []


def test_nocaps_captions_are_written_as_the_server_reads_them(tmp_path, images):
    path = tmp_path / "captions.json"
    write_submission(path, nocaps_submission({1: "a cat", 0: "a dog"}, nocaps_image_ids(images)))
    expected = [{"image_id": 0, "caption": "a dog"}, {"image_id": 1, "caption": "a cat"}]
    assert json.loads(path.read_text()) == expected
    assert check_nocaps_submission(path, images) == 2


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(-5, 2**62), texts, min_size=1))
def test_any_texts_survive_the_file(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp("made") / "answers.json"
    write_submission(path, vqa_submission(answers, answers))
    read = {entry["question_id"]: entry["answer"] for entry in json.loads(path.read_bytes())}
    assert read == answers


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_one_lost_added_or_doubled_entry_is_always_found(data):
    ids = data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True))
    entries = [{"question_id": n, "answer": "a"} for n in ids]
    assert check_submission(entries, ids, "question_id", "answer") == len(ids)
    place = data.draw(st.integers(0, len(ids) - 1))
    lost = entries[:place] + entries[place + 1 :]
    doubled = [*entries, entries[place]]
    swapped = [*lost, {"question_id": 100, "answer": "a"}]
    for wrong, sentence in ((lost, "missing"), (doubled, "twice"), (swapped, "does not have")):
        with pytest.raises(UserError, match=sentence):
            check_submission(wrong, ids, "question_id", "answer")


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({}, "list of objects, not dict"),
        ([5], "Entry 0 of the submission is 5"),
        ([{"question_id": 7}], "must be an object of question_id and answer"),
        ([{"question_id": 7, "answer": "a", "score": 1}], "must be an object"),
        ([{"question_id": "7", "answer": "a"}], "'7', which is no whole number"),
        ([{"question_id": True, "answer": "a"}], "True, which is no whole number"),
        ([{"question_id": 7.0, "answer": "a"}], "7.0, which is no whole number"),
        ([{"question_id": [7], "answer": "a"}], "which is no whole number"),
        ([{"question_id": 9, "answer": "a"}], "9, which the official file does not have"),
        ([{"question_id": 7, "answer": 1}], "question_id 7 is 1, which is no text"),
        ([{"question_id": 7, "answer": None}], "question_id 7 is None"),
        ([{"question_id": 7, "answer": "a" * 10_001}], "10001 characters"),
        ([{"question_id": 7, "answer": "\ud800"}], "half a character"),
        ([{"question_id": 7, "answer": "a"}], "2 of 3 official question_ids are missing .*2620010"),
        ([], "3 of 3 official question_ids are missing"),
    ],
)
def test_a_file_that_the_server_would_refuse_is_refused(tmp_path, questions, entries, sentence):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=sentence):
        check_vqa_submission(path, questions)


def test_true_is_no_id_though_it_equals_one():
    with pytest.raises(UserError, match="True, which is no whole number"):
        check_submission([{"question_id": True, "answer": "a"}], [1], "question_id", "answer")


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path, questions, content):
    path = tmp_path / "answers.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no JSON"):
        check_vqa_submission(path, questions)
    with pytest.raises(UserError, match="no JSON"):
        vqa_question_ids(path)


@pytest.mark.parametrize(
    "content",
    [{}, {"questions": []}, {"questions": [{"question_id": "7"}]}, {"questions": {"a": 1}}]
    + [{"questions": [{"question_id": 7}] * 2}, {"questions": [7]}],
)
def test_another_file_in_place_of_the_questions_is_refused(tmp_path, content):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="questions.json holds no list 'questions'"):
        vqa_question_ids(path)


def test_what_was_predicted_for_no_or_for_other_questions_is_refused(tmp_path, questions):
    ids = vqa_question_ids(questions)
    with pytest.raises(UserError, match="2 of 3 official"):
        vqa_submission({7: "a"}, ids)
    with pytest.raises(UserError, match="9, which the official file does not have"):
        vqa_submission({**dict.fromkeys(ids, "a"), 9: "b"}, ids)
    with pytest.raises(UserError, match="'8', which is no whole number"):
        vqa_submission({2620010: "a", 7: "a", "8": "a"}, ids)
    with pytest.raises(UserError, match="cannot be read"):
        check_vqa_submission(tmp_path / "absent.json", questions)
    with pytest.raises(UserError, match="cannot be written"):
        write_submission(tmp_path / "absent" / "answers.json", [])
