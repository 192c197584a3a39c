"""Captions against references as COCO counts them, without Java, and how varied they are."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.optional import require
from simvlm_jax.evaluation.pairing import References, paired, plain
from simvlm_jax.evaluation.ptb import words

LONGEST_CAPTION = 1000  # words; ROUGE-L's time grows with the product of two lengths


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
      UserError: See `paired`; no reference has a word; a caption has over 1,000; or
        pycocoevalcap is absent.
    """
    return _cider(*cut(predictions, references))


def bleu_scores(predictions: Sequence[str], references: References) -> list[float]:
    """Corpus BLEU-1 to BLEU-4 as COCO counts them (Papineni et al. 2002), by pycocoevalcap.

    Of several references the one closest in length sets the brevity penalty. Nothing is smoothed:
    one set without a common 4-gram has BLEU-4 near 0. Example: "a b c d" for ["a b c e"] gives
    3/4, sqrt(3/4 * 2/3) and so on.

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      4 numbers in [0, 1]; papers print 100 times them. sacreBLEU's are other numbers.

    Raises:
      UserError: See `cider_scores`.
    """
    return _bleu(*cut(predictions, references))


def rouge_scores(predictions: Sequence[str], references: References) -> np.ndarray:
    """ROUGE-L of each caption as COCO counts it (Lin 2004; beta 1.2), by pycocoevalcap.

    The best precision and the best recall over the references are joined, even where they are not
    of the same one. Example: "a c" for ["a b c"] has precision 1 and recall 2/3, which gives
    2.44 * 2/3 / (2/3 + 1.44) = 0.772.

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      float64 [N] in [0, 1].

    Raises:
      UserError: See `cider_scores`.
    """
    return _rouge(*cut(predictions, references))


Cut = dict[int, list[str]]


def cut(predictions: Sequence[str], references: References) -> tuple[Cut, Cut]:
    """What pycocoevalcap reads: of references and predictions, number to texts of cut words.

    Example: (["A dog."], ["the dog's"]) gives ({0: ["the dog 's"]}, {0: ["a dog"]}).

    Raises:
      UserError: See `cider_scores`.
    """
    pairs = paired(predictions, references)
    wanted = {n: [_words(text, n) for text in texts] for n, (_, texts) in enumerate(pairs)}
    if not any(any(texts) for texts in wanted.values()):
        raise UserError("No reference holds a word, so there is nothing to count; check them.")
    return wanted, {n: [_words(prediction, n)] for n, (prediction, _) in enumerate(pairs)}


def _words(text: str, number: int) -> str:
    found = words(text)
    if len(found) > LONGEST_CAPTION:
        raise UserError(
            f"A caption of example {number} has {len(found)} words, and {LONGEST_CAPTION} are the "
            "most that can be scored; shorten it."
        )
    return " ".join(found)


def _cider(wanted: Cut, given: Cut) -> np.ndarray:
    module = require("pycocoevalcap.cider.cider", "pycocoevalcap")
    return np.asarray(module.Cider().compute_score(wanted, given)[1], np.float64)


def _bleu(wanted: Cut, given: Cut) -> list[float]:
    module = require("pycocoevalcap.bleu.bleu", "pycocoevalcap")
    return [float(score) for score in module.Bleu(4).compute_score(wanted, given, verbose=0)[0]]


def _rouge(wanted: Cut, given: Cut) -> np.ndarray:
    module = require("pycocoevalcap.rouge.rouge", "pycocoevalcap")
    return np.asarray(module.Rouge().compute_score(wanted, given)[1], np.float64)


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


def most_frequent_share(predictions: Sequence[str]) -> float:
    """Share of the predictions that are the commonest one: 1 if the model always says the same.

    Example: ["a dog", "A  dog", "a cat"] gives 2/3, as case and blanks do not count.
    """
    counts = Counter(plain(prediction).lower() for prediction in predictions)
    if not counts:
        raise UserError("There are 0 predictions to score; give at least one.")
    return max(counts.values()) / len(predictions)


def sameness_warning(predictions: Sequence[str], references: References) -> str:
    """A sentence for a person if a model seems to say the same whatever it sees, else "".

    It speaks where one prediction is more than half of all and at least twice as common as the
    commonest first reference, so that a data set with one frequent answer does not alarm.

    Example: ten times "a dog" for ten different references gives a sentence; so does not "yes"
    six times of ten where the references say "yes" five times.
    """
    firsts = [texts[0] for _, texts in paired(predictions, references)]
    share = most_frequent_share(predictions)
    if len(predictions) < 3 or share <= 0.5 or share < 2 * most_frequent_share(firsts):
        return ""
    lowered = (plain(prediction).lower() for prediction in predictions)
    said = most_frequent_caption(lowered)
    return (
        f"{share:.0%} of {len(predictions)} predictions are {said[:80]!r}: the model may ignore "
        "its image; compare the shuffled control, and finetune with a lower learning rate or for "
        "fewer steps."
    )


def score_captions(predictions: Sequence[str], references: References) -> dict[str, float]:
    """All caption metrics of one split that need no Java (see `java_captions` for the others).

    Example: predictions ["red heart", "cat"] for ["red heart", "dog"] give exact_match 0.5,
    distinct_ratio 1.0, and cider 2.5 (5 for the equal pair of words, 0 for the other).

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      `exact_match` in [0, 1]; `cider` (see `cider_scores`) and `cider_maximum`, what repeating
      each example's first reference would score; `bleu_1` to `bleu_4` and `rouge_l` in [0, 1];
      `distinct_ratio` and `most_frequent_share` in (0, 1].

    Raises:
      UserError: See `cider_scores`.
    """
    wanted, given = cut(predictions, references)
    perfect = {number: texts[:1] for number, texts in wanted.items()}
    bleu = {f"bleu_{n}": score for n, score in enumerate(_bleu(wanted, given), 1)}
    return {
        "exact_match": float(np.mean(matches(predictions, references))),
        "cider": float(_cider(wanted, given).mean()),
        "cider_maximum": float(_cider(wanted, perfect).mean()),
        **bleu,
        "rouge_l": float(_rouge(wanted, given).mean()),
        "distinct_ratio": distinct_ratio(predictions),
        "most_frequent_share": most_frequent_share(predictions),
    }
