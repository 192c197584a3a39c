"""VQA v2: questions and annotations, two JSON files for each of COCO's parts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simvlm_jax.data.benchmarks.captions import texts_of
from simvlm_jax.data.benchmarks.json_files import array_elements, line_objects
from simvlm_jax.data.order import order_key
from simvlm_jax.data.sources.official import FAULT, Row
from simvlm_jax.data.vqa_answers import class_scores, normalize_answer, read_classes
from simvlm_jax.errors import UserError

ANSWERS = 10  # of each question, so that many classes at most
PARTIAL_SHARE = 2 / 3  # of the classes that partial training sees
KARPATHY = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


def question_rows(
    paths: Sequence[str],
    parts: Sequence[str],
    annotated: bool = True,
    classes: bool = False,
    karpathy: str | None = None,
    domain: str | None = None,
    partial: bool = False,
) -> Iterator[Row]:
    """Yields the questions in the official order, with their answers.

    Args:
      paths: of each part its questions and, where annotated, its annotations; then answers.txt
        where `classes` are wanted or a domain is asked for; then dataset_coco.json where a
        Karpathy split is.
      parts: COCO's folder of the images of each pair, for example "train2014".
      annotated: whether there are annotations; else the answers are empty.
      classes: give `labels` and `label_scores` by answers.txt.
      karpathy: keep the questions about images of "train" (restval with it), "val" or "test".
      domain: "in" keeps questions whose most frequent answer is a class, "out" the others.
      partial: keep questions whose most frequent answer is one of the two thirds of the classes
        that partial training sees.

    Yields:
      question_id, image_id, question, image, answers (all ten, as given), answer (the most
      frequent one), answer_type, question_type and, with classes, labels and label_scores [10].

    Raises:
      UserError: a file is not what it should be.
    """
    paths = list(paths)
    kept_images = _karpathy_images(paths.pop(), karpathy) if karpathy else None
    known = read_classes(paths.pop()) if classes or domain or partial else {}
    seen = partial_classes(known) if partial else set()
    step = 2 if annotated else 1
    for part, first in zip(parts, range(0, len(paths), step), strict=True):
        for row in _joined(*paths[first : first + step]):
            if FAULT in row:
                yield row
                continue
            answer = normalize_answer(row["answer"])
            if (
                (kept_images is not None and row["image_id"] not in kept_images)
                or (domain and (answer in known) != (domain == "in"))
                or (partial and answer not in seen)
            ):
                continue
            if classes:
                labels, scores = class_scores(row["answers"], known, ANSWERS)
                row |= {"labels": labels, "label_scores": scores}
            yield {**row, "image": f"{part}/COCO_{part}_{row['image_id']:012d}.jpg"}


def own_question_rows(paths: Sequence[str], folder: str) -> Iterator[Row]:
    """Yields the lines of a file like {"image": "1.jpg", "question": "what?", "answer": "a dog"}.

    Args:
      paths: of that file, then of its classes, one a line.
      folder: name of the folder that image paths start from.

    Yields:
      As `question_rows`, without official ids; a line may have several `answers`, in a list, and
      the first of the most frequent counts. Each answer's score is `soft_score`'s.
    """
    known = read_classes(paths[1])
    for row in line_objects(paths[0]):
        answers = texts_of(row.get("answer", row.get("answers")))
        named = all(isinstance(row.get(name), str) for name in ("image", "question"))
        if FAULT in row or answers is None or not named:
            yield row if FAULT in row else {FAULT: "the line has not image, question and answer"}
            continue
        labels, scores = class_scores(answers, known, ANSWERS)
        yield {
            "image": f"{folder}/{row['image']}",
            "question": row["question"],
            "answers": answers,
            "answer": max(answers, key=answers.count),
            "labels": labels,
            "label_scores": scores,
        }


def own_answers(paths: Sequence[str]) -> Iterator[str]:
    """Yields the most frequent answer of every question in JSON lines of one's own."""
    for path in paths:
        for row in line_objects(path):
            if answers := texts_of(row.get("answer", row.get("answers"))):
                yield max(answers, key=answers.count)


def partial_classes(classes: Mapping[str, int]) -> set[str]:
    """The classes that partial training sees, about two thirds of all.

    Which ones the paper took it does not say. Here they are chosen as by lot, the same whenever
    the classes are.
    """
    by_lot = sorted(classes, key=lambda answer: (order_key(0, answer), answer))
    return set(by_lot[: round(PARTIAL_SHARE * len(classes))])


def most_frequent_answers(paths: Sequence[str]) -> Iterator[str]:
    """Yields the `multiple_choice_answer` of every question of annotation files."""
    for path in paths:
        for number, element in enumerate(array_elements(path, "annotations")):
            answer = element.get("multiple_choice_answer") if isinstance(element, dict) else None
            if not isinstance(answer, str):
                raise UserError(f"Annotation {number} of {path} has no multiple_choice_answer.")
            yield answer


def _joined(questions: str, annotations: str | None = None) -> Iterator[Row]:
    """Each question with its annotation; memory holds annotations that came before their question.

    The official files have the same order, so it holds none.
    """
    waiting: dict[int, Row] = {}
    coming = array_elements(annotations, "annotations") if annotations else iter(())
    for element in array_elements(questions, "questions"):
        try:
            row = {
                "question_id": int(element["question_id"]),
                "image_id": int(element["image_id"]),
                "question": str(element["question"]),
            }
        except (KeyError, TypeError, ValueError):
            yield {FAULT: "the question has not question_id, image_id and question"}
            continue
        empty = {"answers": [], "answer": "", "answer_type": "", "question_type": ""}
        if annotations is None:
            yield row | empty
            continue
        number = row["question_id"]
        if number not in waiting:
            for found in map(_annotation, coming):
                waiting[found.pop("question_id")] = found
                if number in waiting:
                    break
        yield row | waiting.pop(number, {FAULT: "the question has no annotation"})


def _annotation(element: Any) -> Row:
    try:
        return {
            "question_id": int(element["question_id"]),
            "answers": [str(given["answer"]) for given in element["answers"]],
            "answer": str(element["multiple_choice_answer"]),
            "answer_type": str(element.get("answer_type", "")),
            "question_type": str(element.get("question_type", "")),
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        number = element.get("question_id", -1) if isinstance(element, dict) else -1
        cause = "the annotation has not answers and multiple_choice_answer"
        return {"question_id": number, FAULT: cause}


def _karpathy_images(path: str, split: str) -> set[int]:
    wanted = KARPATHY[split]
    images = array_elements(path, "images")
    try:
        found = {int(image["cocoid"]) for image in images if image["split"] in wanted}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has an image without cocoid and split; bring it again.") from None
    if not found:
        raise UserError(f"{path} has no image of the split {split!r}; bring dataset_coco.json.")
    return found
