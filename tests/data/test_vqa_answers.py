"""Answers in normal form, by examples worked out by hand from the official evaluation's rules.

(Run beside GT-Vision-Lab/VQA's own vqaEval.py, which is not copied here, the two agreed on 200,000
random strings of its words, signs and letters.)
"""

import itertools

import pytest

from simvlm_jax.data.vqa_answers import (
    CONTRACTIONS,
    class_scores,
    frequent_answers,
    normalize_answer,
    read_classes,
    soft_score,
)
from simvlm_jax.errors import UserError

EXAMPLES = {
    "The  Cat": "cat",
    "an apple, a pear": "apple pear",
    "None": "0",
    "ten": "10",
    "eleven": "eleven",
    "dont": "don't",
    "dont-walk": "don't walk",  # a sign without blanks beside it becomes one
    "dont- walk": "don't walk",
    "ice-cream": "ice cream",
    "ice -cream": "ice cream",
    "black/white": "black white",
    "black/white /": "blackwhite",  # beside a blank anywhere, it goes everywhere
    "1,000": "1000",
    "1,000-2": "10002",  # thousands: every sign goes
    "yes!": "yes",
    "3.5": "3.5",
    "St. John": "st john",
    "3. 5": "3 5",
    "5.": "5",
    "." * 33: ".",  # 32 points at most
    "couldnt've": "couldn't've",
    "couldn'tve": "couldn't've",
    "couldntve": "couldntve",  # not in the official list
    "Im": "im",  # the list has I'm, which no lower-case word finds
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "twas": "'twas",
    "yall": "y'all",
    "it's": "it's",
    "its": "its",
    "10:30": "10:30",  # the colon is no sign of the list
    "a": "",
    "": "",
    " \n": "",
    "red\nblue\tgreen": "red blue green",
    "ÉCLAIR ☃": "éclair ☃",
}


@pytest.mark.parametrize("given", EXAMPLES)
def test_examples_by_hand(given):
    assert normalize_answer(given) == EXAMPLES[given]


def test_contractions_lead_from_what_people_type_to_apostrophes():
    assert len(CONTRACTIONS) == 114
    for typed, written in CONTRACTIONS.items():
        assert typed != written and typed.replace("'", "") == written.replace("'", "")


def test_soft_scores_are_the_mean_over_nine_of_ten():
    for count in range(11):
        agreeing = [1] * count + [0] * (10 - count)
        nine = [sum(chosen) for chosen in itertools.combinations(agreeing, 9)]
        wanted = sum(min(1, matching / 3) for matching in nine) / 10
        assert soft_score(count) == pytest.approx(wanted)
    assert [soft_score(n) for n in (1, 2, 3, 4)] == pytest.approx([0.3, 0.6, 0.9, 1])
    assert soft_score(1, 1) == 1


def test_class_scores_count_normal_forms():
    classes = {"red": 4, "2": 7, "blue": 1}
    answers = ["Red", "a red", "two", "2", "2.", "green", "blue", *["pink"] * 3]
    labels, scores = class_scores(answers, classes, 4)
    assert labels == [7, 4, 1, -1]
    assert scores == pytest.approx([0.9, 0.6, 0.3, 0])
    assert class_scores(answers, classes, 1)[0] == [7]
    assert class_scores([], classes, 2) == ([-1, -1], [0.0, 0.0])


def test_frequent_answers_are_ordered():
    answers = ["b"] * 3 + ["a b"] * 2 + ["c"] * 5 + ["zebra"] * 5 + ["d"] * 4
    assert frequent_answers(answers, 5) == ["b", "c", "zebra"]
    assert frequent_answers(answers, 4)[-1] == "d" and frequent_answers([], 1) == []


def test_classes_are_lines(tmp_path):
    path = tmp_path / "answers.txt"
    path.write_text("yes\nno\nblue green\n")
    assert read_classes(path) == {"yes": 0, "no": 1, "blue green": 2}
    for bad in ("", "\n", "a\n\nb\n", "a\nb\na\n"):
        path.write_text(bad)
        with pytest.raises(UserError, match="each must be one class"):
            read_classes(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="cannot be read"):
        read_classes(path)
    with pytest.raises(UserError, match="simvlm prepare answers"):
        read_classes(tmp_path / "absent.txt")
