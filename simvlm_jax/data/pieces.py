"""Opens SentencePiece models that anybody may have written; it imports no TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import sentencepiece

from simvlm_jax.errors import UserError

WORD_START = "\u2581"  # SentencePiece's mark of the blank before a word
LARGEST = 64 << 20  # bytes of a model; one of 256,000 pieces has about 4 MiB


def open_pieces(content: bytes, path: str | Path) -> sentencepiece.SentencePieceProcessor:
    """Opens a model, and makes sure that each of its pieces can be written.

    Args:
      content: the model.
      path: where it comes from, for the sentence.

    Raises:
      UserError: it is none, or one of its pieces is no text.
    """
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
        pieces = processor.IdToPiece(list(range(processor.GetPieceSize())))
    except (RuntimeError, UnicodeDecodeError):  # else decoding would fail at the first such piece
        pieces = []
    if not pieces:
        raise UserError(f"{path} is not a SentencePiece model: bring back the right one.")
    return processor


def check_size(path: str | Path) -> None:
    """Refuses a file that is larger than any vocabulary.

    Raises:
      UserError: it is.
      OSError: it cannot be looked at.
    """
    size = Path(path).stat().st_size
    if size > LARGEST:
        raise UserError(
            f"{path} has {size} bytes, and a vocabulary {LARGEST} at most: bring back the one."
        )


class Word(NamedTuple):
    """A word of a text.

    Attributes:
      text: as it is written.
      positions: of its tokens, rising.
    """

    text: str
    positions: tuple[int, ...]


def words_of(
    ids: Sequence[int], vocabulary: sentencepiece.SentencePieceProcessor, eos_id: int = 1
) -> list[Word]:
    """Puts the pieces of each word together.

    A word begins where a blank does. What is no text is in none: the end of sequence and all after
    it, padding and sentinels. A language that writes no blanks makes one long word.

    Example: the pieces "\u2581a", "\u2581pic", "ture", end, 0 make the words ("a", (0,)) and
    ("picture", (1, 2)).

    Args:
      ids: tokens of one text.
      vocabulary: its pieces; ids from their number on are sentinels.
      eos_id: ends the text.

    Returns:
      The words in order.
    """
    ids = list(ids)
    end = ids.index(eos_id) if eos_id in ids else len(ids)
    groups: list[list[int]] = []
    for position, token in enumerate(ids[:end]):
        if not 0 < token < vocabulary.GetPieceSize():
            continue
        if vocabulary.IdToPiece(token).startswith(WORD_START) or not groups:
            groups.append([])
        groups[-1].append(position)
    words = [Word(vocabulary.DecodeIds([ids[i] for i in group]), tuple(group)) for group in groups]
    return [word for word in words if word.text.strip()]
