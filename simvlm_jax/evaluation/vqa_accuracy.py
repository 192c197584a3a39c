"""VQA accuracy as the official evaluation counts it (visualqa.org; GT-Vision-Lab/VQA).

Its normalisation has quirks that decide points, so they are kept: see `data.vqa_answers`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simvlm_jax.data.vqa_answers import normalize_answer
from simvlm_jax.errors import UserError

FULL_MARKS = 3  # so many people of the others, or more, and an answer is wholly right
LEAST_ANSWERS = FULL_MARKS + 1  # one is left out in turn


def strip_answer(text: str) -> str:
    """What the official code does to every answer: line ends and tabs are blanks, ends go."""
    return text.replace("\n", " ").replace("\t", " ").strip()


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
