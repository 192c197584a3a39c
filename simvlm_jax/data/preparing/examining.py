"""The first pass over image-text pairs: what each record is, in 44 bytes, or why it is refused."""

import dataclasses
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from simvlm_jax.data import pieces, pillow_images
from simvlm_jax.data.preparing import examples
from simvlm_jax.data.preparing.inputs import Input
from simvlm_jax.data.preparing.work import Job
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.errors import UserError

PART = 256  # records whose findings are one file: what a killed process loses at most
READ_AT_ONCE = 16
FINDING = np.dtype(
    [
        ("image", "<u8"),  # hash of the encoded bytes
        ("text", "<u8"),  # hash of the caption
        ("width", "<i4"),  # pixels, upright
        ("height", "<i4"),
        ("bytes", "<i4"),  # of the encoded image
        ("characters", "<i4"),  # of the caption
        ("tokens", "<i4"),  # of the caption, -1 without a vocabulary
        ("outcome", "<i2"),  # one of OUTCOMES
        ("cause", "<i2"),  # index into the part's causes, -1 for none
        ("format", "S4"),  # first letters of Pillow's name
    ]
)
KEPT, REFUSED, FILTERED, DUPLICATE = range(4)
OUTCOMES = ("kept", "refused", "filtered", "duplicate")
LONGEST_CAUSE = 120


@dataclasses.dataclass(frozen=True)
class Filters:
    """What a pair must be to be kept.

    Attributes:
      min_size: shorter side, pixels.
      max_aspect: longer side by shorter side.
      min_caption: characters.
      max_caption: characters.
    """

    min_size: int = 1
    max_aspect: float = 20.0
    min_caption: int = 1
    max_caption: int = 10_000

    def cause(self, width: int, height: int, characters: int) -> str:
        """Returns why a pair is left out, or ""."""
        shorter, longer = sorted((width, height))
        if shorter < self.min_size:
            return f"the shorter side is below {self.min_size} pixels"
        if longer > self.max_aspect * shorter:
            return f"the aspect is above {self.max_aspect:g}"
        if characters < self.min_caption:
            return f"the caption is below {self.min_caption} characters"
        if characters > self.max_caption:
            return f"the caption is above {self.max_caption} characters"
        return ""


class Pair:
    """What one record holds, checked.

    Attributes:
      image: encoded bytes.
      caption: without blanks at its ends.
      format: Pillow's name.
      size: (width, height), pixels.
    """

    def __init__(self, example: tf.train.Example, image_name: str, text_name: str):
        """Reads and decodes a record.

        Args:
          example: the record.
          image_name: its field of the encoded image.
          text_name: its field of the caption.

        Raises:
          Refused: it cannot be used.
        """
        self.caption = or_refuse(examples.text(example, text_name))
        self.image = or_refuse(examples.one_value(example, image_name))
        if not self.image:
            raise Refused(f"{image_name} is empty")
        try:
            self.picture = pillow_images.decode(self.image)
        except UserError as error:
            raise Refused(image_cause(error)) from error
        self.size = self.picture.size
        with Image.open(io.BytesIO(self.image)) as opened:
            self.format = opened.format or ""


class Refused(Exception):
    """Says in a few words why a record cannot be used."""


class Examination(Job):
    """Finds what each record of an input is."""

    name = "examining"

    def __init__(self, source: Input, filters: Filters, vocabulary: str, count: int):
        """Describes the work.

        Args:
          source: what to read.
          filters: what is kept.
          vocabulary: path of the SentencePiece model that counts tokens, or "".
          count: records of the input.
        """
        self._source, self._filters = source, filters
        self._vocabulary, self._count = vocabulary, count
        self._records: Records | None = None
        self._processor = None

    def parts(self) -> list[int]:
        """Returns how many records each part has."""
        return [min(PART, self._count - start) for start in range(0, self._count, PART)]

    def open(self) -> None:
        """Opens the input and the vocabulary."""
        self._records = self._source.open()
        if len(self._records) != self._count:
            raise UserError(f"{self._source.path} changes while it is read; wait until it is done.")
        if self._vocabulary:
            self._processor = open_vocabulary(self._vocabulary)

    def run(self, part: int) -> bytes:
        """Examines PART records: findings, and the causes that they point to."""
        start = part * PART
        indices = range(start, min(start + PART, self._count))
        found = np.zeros(len(indices), FINDING)
        causes: list[str] = []
        for first in range(0, len(indices), READ_AT_ONCE):
            batch = indices[first : first + READ_AT_ONCE]
            for slot, record in enumerate(self._records.read(batch), first):
                outcome, cause = self._examine(record, found[slot : slot + 1])
                if cause and cause not in causes:
                    causes.append(cause)
                found["outcome"][slot] = outcome
                found["cause"][slot] = causes.index(cause) if cause else -1
        return pack(found, causes)

    def _examine(self, record: bytes | Unreadable, finding: np.ndarray) -> tuple[int, str]:
        finding["tokens"] = -1
        example = examples.parse(record)
        if isinstance(example, Unreadable):
            return REFUSED, example.cause
        try:
            pair = Pair(example, self._source.image_name, self._source.text_name)
            for name in self._source.keep:
                or_refuse(examples.text(example, name))
        except Refused as refused:
            return REFUSED, str(refused)
        finding["image"] = short_hash(pair.image)
        finding["text"] = short_hash(pair.caption.encode())
        finding["width"], finding["height"] = pair.size
        finding["bytes"] = min(len(pair.image), np.iinfo(np.int32).max)
        finding["characters"] = len(pair.caption)
        finding["format"] = pair.format.encode()[:4]
        cause = self._filters.cause(*pair.size, len(pair.caption))
        if not cause and self._processor:
            finding["tokens"] = len(self._processor.encode(pair.caption))
        return (FILTERED, cause) if cause else (KEPT, "")


def short_hash(content: bytes) -> int:
    """Returns 64 bits of a hash; among 10 million contents, two meet by chance once in 370,000."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def pack(found: np.ndarray, causes: list[str]) -> bytes:
    """Serializes findings and causes, with no pickle in it."""
    content = io.BytesIO()
    np.savez(content, found=found, causes=np.array(causes, "U"))
    return content.getvalue()


def unpack(content: bytes) -> tuple[np.ndarray, list[str]]:
    """Reads what `pack` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["found"], arrays["causes"].tolist()


def image_cause(error: UserError) -> str:
    """Returns why an image cannot be decoded, the same words for one trouble."""
    words = str(error)
    if "is too large" in words or "decompression bomb" in words:
        return f"the image has more than {pillow_images.MAX_PIXELS} pixels (a bomb?)"
    words = words.partition("cannot be read as an image: ")[2] or words
    words = re.sub(r"0x[0-9a-f]+|b'.*'|\d+", "N", words).rstrip(".")
    return f"the image cannot be decoded: {words[:LONGEST_CAUSE]}"


def open_vocabulary(path: str):
    """Opens a SentencePiece model.

    Raises:
      UserError: there is none at the path, or it is none.
    """
    try:
        pieces.check_size(path)
        return pieces.open_pieces(Path(path).read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path} is no SentencePiece vocabulary that can be opened.") from error


def or_refuse(found: bytes | str | Unreadable) -> bytes | str:
    """Returns what a field holds.

    Raises:
      Refused: it is Unreadable.
    """
    if isinstance(found, Unreadable):
        raise Refused(found.cause)
    return found
