"""Between the passes: which records are kept, and in which split, by 8-byte hashes."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from simvlm_jax.data.preparing import examining
from simvlm_jax.data.preparing.examining import DUPLICATE, FINDING, KEPT, OUTCOMES
from simvlm_jax.data.preparing.work import read_result

DUPLICATES = ("keep", "image", "pair")
VALIDATION = "validation"


@dataclasses.dataclass
class Findings:
    """All findings of an input, 44 bytes a record.

    Attributes:
      rows: [n] of type FINDING; `cause` points into `causes`.
      causes: why records are not kept.
    """

    rows: np.ndarray
    causes: list[str]

    def counts(self) -> dict[str, int]:
        """Returns how many records had each outcome."""
        found = np.bincount(self.rows["outcome"], minlength=len(OUTCOMES))
        return {name: int(count) for name, count in zip(OUTCOMES, found, strict=True)}

    def counts_by_cause(self) -> dict[str, int]:
        """Returns how many records each cause has cost, the most frequent first."""
        used = self.rows["cause"][self.rows["cause"] >= 0]
        found = Counter(dict(enumerate(np.bincount(used).tolist())))
        return {self.causes[number]: count for number, count in found.most_common() if count}


def gather(folder: Path, count: int) -> Findings:
    """Joins the findings of all parts of an examination."""
    rows = np.zeros(count, FINDING)
    numbers: dict[str, int] = {}
    for part, start in enumerate(range(0, count, examining.PART)):
        found, causes = examining.unpack(read_result(folder, part))
        lookup = np.array([numbers.setdefault(c, len(numbers)) for c in causes] + [-1], "<i2")
        found["cause"] = lookup[found["cause"]]  # -1 is the last of them
        rows[start : start + len(found)] = found
    return Findings(rows, list(numbers))


def mark_duplicates(findings: Findings, duplicates: str) -> None:
    """Leaves of equal records only the first, among those that are kept so far.

    Args:
      findings: changed in place.
      duplicates: "keep" changes nothing; equal "image" bytes; or image and caption, "pair".
    """
    if duplicates == "keep":
        return
    rows = findings.rows
    kept = np.flatnonzero(rows["outcome"] == KEPT)
    hashes = rows["image"][kept]
    if duplicates == "pair":
        hashes = mixed(hashes ^ mixed(rows["text"][kept], 1), 2)
    _, first = np.unique(hashes, return_index=True)
    others = np.ones(len(kept), bool)
    others[first] = False
    rows["outcome"][kept[others]] = DUPLICATE
    rows["cause"][kept[others]] = len(findings.causes)
    findings.causes.append(f"the {duplicates} is that of an earlier record")


def split(findings: Findings, name: str, share: float, seed: int) -> dict[str, np.ndarray]:
    """Gives the kept records to splits by their images, so that equal images stay together.

    Args:
      findings: of all records.
      name: the main split.
      share: of all images, how many go to the split "validation".
      seed: another one gives another choice.

    Returns:
      Split to int64 indices, rising.
    """
    kept = np.flatnonzero(findings.rows["outcome"] == KEPT)
    if not share:
        return {name: kept}
    aside = is_aside(findings.rows["image"][kept], share, seed)
    return {name: kept[~aside], VALIDATION: kept[aside]}


def is_aside(hashes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Tells of uint64 hashes whether they belong to the share that is held out."""
    return mixed(hashes, seed) < np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Returns other uint64 hashes for another seed (the finalizer of SplitMix64)."""
    with np.errstate(over="ignore"):
        start = np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        value = np.asarray(hashes, np.uint64) + start
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
