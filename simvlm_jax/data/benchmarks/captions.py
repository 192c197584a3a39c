"""Captions: COCO by Karpathy's split, NoCaps, and files of one's own."""

from collections.abc import Iterator, Sequence
from typing import Any

from simvlm_jax.data.benchmarks.json_files import array_elements, line_objects
from simvlm_jax.data.sources.official import FAULT, Row


def karpathy_rows(paths: Sequence[str], splits: Sequence[str]) -> Iterator[Row]:
    """Yields the images of Karpathy's dataset_coco.json that are of some splits.

    Args:
      paths: of that file.
      splits: names there, for example ["train", "restval"].

    Yields:
      image_id (COCO's), image, captions (five or more).
    """
    for element in array_elements(paths[0], "images"):
        try:
            if element["split"] not in splits:
                continue
            yield {
                "image_id": int(element["cocoid"]),
                "image": f"{element['filepath']}/{element['filename']}",
                "captions": [str(sentence["raw"]).strip() for sentence in element["sentences"]],
            }
        except (KeyError, TypeError, ValueError):
            yield {FAULT: "the image has not split, cocoid, filepath, filename and sentences"}


def nocaps_rows(paths: Sequence[str], folder: str) -> Iterator[Row]:
    """Yields the images of a NoCaps file.

    Args:
      paths: of that file.
      folder: name of the folder of its images.

    Yields:
      image_id, image, domain ("in-domain", "near-domain" or "out-domain"; empty where the file
      does not tell) and captions (none in the test split).
    """
    captions: dict[int, list[str]] = {}
    if folder == "val":  # 45,000 short texts
        for element in array_elements(paths[0], "annotations"):
            captions.setdefault(element["image_id"], []).append(str(element["caption"]).strip())
    for element in array_elements(paths[0], "images"):
        try:
            yield {
                "image_id": int(element["id"]),
                "image": f"{folder}/{element['file_name']}",
                "domain": str(element.get("domain", "")),
                "captions": captions.get(element["id"], []),
            }
        except (KeyError, TypeError, ValueError):
            yield {FAULT: "the image has not id and file_name"}


def own_caption_rows(paths: Sequence[str], folder: str) -> Iterator[Row]:
    """Yields the lines of a file like {"image": "a/1.jpg", "caption": "a red house"}.

    Args:
      paths: of that file.
      folder: name of the folder that image paths start from.

    Yields:
      image and captions; a line may have one `caption`, or several in a list.
    """
    for row in line_objects(paths[0]):
        yield row if FAULT in row else _own(row, folder)


def texts_of(value: Any) -> list[str] | None:
    """One text or a list of texts as a list; None for anything else."""
    values = value if isinstance(value, list) else [value]
    return values if values and all(isinstance(text, str) for text in values) else None


def _own(row: dict[str, Any], folder: str) -> Row:
    captions = texts_of(row.get("caption", row.get("captions")))
    if not isinstance(row.get("image"), str) or captions is None:
        return {FAULT: "the line has not image and caption"}
    return {"image": f"{folder}/{row['image']}", "captions": captions}
