"""VQA accuracy as the official evaluation counts it (visualqa.org; GT-Vision-Lab/VQA).

Its normalisation has quirks that decide points, so they are kept: see `normalize_answer`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simvlm_jax.errors import UserError

FULL_MARKS = 3  # so many people of the others, or more, and an answer is wholly right
LEAST_ANSWERS = FULL_MARKS + 1  # one is left out in turn
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # every sign but the full stop, the apostrophe and a few
# The official code is of Python 2, whose \d knows the ten ASCII digits only.
COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
FULL_STOP = re.compile(r"\.(?![0-9])")
MOST_FULL_STOPS = 32  # the official code hands a flag (re.UNICODE) where sub() takes a count
ARTICLES = frozenset({"a", "an", "the"})
NUMBER_WORDS = "none zero one two three four five six seven eight nine ten".split()
DIGITS = dict(zip(NUMBER_WORDS, [0, *range(11)], strict=True))
# Words that lost their apostrophe: each gets it back where it stands here. The official table has
# capitalised entries too ("Im", "Ive", "Id've"); no lower-cased word ever meets them.
CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd how'd how'll
how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't
shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd
something'll that's there'd there're there's they'd they'll they're they've 'twas wasn't we've
weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
why'll why're why's won't would've wouldn't y'all you'd you'll you're you've he's
""".split()
# Of two apostrophes either may be lost, of these words not both.
TWICE_CONTRACTED = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'd've you'd've
""".split()
ODD_CONTRACTIONS = {  # what follows no rule, among it what looks like slips of the official table
    "somebody'd": "somebodyd",
    "y'allll": "y'all'll",
    "yall'll": "y'all'll",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
}


def _without_apostrophe(word: str, number: int) -> str:
    """The word without its apostrophe of that number: ("he'd've", 1) gives "he'dve"."""
    pieces = word.split("'")
    pieces[number : number + 2] = [pieces[number] + pieces[number + 1]]
    return "'".join(pieces)


CONTRACTIONS = {
    **{word.replace("'", ""): word for word in CONTRACTED},
    **{_without_apostrophe(w, n): w for w in TWICE_CONTRACTED for n in range(w.count("'"))},
    **ODD_CONTRACTIONS,
}


def strip_answer(text: str) -> str:
    """What the official code does to every answer: line ends and tabs are blanks, ends go."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalize_answer(text: str) -> str:
    """Punctuation, then case, number words, articles and apostrophes; as the official code does.

    A sign that stands beside a blank somewhere in the answer is deleted everywhere in it, any
    other becomes a blank; but if a comma between digits stands anywhere, all signs are deleted.
    Of the full stops, the first 32 that no digit follows go. "none" is 0.

    Examples: "The cats-and-dogs." gives "cats and dogs"; "black - white-ish" gives
    "black whiteish"; "1,000 left/right" gives "1000 leftright"; "dont" gives "don't".
    """
    signs_go = bool(COMMA_IN_NUMBER.search(text))
    cleaned = text
    for sign in PUNCTUATION:
        goes = signs_go or f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if goes else " ")
    cleaned = FULL_STOP.sub("", cleaned, count=MOST_FULL_STOPS)
    words = (str(DIGITS.get(word, word)) for word in cleaned.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def answer_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The accuracy of one answer: min(1, matches / 3), each person left out in turn, averaged.

    Nothing is normalised where all people said the same. Example: an answer that two of ten people
    gave scores (2 * 1/3 + 8 * 2/3) / 10 = 0.6.

    Args:
      prediction: The model's answer.
      answers: What people answered, ten in the official files.

    Returns:
      In [0, 1].

    Raises:
      UserError: There are fewer than four answers, of which not even the right one could be
        wholly right.
    """
    if len(answers) < LEAST_ANSWERS:
        raise UserError(
            f"VQA accuracy leaves out one person and asks for {FULL_MARKS} that agree, so "
            f"{len(answers)} answers are too few; give all ten of the official file."
        )
    given, wanted = strip_answer(prediction), [strip_answer(answer) for answer in answers]
    if len(set(wanted)) > 1:
        given, wanted = normalize_answer(given), [normalize_answer(answer) for answer in wanted]
    equal = [answer == given for answer in wanted]
    scores = [min(1.0, (sum(equal) - one_left_out) / FULL_MARKS) for one_left_out in equal]
    return float(np.mean(scores))


def score_vqa(
    predictions: Mapping[int, str], annotations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """VQA accuracy of a split: overall, and of each answer type and question type.

    Example: {7: "yes"} for one annotation, {"question_id": 7, "answer_type": "yes/no",
    "question_type": "is the", "answers": [{"answer": "yes"}, ...]}, gives
    {"accuracy": 1.0, "accuracy_by_answer_type": {"yes/no": 1.0},
    "accuracy_by_question_type": {"is the": 1.0}}.

    Args:
      predictions: Question id to answer.
      annotations: The list "annotations" of an official file.

    Returns:
      Accuracies in [0, 1]; papers print 100 times them.

    Raises:
      UserError: There are no annotations, a question has no prediction or stands twice, a
        prediction has no question or is no text, or an annotation lacks something.
    """
    _require_same_questions(predictions, annotations)
    scores, by_answer, by_question = [], defaultdict(list), defaultdict(list)
    for annotation in annotations:
        answers, answer_type, question_type = _parts(annotation)
        score = answer_accuracy(predictions[annotation["question_id"]], answers)
        scores.append(score)
        by_answer[answer_type].append(score)
        by_question[question_type].append(score)
    return {
        "accuracy": float(np.mean(scores)),
        "accuracy_by_answer_type": {k: float(np.mean(v)) for k, v in sorted(by_answer.items())},
        "accuracy_by_question_type": {k: float(np.mean(v)) for k, v in sorted(by_question.items())},
    }


def _require_same_questions(
    predictions: Mapping[int, str], annotations: Sequence[Mapping[str, Any]]
) -> None:
    seen = set()
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            raise UserError(f"{annotation!r:.99} is no annotation; give those of an official file.")
        number = annotation.get("question_id")
        problem = "has no prediction"
        if not isinstance(number, int):
            problem = "is no whole number"
        elif number in seen:
            problem = "stands twice"
        elif number in predictions:
            problem = ""
        if problem:
            raise UserError(
                f"The question_id {number!r} of the annotations {problem}; give the official file "
                "and one answer to each of its questions."
            )
        if not isinstance(predictions[number], str):
            raise UserError(
                f"The answer to question {number} is {predictions[number]!r}; give a text."
            )
        seen.add(number)
    if not seen:
        raise UserError("There are 0 annotations to score; give at least one.")
    if extra := [number for number in predictions if number not in seen]:
        raise UserError(
            f"{len(extra)} predictions are for questions that have no annotation ({extra[0]!r} is "
            "one); give the annotations of the same split."
        )


def _parts(annotation: Mapping[str, Any]) -> tuple[list[str], str, str]:
    """The answers, the answer type and the question type."""
    try:
        answers = [answer["answer"] for answer in annotation["answers"]]
        kinds = annotation["answer_type"], annotation["question_type"]
    except (KeyError, TypeError):
        answers, kinds = [None], ("", "")
    if not all(isinstance(text, str) for text in (*answers, *kinds)):
        raise UserError(
            f"The annotation of question {annotation['question_id']} needs answers (each with an "
            "answer), answer_type and question_type; give the official file."
        )
    return answers, *kinds
