"""The data of the ablation: noisy pairs, a tenth of them, a small clean set, and questions.

All come from the prepared drawings. Of the drawings that the demo trains on, a seeded quarter is
kept for training questions and the others are for pretraining, so that, as in the paper, no image
of the downstream task was pretrained on. Questions for evaluation are about the drawings that the
demo holds out (variants of seen concepts, and concepts never seen).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import tensorflow as tf

from simvlm_jax.data import concepts
from simvlm_jax.data.paths import data_dir, shard_paths
from simvlm_jax.data.questions import KINDS, Drawing, Question, answer_classes, noisy, questions
from simvlm_jax.data.records import encode_example, write_shards
from simvlm_jax.data.sources.array_record import ArrayRecords
from simvlm_jax.data.sources.base import Unreadable
from simvlm_jax.errors import UserError

FOLDER, ANSWERS, SUMMARY = "ablation", "answers.txt", "summary-ablation.json"
PAIR_SETS = ("noisy", "tenth", "clean")
QUESTIONS, TRAIN, TEST = "questions", "train", "test"
# Only people and hands have variants, so their kind would be no question; and the name of a concept
# never seen cannot be known.
ASKED_OF = {
    "variants": tuple(kind for kind in KINDS if kind != "kind"),
    "concepts": tuple(kind for kind in KINDS if kind != "name"),
}
FEWEST = 27  # drawings in training, so that the clean set has one


def write_ablation(seed: int) -> dict:
    """Writes `<data folder>/ablation` from the prepared drawings; equal seeds give equal files.

    Args:
      seed: of every choice.

    Returns:
      The summary: settings and counts, and the digest of each file.

    Raises:
      UserError: there are no prepared drawings, too few, or one cannot be read.
    """
    folder = data_dir() / FOLDER
    drawings = {split: _drawings(split) for split in ("train", "variants", "concepts")}
    training = drawings["train"]
    if len(training) < FEWEST:
        raise UserError(
            f"An ablation needs {FEWEST} drawings in training and {data_dir()} has "
            f"{len(training)}; prepare more with `simvlm prepare openmoji`."
        )
    ordered = sorted(training, key=lambda key: concepts.rank(seed, key))
    quarter = len(ordered) // 4
    asked, pretraining = ordered[:quarter], ordered[quarter:]
    counts = _write_pairs(folder, {key: training[key] for key in pretraining}, seed)
    counts |= _write_questions(folder, {key: training[key] for key in asked}, drawings, seed)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SUMMARY]
    digests = {str(path.relative_to(folder)): _digest(path) for path in files}
    summary = {"settings": {"seed": seed}, "counts": counts, "files": digests}
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    return summary


def _write_pairs(folder: Path, members: Mapping[str, tuple], seed: int) -> dict[str, int]:
    """Writes the three pair sets.

    The noisy set is all of them; its tenth is a seeded tenth of its pairs, as they are there; the
    clean one is half as large again, with every name right (the paper's CC-3M is smaller than a
    tenth of ALIGN, too, though by far more than half).
    """
    right = {key: drawing.caption for key, (drawing, _) in members.items()}
    spoiled = noisy(right, seed)
    ordered = sorted(right, key=lambda key: concepts.rank(seed, "subset/" + key))
    tenth, twentieth = len(ordered) // 10, len(ordered) // 20
    chosen = {
        "noisy": spoiled,
        "tenth": {key: spoiled[key] for key in ordered[:tenth]},
        "clean": {key: right[key] for key in ordered[:twentieth]},
    }
    for name, captions in chosen.items():
        records = [
            encode_example({"id": number, "image/encoded": members[key][1], "caption": caption})
            for number, (key, caption) in enumerate(captions.items())
        ]
        write_shards(folder / name, TRAIN, records, 1)
    return {name: len(captions) for name, captions in chosen.items()}


def _write_questions(
    folder: Path, training: Mapping[str, tuple], drawings: Mapping[str, Mapping], seed: int
) -> dict[str, int]:
    """Writes the questions and the list of training answers."""
    held_out = {split: drawings[split] for split in ("variants", "concepts")}
    asked = {
        TRAIN: questions(_known(training), seed),
        TEST: [
            question
            for split, members in held_out.items()
            for question in questions(_known(members), seed, ASKED_OF[split])
        ],
    }
    images = {key: image for split in drawings.values() for key, (_, image) in split.items()}
    for split, found in asked.items():
        _write_split(folder, split, found, images)
    answers = answer_classes(asked[TRAIN])
    (folder / QUESTIONS / ANSWERS).write_text("\n".join(answers) + "\n", "utf-8")
    return {f"{QUESTIONS} {split}": len(found) for split, found in asked.items()}


def _write_split(
    folder: Path, split: str, asked: Iterable[Question], images: Mapping[str, bytes]
) -> None:
    records = [
        encode_example(
            {
                "id": number,
                "image/encoded": images[question.codepoints],
                "question": question.question,
                "answer": question.answer,
                "kind": question.kind,
                "codepoints": question.codepoints,
            }
        )
        for number, question in enumerate(asked)
    ]
    write_shards(folder / QUESTIONS, split, records, 1)


def _known(members: Mapping[str, tuple]) -> list[Drawing]:
    return [drawing for drawing, _ in members.values()]


def _drawings(split: str) -> dict[str, tuple[Drawing, bytes]]:
    """The drawings of a split and their images, by code points."""
    folder = data_dir() / "openmoji"
    records = ArrayRecords([str(path) for path in shard_paths(folder, split)])
    found = {}
    for record in records.read(range(len(records))):
        if isinstance(record, Unreadable):
            raise UserError(f"A record of {folder} cannot be read: {record.cause}; prepare again.")
        fields = tf.train.Example.FromString(record).features.feature
        drawing = Drawing(
            *(
                fields[name].bytes_list.value[0].decode()
                for name in ("codepoints", "caption/en", "group", "concept")
            )
        )
        found[drawing.codepoints] = drawing, fields["image/encoded"].bytes_list.value[0]
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
