"""Opens SentencePiece models that anybody may have written; it imports no TensorFlow."""

from pathlib import Path

import sentencepiece

from simvlm_jax.errors import UserError

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
