"""Paired differences between rows over seeds, with Student's t intervals.

Worked example: scores 0.60, 0.62, 0.61 of a row beside 0.65, 0.66, 0.67 of the base row are the
differences -0.05, -0.04, -0.06; their mean is -0.05, their standard deviation 0.01, and with two
degrees of freedom t is 4.303, so the 95 % interval is -0.05 +- 4.303 * 0.01 / sqrt(3): from -0.0748
to -0.0252. It excludes zero.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping

CONFIDENCE = 0.95
HOLDS, REVERSED, OPEN = "holds", "does not hold", "not resolved"
Scores = Mapping[int, float]  # by seed


@dataclasses.dataclass(frozen=True)
class Difference:
    """A row's scores less those of another, seed by seed.

    Attributes:
      mean: over the seeds that both have.
      low: lower end of the interval; None with fewer than two seeds.
      high: its upper end.
      pairs: how many seeds both have.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval excludes zero, else 0: only then is there an order."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def difference(scores: Scores, others: Scores) -> Difference | None:
    """The paired difference of two rows; None where they have no seed in common."""
    pairs = [scores[seed] - others[seed] for seed in sorted(set(scores) & set(others))]
    if not pairs:
        return None
    mean = statistics.fmean(pairs)
    if len(pairs) < 2:
        return Difference(mean, None, None, 1)
    from scipy import stats  # half a second to import

    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1))
    half = quantile * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return Difference(mean, mean - half, mean + half, len(pairs))


def verdict(found: Difference | None, expected: float) -> str:
    """Whether a measured order is the paper's.

    Args:
      found: the measured difference.
      expected: the paper's; its sign counts.

    Returns:
      `HOLDS`, `REVERSED`, or `OPEN` where the interval has zero in it.
    """
    if found is None or found.sign == 0 or expected == 0:
        return OPEN
    return HOLDS if (found.sign > 0) == (expected > 0) else REVERSED


def all_orders(scores: Mapping[str, Scores], paper: Mapping[str, float]) -> dict[str, int]:
    """Counts the verdicts over every pair of rows, not only those with the base row.

    With 66 pairs some intervals exclude zero by chance, about three of them if no row differed.
    """
    counts = dict.fromkeys((HOLDS, REVERSED, OPEN), 0)
    for one, other in itertools.combinations(scores, 2):
        found = difference(scores[one], scores[other])
        counts[verdict(found, paper[one] - paper[other])] += 1
    return counts
