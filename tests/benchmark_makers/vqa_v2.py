"""VQA v2's files: tiny ones with its oddities, and easy-vqa's questions in its format."""

import dataclasses
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmark_makers.files import COLOURS, SHAPES, drawing, encoded, write, write_json

PEOPLE = 10


@dataclasses.dataclass(frozen=True)
class Question:
    """One question with its ten answers, the most frequent first."""

    number: int
    image: int
    text: str
    answers: Sequence[str]
    kind: str = "other"


def write_part(
    folder: Path, part: str, questions: Sequence[Question], annotated: bool = True, name: str = ""
) -> None:
    """Writes the questions and annotations of one of COCO's parts; `name` if files differ."""
    head = {"info": {"version": "2.0"}, "license": {"name": "none"}, "data_type": "mscoco"}
    head["data_subtype"] = name or part
    asked = [{"image_id": q.image, "question": q.text, "question_id": q.number} for q in questions]
    content = {**head, "task_type": "Open-Ended", "questions": asked}
    write_json(folder / f"v2_OpenEnded_mscoco_{name or part}_questions.json", content)
    if annotated:
        content = {**head, "annotations": [_annotation(q) for q in questions]}
        write_json(folder / f"v2_mscoco_{part}_annotations.json", content)


def _annotation(question: Question) -> dict:
    return {
        "question_type": " ".join(question.text.split()[:2]).lower(),
        "multiple_choice_answer": question.answers[0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": place}
            for place, answer in enumerate(question.answers, 1)
        ],
        "image_id": question.image,
        "answer_type": question.kind,
        "question_id": question.number,
    }


def image_path(folder: Path, part: str, image: int) -> Path:
    return folder / part / f"COCO_{part}_{image:012d}.jpg"


def write_karpathy(folder: Path, images: dict[int, tuple[str, str]]) -> None:
    """Writes dataset_coco.json: image -> (COCO's part, Karpathy's split)."""
    rows = [
        {
            "filepath": part,
            "sentids": [],
            "filename": f"COCO_{part}_{image:012d}.jpg",
            "imgid": place,
            "split": split,
            "sentences": [],
            "cocoid": image,
        }
        for place, (image, (part, split)) in enumerate(images.items())
    ]
    write_json(folder / "dataset_coco.json", {"images": rows, "dataset": "coco"})


def make(folder: Path) -> None:
    """Twelve drawings, two questions each: ties, odd letters, rare answers, an image missing."""
    folder = folder / "vqa_v2"
    images = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    questions: dict[str, list[Question]] = {"train2014": [], "val2014": [], "test2015": []}
    for number, (colour, shape) in enumerate(images * 3):
        part = ("train2014", "train2014", "val2014", "test2015")[number % 4]
        if number != 5:  # of which there are questions and no file
            write(image_path(folder, part, number), drawing(colour, shape))
        first, tied = [colour] * 7 + ["Grey"] * 3, ["a " + shape] * 5 + ["the dots."] * 5
        asked = [(f"What colour is the {shape}?", first), ("What is this? Ünïcode ☃ 😀", tied)]
        for place, (text, answers) in enumerate(asked):
            questions[part].append(Question(number * 1000 + place, number, text, answers))
    rare = ["Two", "2", "two", "couldnt", *["1,000"] * 6]
    questions["train2014"].append(Question(99, 0, "How many?", rare, "number"))
    for part, asked in questions.items():
        if part != "test2015":
            write_part(folder, part, asked)
    write_part(folder, "test2015", questions["test2015"], annotated=False)
    some = questions["test2015"][:3]
    write_part(folder, "test2015", some, annotated=False, name="test-dev2015")
    splits = ("train", "restval", "val", "test")
    write_karpathy(
        folder,
        {
            q.image: (part, splits[q.image // 2 % 4])
            for part in ("train2014", "val2014")
            for q in questions[part]
        },
    )


def make_easy_vqa(folder: Path) -> None:
    """easy-vqa 1.0 (pip install easy-vqa): its train as train2014, its test as val2014.

    Ten people agree on each answer. The questions of val are written as test2015 and
    test-dev2015 too, without answers.
    """
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None:
        raise SystemExit("Run `pip install easy-vqa` first.")
    data, folder = Path(spec.origin).parent / "data", folder / "vqa_v2"
    images = {}
    for split, part in (("train", "train2014"), ("test", "val2014")):
        rows = json.loads((data / split / "questions.json").read_text())
        offset = 0 if split == "train" else 100_000  # COCO's image ids are of all parts together
        kinds = {"yes": "yes/no", "no": "yes/no"}
        questions = [
            Question(
                10 * offset + number, offset + image, text, [answer] * PEOPLE,
                kinds.get(answer, "other"),
            )
            for number, (text, answer, image) in enumerate(rows)
        ]  # fmt: skip
        write_part(folder, part, questions)
        for image in sorted({image for _, _, image in rows}):
            path = data / split / "images" / f"{image}.png"
            with Image.open(path) as opened:
                content = encoded(opened.convert("RGB"), "PNG")
            write(image_path(folder, part, offset + image), content)
            images[offset + image] = part, "train" if split == "train" else "test"
            if split == "test":
                write(image_path(folder, "test2015", offset + image), content)
        if split == "test":
            for name in ("", "test-dev2015"):
                write_part(folder, "test2015", questions, annotated=False, name=name)
            number = 100_000 + min(image for _, _, image in rows)
            images[number] = part, "val"
    write_karpathy(folder, images)
