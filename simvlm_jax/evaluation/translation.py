"""Translations against references: BLEU, chrF and exact match."""

from collections.abc import Sequence

import numpy as np

from simvlm_jax.evaluation.optional import require
from simvlm_jax.evaluation.pairing import References, paired, plain


def score_translations(predictions: Sequence[str], references: References) -> dict[str, float]:
    """All translation metrics of one split.

    Example: ["rotes Herz", "Hund"] for ["rotes Herz", "Katze"] has exact_match 0.5. Case counts:
    German nouns are capitalised.

    Args:
      predictions: N translations.
      references: N references, or lists of them, equally long.

    Returns:
      `chrf`, corpus chrF2 in [0, 100] by sacrebleu (Popović 2015; settings: `chrf_signature`);
      `bleu`, corpus BLEU in [0, 100] by sacrebleu (Post 2018; settings: `bleu_signature`), which
      is noise where texts have under four words; and `exact_match` in [0, 1], in which only
      Unicode form and white space are forgiven.

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
        "bleu": _score("BLEU", given, wanted)[0],
        "chrf": _score("CHRF", given, wanted)[0],
        "exact_match": float(np.mean(matches)),
    }


def chrf_signature(reference_count: int = 1) -> str:
    """The settings and version that a reader needs in order to repeat a chrF score."""
    return _score("CHRF", ["a"], [["a"] * reference_count])[1]


def bleu_signature(reference_count: int = 1) -> str:
    """The settings of a BLEU score, its tokenisation ("tok:13a") and version among them."""
    return _score("BLEU", ["a"], [["a"] * reference_count])[1]


def _score(name: str, given: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[float, str]:
    """The corpus's score in [0, 100] and its signature."""
    metric = getattr(require("sacrebleu.metrics", "sacrebleu"), name)()
    most = max(len(texts) for texts in wanted)
    # sacrebleu reads one stream per reference number; None marks a missing one.
    streams = [
        [texts[number] if number < len(texts) else None for texts in wanted]
        for number in range(most)
    ]
    score = metric.corpus_score(list(given), streams).score
    return float(score), str(metric.get_signature())
