"""Files for the benchmarks' servers, made of an evaluation's answers and checked once written."""

import sys
from collections.abc import Sequence
from pathlib import Path

from simvlm_jax.data.paths import data_dir
from simvlm_jax.evaluation import submissions
from simvlm_jax.evaluation.fields import Record


def vqa(path: Path, answers: Sequence[str], records: Sequence[Record], questions: str) -> Path:
    """Writes the answers for VQA v2's server.

    Args:
      path: to write.
      answers: one for each record.
      records: with `question_id`.
      questions: the official file of questions, below the data folder.

    Raises:
      UserError: a question has no answer, or what was written is not what the server takes.
    """
    file = data_dir() / questions
    by_id = {r["question_id"]: answer for r, answer in zip(records, answers, strict=True)}
    entries = submissions.vqa_submission(by_id, submissions.vqa_question_ids(file))
    submissions.write_submission(path, entries)
    count = submissions.check_vqa_submission(path, file)
    print(f"{path}: {count} answers, checked against {questions}", file=sys.stderr)
    return path


def nocaps(path: Path, answers: Sequence[str], records: Sequence[Record], images: str) -> Path:
    """Writes the captions for NoCaps' server.

    Args:
      path: to write.
      answers: a caption for each record.
      records: with `image_id`.
      images: the official file of images, below the data folder.

    Raises:
      UserError: an image has no caption, or what was written is not what the server takes.
    """
    file = data_dir() / images
    by_id = {r["image_id"]: answer for r, answer in zip(records, answers, strict=True)}
    entries = submissions.nocaps_submission(by_id, submissions.nocaps_image_ids(file))
    submissions.write_submission(path, entries)
    count = submissions.check_nocaps_submission(path, file)
    print(f"{path}: {count} captions, checked against {images}", file=sys.stderr)
    return path
