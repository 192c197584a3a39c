"""A made-up data folder for tests: a few dozen drawings, captions, documents and a vocabulary."""

import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from array_record.python import array_record_module
from PIL import Image, ImageDraw

from simvlm_jax.data.paths import VOCABULARY_NAME, shard_name
from simvlm_jax.data.vocabulary import train_vocabulary

COLOURS = {
    "red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "black": "schwarz",
    "orange": "orange", "violet": "violett",
}  # fmt: skip
SHAPES = {"circle": "Kreis", "square": "Quadrat", "cross": "Kreuz"}
PLACES = {"left": "links", "right": "rechts"}
FILLERS = (
    "a the of picture small beside above under behind never always paper window sometimes "
    "beautiful evening garden without yesterday everything mountain"
).split()
VOCABULARY_PIECES = 200
IMAGE_PIXELS = 24
OPENMOJI_COUNTS = {"train": 29, "variants": 7, "concepts": 6}
DOCUMENT_COUNTS = {"train": 11, "validation": 4}


def make_data(folder: str | Path) -> Path:
    """Writes a small data folder in the layout of the prepared one; always the same bytes.

    Drawings are coloured shapes at the left or right of a transparent 24 x 24 square, and each has
    its own caption ("red circle: left"), so a tiny model can learn them. Set SIMVLM_DATA_DIR to
    the folder to read it.

    Args:
      folder: made if it is not there.

    Returns:
      The folder: openmoji/ (train 29, variants 7, concepts 6 records), documents/ (train 11,
      validation 4) and a vocabulary of 200 pieces.
    """
    folder = Path(folder)
    drawings = iter(_drawings())
    for split, count in OPENMOJI_COUNTS.items():
        write_records(folder / "openmoji", split, itertools.islice(drawings, count))
    documents = iter(_documents())
    for split, count in DOCUMENT_COUNTS.items():
        write_records(folder / "documents", split, itertools.islice(documents, count))
    texts = [record[name] for record in _drawings() for name in ("caption/en", "caption/de")]
    texts += [record["text"] for record in _documents()]
    train_vocabulary(texts, folder / VOCABULARY_NAME, VOCABULARY_PIECES)
    return folder


def write_records(
    folder: Path, split: str, records: Iterable[Mapping[str, int | str | bytes]], shards: int = 2
) -> None:
    """Writes records as ArrayRecord shards of serialized tf.train.Examples.

    Args:
      folder: made if it is not there.
      split: the split's name.
      records: fields by name; integers become int64 features, text and bytes become bytes.
      shards: number of files; record i goes to file i % shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / shard_name(split, index, shards)) for index in range(shards)]
    writers = [array_record_module.ArrayRecordWriter(name, "group_size:1") for name in names]
    for index, record in enumerate(records):
        writers[index % shards].write(_example(record).SerializeToString())
    for writer in writers:
        writer.close()


def draw(colour: str, shape: str, place: str, pixels: int = IMAGE_PIXELS) -> bytes:
    """Returns a PNG with transparency: one shape in the left or right half."""
    image = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
    left = 1 if place == "left" else pixels // 2
    top, size = pixels // 4, pixels // 2 - 2
    box = (left, top, left + size, top + size)
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.line(box, fill=colour, width=3)
        pen.line((left, top + size, left + size, top), fill=colour, width=3)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _drawings() -> list[dict[str, int | str | bytes]]:
    records = []
    for number, (colour, shape, place) in enumerate(itertools.product(COLOURS, SHAPES, PLACES)):
        records.append(
            {
                "id": 1000 + number,
                "image/encoded": draw(colour, shape, place),
                "caption/en": f"{colour} {shape}: {place}",
                "caption/de": f"{SHAPES[shape]} {COLOURS[colour]}: {PLACES[place]}",
                "group": "Symbols",
                "codepoints": f"{0x1F300 + number:X}",
                "concept": f"{colour} {shape}",
            }
        )
    order = np.random.default_rng(0).permutation(len(records))
    return [records[index] for index in order]


def _documents() -> list[dict[str, int | str]]:
    words = [*COLOURS, *SHAPES, *PLACES, *FILLERS]
    random = np.random.default_rng(1)
    count = sum(DOCUMENT_COUNTS.values())
    lengths = random.integers(3, 40, size=count)
    return [
        {"id": 9000 + number, "text": " ".join(random.choice(words, size=length))}
        for number, length in enumerate(lengths)
    ]


def _example(record: Mapping[str, int | str | bytes]) -> tf.train.Example:
    features = {}
    for name, value in record.items():
        if isinstance(value, int):
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            data = value.encode() if isinstance(value, str) else value
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature=features))
