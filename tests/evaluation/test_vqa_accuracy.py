import hashlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.data.vqa_answers import CONTRACTIONS, normalize_answer
from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.vqa_accuracy import answer_accuracy, score_vqa, strip_answer

SIGNS = set(';/[]"{}()=+\\_-><@`,?!')
ASCII_DIGITS = set("0123456789")
NUMBERS = {"none": "0", "zero": "0", "one": "1", "five": "5", "ten": "10"}


def slow_normalize(text):
    """One walk over the signs, another over the full stops, a third over the words."""
    places = range(len(text))
    number = any(
        {text[i - 1], text[i + 1]} <= ASCII_DIGITS and text[i] == "," for i in places[1:-1]
    )
    beside_blank = {text[i] for i in places if " " in (text[i - 1 : i], text[i + 1 : i + 2])}
    kept = []
    for sign in text:
        if sign not in SIGNS:
            kept.append(sign)
        elif not number and sign not in beside_blank:
            kept.append(" ")
    stops, result = 0, ""
    for place, sign in enumerate(kept):
        following = kept[place + 1] if place + 1 < len(kept) else ""
        if sign == "." and following not in ASCII_DIGITS and stops < 32:
            stops += 1
        else:
            result += sign
    words = [NUMBERS.get(word, word) for word in result.lower().split()]
    return " ".join(CONTRACTIONS.get(w, w) for w in words if w not in ("a", "an", "the"))


pieces = st.sampled_from(
    ["a", "The", "none", "Ten", "five", "dont", "hed've", "cat", "1,2", "3.5", ".", " .", "." * 40]
    + [" ", "  ", "\n", "\t", "é", "日本", "😀", "\u00a0", "'", "٣,٣", "x", *sorted(SIGNS)]
)
texts = st.one_of(st.lists(pieces, max_size=9).map("".join), st.text(max_size=30))


@settings(deadline=None, max_examples=400)
@given(texts)
def test_normalisation_equals_a_walk_over_the_signs(text):
    assert normalize_answer(text) == slow_normalize(strip_answer(text))


def slow_accuracy(prediction, answers):
    """Leave-one-out in exact fractions, over lists that are really made."""
    prediction, *answers = (
        t.replace("\n", " ").replace("\t", " ").strip() for t in (prediction, *answers)
    )
    if any(answer != answers[0] for answer in answers):
        prediction, *answers = map(slow_normalize, (prediction, *answers))
    scores = []
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        scores.append(min(Fraction(1), Fraction(others.count(prediction), 3)))
    return sum(scores) / len(scores)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_accuracy_equals_leave_one_out_in_fractions(data):
    pool = data.draw(st.lists(texts, min_size=1, max_size=4))
    pool += [pool[0] + ".", pool[0].upper(), f" {pool[0]}\n"]
    answers = data.draw(st.lists(st.sampled_from(pool), min_size=4, max_size=10))
    prediction = data.draw(st.sampled_from(pool))
    expected = slow_accuracy(prediction, answers)
    assert answer_accuracy(prediction, answers) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cats-and-dogs.", "cats and dogs"),
        ("black - white-ish", "black whiteish"),  # one blank decides for every "-"
        ("x -y-z", "x yz"),
        ("x- y-z", "x yz"),
        ("1,000 left/right", "1000 leftright"),  # a comma in a number decides for every sign
        ("left/right", "left right"),
        ("yes, a dog", "yes dog"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("U.S.A.", "usa"),
        ("." * 33, "."),  # the official code stops after 32
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("don't", "don't"),
        ("Im", "im"),  # its capitalised entry never meets a lower-cased word
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("a", ""),
        ("it's 5 o'clock", "it's 5 o'clock"),
        ("its", "its"),
        ("$5 & #1 100%", "$5 & #1 100%"),
        ("٣,٣", "٣ ٣"),
        ("", ""),
    ],
)
def test_normalisation_by_hand(text, expected):
    assert normalize_answer(text) == expected


def test_the_table_of_contractions_is_the_official_one():
    # Of the official table's pairs without capitals, in which the two differ, sorted.
    digest = hashlib.sha256(repr(sorted(CONTRACTIONS.items())).encode()).hexdigest()
    assert digest[:16] == "3bbe719c676d7e82"


@pytest.mark.parametrize(("people", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_so_many_of_ten_people_said_it(people, expected):
    answers = ["yes"] * people + ["no"] * (10 - people)
    assert answer_accuracy("Yes", answers) == pytest.approx(expected)


def test_nothing_is_normalised_where_all_said_the_same():
    assert answer_accuracy("the dog", ["dog"] * 10) == 0
    assert answer_accuracy("the dog", ["dog"] * 9 + ["cat"]) == 1
    assert answer_accuracy(" dog\n", ["dog", " dog"] * 5) == 1  # blanks at the ends do not count


def annotation(number, answers, answer_type="other", question_type="what"):
    return {
        "question_id": number,
        "answer_type": answer_type,
        "question_type": question_type,
        "answers": [{"answer": answer, "answer_id": n} for n, answer in enumerate(answers, 1)],
    }


def test_a_split_is_averaged_overall_and_by_both_types():
    annotations = [
        annotation(1, ["yes"] * 10, "yes/no", "is the"),
        annotation(2, ["2"] * 2 + ["3"] * 8, "number", "how many"),
        annotation(3, ["no"] * 10, "yes/no", "is this"),
    ]
    found = score_vqa({1: "yes", 2: "two", 3: "yes"}, annotations)
    assert found.pop("accuracy") == pytest.approx(1.6 / 3)
    assert found.pop("accuracy_by_answer_type") == pytest.approx({"yes/no": 0.5, "number": 0.6})
    expected = {"is the": 1, "how many": 0.6, "is this": 0}
    assert found.pop("accuracy_by_question_type") == pytest.approx(expected)
    assert not found


@pytest.mark.parametrize(
    ("predictions", "annotations", "sentence"),
    [
        ({}, [], "0 annotations"),
        ({}, [annotation(7, ["a"] * 10)], "7 of the annotations has no prediction"),
        ({7: "a"}, [annotation(7, ["a"] * 10)] * 2, "7 of the annotations stands twice"),
        ({7: "a", 8: "b"}, [annotation(7, ["a"] * 10)], "1 predictions .*8 is one"),
        ({"7": "a"}, [annotation("7", ["a"] * 10)], "'7' of the annotations is no whole number"),
        ({7: None}, [annotation(7, ["a"] * 10)], "question 7 is None"),
        ({7: "a"}, [annotation(7, [5] * 10)], "annotation of question 7 needs"),
        ({7: "a"}, [{"question_id": 7}], "annotation of question 7 needs"),
        ({7: "a"}, [annotation(7, ["a"] * 10, None)], "annotation of question 7 needs"),
        ({7: "a"}, [annotation(7, ["a"] * 3)], "3 answers are too few"),
        ({7: "a"}, ["nothing"], "'nothing' .* no annotation"),
        ({7: "a"}, [{"question_id": [7]}], "no whole number"),
    ],
)
def test_what_does_not_belong_together_is_refused(predictions, annotations, sentence):
    with pytest.raises(UserError, match=sentence):
        score_vqa(predictions, annotations)


def test_a_long_answer_takes_no_long_time():
    assert normalize_answer("-a, 1,000." * 100_000).startswith("1000a 1000")
