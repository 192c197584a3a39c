import math

import numpy as np
import pytest
from scipy import stats

from simvlm_jax.ablation.statistics import (
    HOLDS,
    OPEN,
    REVERSED,
    Difference,
    all_orders,
    difference,
    verdict,
)

T_OF_TWO = 4.302652729911275  # the 0.975 quantile of Student's t, 2 degrees of freedom, from tables


def test_the_worked_example():
    found = difference({0: 0.60, 1: 0.62, 2: 0.61}, {0: 0.65, 1: 0.66, 2: 0.67})
    half = T_OF_TWO * 0.01 / math.sqrt(3)
    assert found.mean == pytest.approx(-0.05)
    assert (found.low, found.high) == pytest.approx((-0.05 - half, -0.05 + half))
    assert (round(found.low, 4), round(found.high, 4)) == (-0.0748, -0.0252)
    assert (found.pairs, found.sign) == (3, -1)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_as_scipy_s_paired_t_test(count):
    random = np.random.default_rng(count)
    one, other = random.normal(size=count), random.normal(size=count)
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    found = difference(dict(enumerate(one)), dict(enumerate(other)))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    one, other = random.normal(0.3, 1, (2000, 3)), random.normal(0, 2, (2000, 3))
    found = [
        difference(dict(enumerate(a)), dict(enumerate(b))) for a, b in zip(one, other, strict=True)
    ]
    covered = np.mean([f.low <= 0.3 <= f.high for f in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_only_seeds_that_both_have_are_compared():
    found = difference({0: 1.0, 2: 3.0, 5: 9.0}, {2: 1.0, 0: 0.0, 7: 5.0})
    assert (found.mean, found.pairs) == (1.5, 2)
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_no_interval_and_no_order():
    found = difference({0: 1.0}, {0: 0.0})
    assert found == Difference(1.0, None, None, 1) and found.sign == 0


def test_equal_differences_are_an_interval_of_no_width():
    found = difference({0: 0.5, 1: 0.75, 2: 1.0}, {0: 0.25, 1: 0.5, 2: 0.75})
    assert (found.low, found.mean, found.high, found.sign) == (0.25, 0.25, 0.25, 1)


@pytest.mark.parametrize(
    ("low", "high", "expected", "said"),
    [
        (-3, -1, -2.2, HOLDS),
        (1, 3, -2.2, REVERSED),
        (-1, 3, -2.2, OPEN),
        (0, 3, 1, OPEN),
        (1, 3, 2, HOLDS),
        (-3, -1, 2, REVERSED),
    ],
)
def test_an_order_counts_only_where_the_interval_excludes_zero(low, high, expected, said):
    assert verdict(Difference((low + high) / 2, low, high, 3), expected) == said
    assert verdict(None, expected) == OPEN


def test_all_pairs_of_rows_are_counted():
    scores = {
        "a": {0: 1.0, 1: 1.1, 2: 0.9},
        "b": {0: 0.5, 1: 0.61, 2: 0.4},
        "c": {0: 0.52, 1: 0.60, 2: 0.41},
    }
    paper = {"a": 3.0, "b": 2.0, "c": 4.0}
    assert all_orders(scores, paper) == {HOLDS: 1, REVERSED: 1, OPEN: 1}
