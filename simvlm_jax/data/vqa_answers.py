"""VQA v2's answers: the official normalisation, the classes, and the score of each class.

The normalisation is that of the official evaluation (GT-Vision-Lab/VQA, vqaEval.py of version 2:
processPunctuation, then processDigitArticle) with its quirks: a test compares them. Pure Python.
"""

import collections
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from simvlm_jax.errors import UserError

LEAST = 9  # occurrences of an answer that is a class
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# Quirk: meant to spare the points of numbers, it spares those before a digit; and the flag
# re.UNICODE stands where a count is expected, so that no more than 32 points go. Its digits are
# those of Python 2, the ten of ASCII.
_POINT, _MOST_POINTS = re.compile(r"\.(?![0-9])"), 32
_THOUSANDS = re.compile(r"[0-9],[0-9]")
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()
    )
} | {"none": "0"}  # fmt: skip
ARTICLES = ("a", "an", "the")
# Each is found by itself without apostrophes. (The official list has I'd've, I'm and I've too,
# which are never found: words are in lower case by then.)
_SINGLE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's
    how'd how'll how's isn't it'd it'll ma'am might've mightn't must've mustn't needn't not've
    o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll
    someone's something'd something'll that's there'd there're there's they'd they'll they're
    they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd
    you'll you're you've
""".split()
# Each is found by itself without the first or without the last apostrophe.
_DOUBLE = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've
    someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
""".split()
CONTRACTIONS: Mapping[str, str] = {
    **{word.replace("'", ""): word for word in _SINGLE},
    **{word.replace("'", "", 1): word for word in _DOUBLE},
    **{"".join(word.rsplit("'", 1)): word for word in _DOUBLE},
    **dict.fromkeys(["ow's'at", "'ows'at", "'ow'sat"], "'ow's'at"),
    **dict.fromkeys(["yall'd've", "y'alld've", "y'all'dve"], "y'all'd've"),
    "somebody'd": "somebodyd",  # a quirk
}


def normalize_answer(answer: str) -> str:
    """Returns an answer as the official evaluation compares it.

    Punctuation goes, or becomes a blank where no blank stands beside it; number words up to ten
    become digits, "none" too; articles go; apostrophes are put into contractions; lower case.
    Example: "The  dont-walk sign." gives "don't walk sign".

    Args:
      answer: any text.

    Returns:
      The normal form; it may be empty.
    """
    given = answer.replace("\n", " ").replace("\t", " ").strip()
    text, thousands = given, _THOUSANDS.search(given)
    for mark in PUNCTUATION:
        beside_a_blank = f"{mark} " in given or f" {mark}" in given
        text = text.replace(mark, "" if beside_a_blank or thousands else " ")
    text = _POINT.sub("", text, count=_MOST_POINTS)
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def soft_score(matching: int, answers: int = 10) -> float:
    """Returns the official accuracy of an answer that so many of the people gave.

    It is the mean, over the people, of min(1, n / 3), n of the others agreeing: with ten people
    0.3, 0.6, 0.9 and from four on 1.

    Args:
      matching: how many gave it.
      answers: how many there are; with a single one, who has no others, it counts in full.
    """
    if answers < 2:
        return float(matching)
    others = matching * min(1, (matching - 1) / 3) + (answers - matching) * min(1, matching / 3)
    return others / answers


def class_scores(
    answers: Sequence[str], classes: Mapping[str, int], room: int
) -> tuple[list[int], list[float]]:
    """Gives the classes that a question's answers stand for, the most frequent first.

    Answers are compared in their normal form. Those of no class are left out.

    Args:
      answers: of the people, as they gave them.
      classes: answer -> class id.
      room: how many classes to return.

    Returns:
      (class ids, filled up with -1; the official accuracy of each, 0 where there is none).
    """
    counts = collections.Counter(normalize_answer(answer) for answer in answers)
    found = [
        (classes[answer], soft_score(count, len(answers)))
        for answer, count in counts.most_common()
        if answer in classes
    ][:room]
    missing = room - len(found)
    return [number for number, _ in found] + [-1] * missing, [s for _, s in found] + [0.0] * missing


def frequent_answers(answers: Iterable[str], least: int = LEAST) -> list[str]:
    """Returns the answers that are classes.

    The definition is that of the widely used list of 3,129 answers (hengyuan-hu's
    bottom-up-attention-vqa, tools/compute_softscore.py): a question counts for its
    `multiple_choice_answer`, the most frequent of its ten, in normal form; classes have nine
    questions or more in train and val together. That the official data give 3,129 was not run
    here.

    Args:
      answers: the `multiple_choice_answer` of every question.
      least: how many questions a class has at least.

    Returns:
      Normal forms, the most frequent first, ties in alphabetical order. An empty one is none.
    """
    counts = collections.Counter(normalize_answer(answer) for answer in answers)
    kept = [answer for answer, count in counts.items() if count >= least and answer]
    return sorted(kept, key=lambda answer: (-counts[answer], answer))


def read_classes(path: str | os.PathLike) -> dict[str, int]:
    """Reads the classes of a classification task: one a line, the line's number its id.

    Returns:
      class -> id, in the order of the file.

    Raises:
      UserError: there is no such file, or it has no line, a blank line, one twice, or no UTF-8.
    """
    try:
        lines = Path(path).read_text("utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise UserError(
            f"There is no list of classes {path}; make VQA v2's with `simvlm prepare answers`, or "
            "write one class a line."
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"The list of classes {path} cannot be read: {error}.") from None
    classes = {line: number for number, line in enumerate(lines)}
    if len(classes) < len(lines) or "" in classes:
        raise UserError(
            f"The list of classes {path} has {len(lines)} lines, {len(classes)} of them different;"
            " each must be one class, none blank and none twice."
        )
    return classes
