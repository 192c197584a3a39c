"""Translations against references: chrF and exact match."""

from collections.abc import Sequence

import numpy as np

from simvlm_jax.evaluation.optional import require
from simvlm_jax.evaluation.pairing import References, paired, plain


def score_translations(predictions: Sequence[str], references: References) -> dict[str, float]:
    """Both translation metrics of one split.

    Example: ["rotes Herz", "Hund"] for ["rotes Herz", "Katze"] has exact_match 0.5. Case counts:
    German nouns are capitalised.

    Args:
      predictions: N translations.
      references: N references, or lists of them, equally long.

    Returns:
      `chrf`, corpus chrF2 in [0, 100] by sacrebleu (Popović 2015; settings: `chrf_signature`),
      and `exact_match` in [0, 1], in which only Unicode form and white space are forgiven.

    Raises:
      UserError: See `paired`; or sacrebleu is absent.
    """
    pairs = [
        (plain(prediction), [plain(text) for text in texts])
        for prediction, texts in paired(predictions, references)
    ]
    given, wanted = zip(*pairs, strict=True)
    matches = [prediction in texts for prediction, texts in pairs]
    return {
        "chrf": float(_chrf(given, wanted)[0]),
        "exact_match": float(np.mean(matches)),
    }


def chrf_signature(reference_count: int = 1) -> str:
    """The settings and version that a reader needs in order to repeat a chrF score."""
    return _chrf(["a"], [["a"] * reference_count])[1]


def _chrf(given: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[float, str]:
    metric = require("sacrebleu.metrics", "sacrebleu").CHRF()
    most = max(len(texts) for texts in wanted)
    # sacrebleu reads one stream per reference number; None marks a missing one.
    streams = [
        [texts[number] if number < len(texts) else None for texts in wanted]
        for number in range(most)
    ]
    score = metric.corpus_score(list(given), streams).score
    return score, str(metric.get_signature())
