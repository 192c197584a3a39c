"""What every scorer first asks of its predictions and references."""

import unicodedata
from collections.abc import Iterable, Sequence

from simvlm_jax.errors import UserError

References = Sequence[str | Sequence[str]]


def paired(predictions: Sequence[str], references: References) -> list[tuple[str, list[str]]]:
    """Puts every prediction beside the list of its references.

    Args:
      predictions: One text per example.
      references: Per example one text or several.

    Returns:
      `(prediction, references)` per example.

    Raises:
      UserError: There are no examples, the counts differ, an example has no reference, or
        something is no text.
    """
    if not predictions:
        raise UserError("There are 0 predictions to score; give at least one.")
    if len(predictions) != len(references):
        raise UserError(
            f"There are {len(predictions)} predictions for {len(references)} references; "
            "give one reference, or one list of them, per prediction."
        )
    pairs = []
    for number, (prediction, wanted) in enumerate(zip(predictions, references, strict=True)):
        one = isinstance(wanted, str) or not isinstance(wanted, Iterable)
        texts = [wanted] if one else list(wanted)
        if not texts:
            raise UserError(f"Example {number} has no reference; give at least one.")
        for text in (prediction, *texts):
            if not isinstance(text, str):
                raise UserError(f"Example {number} holds {text!r:.80}, which is no text; give one.")
        pairs.append((prediction, texts))
    return pairs


def plain(text: str) -> str:
    """One Unicode form (NFC) and single spaces, so that only visible differences count."""
    return " ".join(unicodedata.normalize("NFC", text).split())
