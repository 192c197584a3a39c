"""Files for evaluation servers: written only if the server will take them.

VQA v2 (test-dev, test-std): a list of {"question_id": whole number, "answer": text}, one for each
question of the official questions file. NoCaps (val, test): a list of {"image_id": whole number,
"caption": text}, one for each image of the official image file, the id being its "id", not its
Open Images name.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simvlm_jax.errors import UserError, writing
from simvlm_jax.json_files import read_bounded, read_object
from simvlm_jax.training.folder import write_atomic

LARGEST = 1 << 28  # bytes of a file; VQA v2 has 447,793 test questions
LONGEST_TEXT = 10_000  # characters of one answer or caption


def vqa_question_ids(questions_file: str | Path) -> list[int]:
    """The ids of an official questions file: {"questions": [{"question_id": 1, ...}, ...]}.

    Raises:
      UserError: It cannot be read or is another file.
    """
    return _official_ids(Path(questions_file), "questions", "question_id")


def nocaps_image_ids(images_file: str | Path) -> list[int]:
    """The ids of an official image file: {"images": [{"id": 0, ...}, ...]}.

    Raises:
      UserError: It cannot be read or is another file.
    """
    return _official_ids(Path(images_file), "images", "id")


def vqa_submission(answers: Mapping[int, str], question_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Answers in the order of the questions.

    Example: ({5: "yes"}, [5]) gives [{"question_id": 5, "answer": "yes"}].

    Raises:
      UserError: See `check_submission`.
    """
    return _submission(answers, list(question_ids), "question_id", "answer")


def nocaps_submission(captions: Mapping[int, str], image_ids: Iterable[int]) -> list[dict]:
    """Captions in the order of the images.

    Example: ({0: "a dog"}, [0]) gives [{"image_id": 0, "caption": "a dog"}].

    Raises:
      UserError: See `check_submission`.
    """
    return _submission(captions, list(image_ids), "image_id", "caption")


def write_submission(path: str | Path, entries: list[dict[str, Any]]) -> None:
    """Writes a submission at once or not at all.

    Raises:
      UserError: The disk is full or the folder is absent.
    """
    with writing(path):
        write_atomic(Path(path), json.dumps(entries).encode())


def check_vqa_submission(path: str | Path, questions_file: str | Path) -> int:
    """Checks a file against the official questions; returns how many answers it has.

    Raises:
      UserError: See `check_submission`.
    """
    ids = vqa_question_ids(questions_file)
    return check_submission(_entries(Path(path)), ids, "question_id", "answer")


def check_nocaps_submission(path: str | Path, images_file: str | Path) -> int:
    """Checks a file against the official images; returns how many captions it has.

    Raises:
      UserError: See `check_submission`.
    """
    ids = nocaps_image_ids(images_file)
    return check_submission(_entries(Path(path)), ids, "image_id", "caption")


def check_submission(entries: Any, ids: list[int], id_name: str, text_name: str) -> int:
    """Refuses what a server would refuse, or would silently count as wrong.

    Args:
      entries: What the file holds.
      ids: Of all questions or images.
      id_name: "question_id" or "image_id".
      text_name: "answer" or "caption".

    Returns:
      How many entries there are.

    Raises:
      UserError: It is no list of such objects; an id is no whole number, stands twice, is unknown
        or is missing; a text is no text, too long, or cannot be encoded.
    """
    if not isinstance(entries, list):
        raise UserError(f"A submission is a list of objects, not {type(entries).__name__}.")
    known, seen = set(ids), set()
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.keys() != {id_name, text_name}:
            raise UserError(
                f"Entry {place} of the submission is {entry!r:.120}; each must be an object of "
                f"{id_name} and {text_name}."
            )
        number, text = entry[id_name], entry[text_name]
        if type(number) is not int or number not in known or number in seen:
            raise UserError(
                f"Entry {place} of the submission has the {id_name} {number!r:.80}, which "
                f"{_problem(number, known)}; give each official {id_name} once."
            )
        _check_text(text, f"The {text_name} of {id_name} {number}")
        seen.add(number)
    if missing := len(known) - len(seen):
        first = next(number for number in ids if number not in seen)
        raise UserError(
            f"{missing} of {len(known)} official {id_name}s are missing in the submission ({first} "
            "is one); predict all of them."
        )
    return len(entries)


def _problem(number: Any, known: set[int]) -> str:
    if type(number) is not int:
        return "is no whole number"
    return "stands twice" if number in known else "the official file does not have"


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise UserError(f"{name} is {text!r:.80}, which is no text.")
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{name} has {len(text)} characters; at most {LONGEST_TEXT} make sense.")
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise UserError(f"{name} holds half a character (a lone surrogate); decode it rightly.")


def _submission(
    texts: Mapping[int, str], ids: list[int], id_name: str, text_name: str
) -> list[dict[str, Any]]:
    """Official order first, so that two runs differ in texts only; then what is unknown."""
    order = [number for number in ids if number in texts]
    known = set(ids)
    order += [number for number in texts if number not in known]
    entries = [{id_name: _plain_int(number), text_name: texts[number]} for number in order]
    check_submission(entries, ids, id_name, text_name)
    return entries


def _plain_int(number: Any) -> Any:
    """A whole number of numpy's as one of Python's, which JSON can hold."""
    return number if isinstance(number, bool) or not hasattr(number, "__index__") else int(number)


def _official_ids(path: Path, group: str, id_name: str) -> list[int]:
    rows = read_object(path, LARGEST).get(group)
    rows = rows if isinstance(rows, list) else []
    ids = [row.get(id_name) if isinstance(row, dict) else None for row in rows]
    if not ids or not all(type(number) is int for number in ids) or len(set(ids)) < len(ids):
        raise UserError(
            f"{path} holds no list {group!r} of objects with an {id_name} each, all different; "
            "give the official file."
        )
    return ids


def _entries(path: Path) -> Any:
    try:
        return json.loads(read_bounded(path, LARGEST))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is no JSON; write it again.") from None
