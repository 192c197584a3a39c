"""Captions against references: exact match, CIDEr and how varied the captions are."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.optional import require
from simvlm_jax.evaluation.pairing import References, paired, plain

# COCO's caption evaluation drops these after tokenising; other signs (#, *, &) are words.
DROPPED_MARKS = frozenset(".?!,:;-–—…'\"`‘’“”„«»()[]{}")


def words(text: str) -> list[str]:
    """Lower-cased words, every other visible sign being a word of its own.

    This stands in for the Java tokenizer of COCO's evaluation: runs of letters and digits stay
    together and the punctuation that COCO drops is dropped. Unlike that tokenizer, "don't" is
    "don", "t". Example: "Keycap: #, dark-red" gives "keycap", "#", "dark", "red".
    """
    pieces = re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFC", text).lower())
    return [piece for piece in pieces if piece not in DROPPED_MARKS]


def matches(predictions: Sequence[str], references: References) -> list[bool]:
    """Whether each prediction equals one of its references but for case and white space.

    Punctuation counts. Example: "Red  Heart" matches "red heart"; "red heart!" does not.

    Raises:
      UserError: See `paired`.
    """
    return [
        plain(prediction).lower() in {plain(text).lower() for text in texts}
        for prediction, texts in paired(predictions, references)
    ]


def cider_scores(predictions: Sequence[str], references: References) -> np.ndarray:
    """CIDEr-D of each caption (Vedantam et al., arXiv 1411.5726), by pycocoevalcap.

    Document frequencies come from these very references: scores depend on the whole set, and a
    set of one example scores 0. The unit is pycocoevalcap's, at most 10; papers print 100 times
    it. It averages over word n-grams of length 1 to 4, those a caption is too short for counting
    0, so that equal captions of one word reach only 2.5, of two 5, of three 7.5, of four 10.

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      float64 [N].

    Raises:
      UserError: See `paired`; no reference has a word; or pycocoevalcap is absent.
    """
    pairs = paired(predictions, references)
    wanted = {n: [" ".join(words(text)) for text in texts] for n, (_, texts) in enumerate(pairs)}
    if not any(any(texts) for texts in wanted.values()):
        raise UserError("No reference holds a word, so CIDEr has nothing to count; check them.")
    given = {n: [" ".join(words(prediction))] for n, (prediction, _) in enumerate(pairs)}
    module = require("pycocoevalcap.cider.cider", "pycocoevalcap")
    _, scores = module.Cider().compute_score(wanted, given)
    return np.asarray(scores, np.float64)


def distinct_ratio(predictions: Sequence[str]) -> float:
    """Share of captions that differ: 1 if all do, 1 / N if the model always says the same."""
    if not predictions:
        raise UserError("There are 0 predictions to score; give at least one.")
    return len({plain(prediction).lower() for prediction in predictions}) / len(predictions)


def most_frequent_caption(captions: Iterable[str]) -> str:
    """The caption to beat: the commonest one, the alphabetically first among equals.

    Args:
      captions: Training captions.

    Raises:
      UserError: There are none.
    """
    counts = Counter(captions)
    if not counts:
        raise UserError("There are 0 captions to find the most frequent of; give at least one.")
    return min(counts, key=lambda caption: (-counts[caption], caption))


def score_captions(predictions: Sequence[str], references: References) -> dict[str, float]:
    """All caption metrics of one split.

    Example: predictions ["red heart", "cat"] for ["red heart", "dog"] give exact_match 0.5,
    distinct_ratio 1.0, and cider 2.5 (5 for the equal pair of words, 0 for the other).

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      `exact_match` in [0, 1]; `cider` (see `cider_scores`) and `cider_maximum`, what repeating
      each example's first reference would score; `distinct_ratio` in (0, 1].

    Raises:
      UserError: See `cider_scores`.
    """
    perfect = [texts[0] for _, texts in paired(predictions, references)]
    return {
        "exact_match": float(np.mean(matches(predictions, references))),
        "cider": float(cider_scores(predictions, references).mean()),
        "cider_maximum": float(cider_scores(perfect, references).mean()),
        "distinct_ratio": distinct_ratio(predictions),
    }
