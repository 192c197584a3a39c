"""Pairs of a premise and a hypothesis: SNLI-VE, SNLI, MNLI; and NLVR2's statements."""

import os
from collections.abc import Iterator, Sequence

from simvlm_jax.data.benchmarks.json_files import line_objects
from simvlm_jax.data.sources.official import FAULT, Row

LABELS = ("entailment", "neutral", "contradiction")  # the ids of SNLI-VE, SNLI and MNLI alike
FLICKR_IDS = ("Flikr30kID", "Flickr30K_ID")  # the official files misspell it
TRUTHS = ("false", "true")


def entailment_rows(paths: Sequence[str], images: str | None = None) -> Iterator[Row]:
    """Yields the lines of official JSON lines of SNLI-VE, SNLI or MNLI.

    Args:
      paths: of the file.
      images: SNLI-VE's folder of Flickr30k's images; None for texts alone.

    Yields:
      pair_id, premise, hypothesis, label (by LABELS; -1 where the annotators did not agree, "-",
      as in 2 % of SNLI: the pair keeps its place), and with images image and image_id.
    """
    for row in line_objects(paths[0]):
        if FAULT in row:
            yield row
            continue
        gold = row.get("gold_label")
        made = {
            "pair_id": str(row.get("pairID", "")),
            "premise": row.get("sentence1"),
            "hypothesis": row.get("sentence2"),
            "label": LABELS.index(gold) if gold in LABELS else -1,
        }
        if not all(isinstance(made[name], str) for name in ("premise", "hypothesis")):
            yield {FAULT: "the line has not sentence1 and sentence2"}
        elif images is None:
            yield made
        elif number := next((str(row[key]) for key in FLICKR_IDS if row.get(key)), None):
            number = number.removesuffix(".jpg")
            yield made | {"image_id": number, "image": f"{images}/{number}.jpg"}
        else:
            yield {FAULT: f"the line has not {FLICKR_IDS[0]}"}


def statement_rows(paths: Sequence[str], folder: str) -> Iterator[Row]:
    """Yields the lines of an official file of NLVR2.

    Example: "dev-850-1-0" is about dev-850-1-img0.png, the left image, and dev-850-1-img1.png. It
    shares its sentence with "dev-850-0-0", so with all of "dev-850--0": consistency counts those
    sentences that are judged right for every pair of images.

    Args:
      paths: of the file.
      folder: of its images; those of train lie in folders there that each line names.

    Yields:
      identifier, sentence_id, sentence, label (1 true, 0 false, -1 unknown), image, second_image.
    """
    for row in line_objects(paths[0]):
        if FAULT in row:
            yield row
            continue
        identifier, parts = row.get("identifier"), str(row.get("identifier")).split("-")
        if len(parts) != 4 or not isinstance(row.get("sentence"), str):
            yield {FAULT: "the line has not sentence and identifier (split-set-pair-sentence)"}
            continue
        truth = str(row.get("label", "")).lower()
        place = os.path.join(folder, str(row.get("directory", "")), "-".join(parts[:3]))
        yield {
            "identifier": identifier,
            "sentence_id": "-".join([*parts[:2], "", parts[3]]),
            "sentence": row["sentence"],
            "label": TRUTHS.index(truth) if truth in TRUTHS else -1,
            "image": f"{place}-img0.png",
            "second_image": f"{place}-img1.png",
        }
