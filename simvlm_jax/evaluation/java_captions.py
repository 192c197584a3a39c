"""METEOR and SPICE: caption metrics that exist as Java programs only, run by pycocoevalcap."""

import contextlib
import importlib.util
import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.captions import Cut, cut
from simvlm_jax.evaluation.optional import require
from simvlm_jax.evaluation.pairing import References

NO_JAVA = "{} is a Java program and there is no java here: install a Java runtime to have it."
SPICE_PARSER = "spice/lib/stanford-corenlp-3.6.0.jar"


def why_no_meteor() -> str:
    """One sentence that says why METEOR cannot be had here; "" if it can."""
    if not shutil.which("java"):
        return NO_JAVA.format("METEOR")
    found = importlib.util.find_spec("pycocoevalcap")
    folder = (found.submodule_search_locations or [""])[0] if found else ""
    if quote(folder) == folder:
        return ""
    return (
        f"METEOR's program finds its data in no folder whose path has a blank or another special "
        f"sign, such as {folder}: install pycocoevalcap elsewhere."
    )


def why_no_spice() -> str:
    """One sentence that says why SPICE cannot be had here; "" if it can.

    Its parser is no part of any package: pycocoevalcap would download it unasked, by plain http,
    when the scorer is made. So SPICE runs only where somebody has fetched it.
    """
    if not shutil.which("java"):
        return NO_JAVA.format("SPICE")
    found = importlib.util.find_spec("pycocoevalcap")
    folders = (found.submodule_search_locations if found else None) or []
    if any((Path(folder) / SPICE_PARSER).is_file() for folder in folders):
        return ""
    return (
        "SPICE needs a parser that has to be downloaded once: run "
        "python -m pycocoevalcap.spice.get_stanford_models where there is a network."
    )


def meteor_scores(predictions: Sequence[str], references: References) -> tuple[float, np.ndarray]:
    """METEOR 1.5 for English (Denkowski and Lavie 2014), as COCO runs it.

    Example: "a dog" for "a dog" gets 1.

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      The score of the whole set, which is no mean, and float64 [N]; in [0, 1].

    Raises:
      UserError: See `captions.cider_scores`; or METEOR cannot be had or fails.
    """
    if reason := why_no_meteor():
        raise UserError(reason)
    module = require("pycocoevalcap.meteor.meteor", "pycocoevalcap")
    score, each = _run("METEOR", module.Meteor, predictions, references)
    return float(score), np.asarray(each, np.float64)


def spice_scores(predictions: Sequence[str], references: References) -> tuple[float, np.ndarray]:
    """SPICE (Anderson et al. 2016), as COCO runs it.

    Args:
      predictions: N captions.
      references: N references, or lists of them.

    Returns:
      The mean, and the F-score of each caption, float64 [N], NaN where it has none; in [0, 1].

    Raises:
      UserError: See `captions.cider_scores`; or SPICE cannot be had or fails.
    """
    if reason := why_no_spice():
        raise UserError(reason)
    module = require("pycocoevalcap.spice.spice", "pycocoevalcap")
    score, each = _run("SPICE", module.Spice, predictions, references)
    return float(score), np.asarray([scores["All"]["f"] for scores in each], np.float64)


def score_with_java(
    predictions: Sequence[str], references: References
) -> tuple[dict[str, float], list[str]]:
    """What Java can add to `captions.score_captions`, and a sentence for what it cannot.

    Returns:
      Those of `meteor` and `spice` that can be had, in [0, 1]; and a sentence for each other.

    Raises:
      UserError: See `captions.cider_scores`; or a program fails.
    """
    metrics, sentences = {}, []
    for name, reason, scores in (
        ("meteor", why_no_meteor(), meteor_scores),
        ("spice", why_no_spice(), spice_scores),
    ):
        if reason:
            sentences.append(reason)
        else:
            metrics[name] = scores(predictions, references)[0]
    return metrics, sentences


def _run(
    name: str, scorer: Callable, predictions: Sequence[str], references: References
) -> tuple[float, list]:
    wanted, given = (_encodable(texts) for texts in cut(predictions, references))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            program = scorer()
            program.lock = NeverLocked()
            return program.compute_score(wanted, given)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The Java program of {name} failed ({reason}); try `java -version`, and a Java 8 "
            "runtime with 2 GB of memory for METEOR and 8 GB for SPICE."
        ) from None


class NeverLocked:
    """In place of the lock that METEOR's class keeps for ever once its program fails."""

    def acquire(self) -> None:
        """Does not wait."""

    def release(self) -> None:
        """Has nothing to undo."""


def _encodable(captions: Cut) -> Cut:
    """Half characters, which no encoding has, become question marks."""
    return {n: [t.encode("utf-8", "replace").decode() for t in c] for n, c in captions.items()}
