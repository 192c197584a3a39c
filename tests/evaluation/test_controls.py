import itertools
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.controls import derangement, derangement_by_label

few = settings(deadline=None, max_examples=60)


@few
@given(count=st.integers(2, 50), seed=st.integers(0, 2**32))
def test_derangement_moves_everything_and_loses_nothing(count, seed):
    found = derangement(count, seed)
    assert sorted(found) == list(range(count))
    assert not np.any(found == np.arange(count))
    np.testing.assert_array_equal(found, derangement(count, seed))


def test_derangements_are_equally_likely():
    counts = Counter(tuple(derangement(4, seed).tolist()) for seed in range(1800))
    every = [p for p in itertools.permutations(range(4)) if all(p[i] != i for i in range(4))]
    assert set(counts) == set(every)
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


@few
@given(labels=st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40), seed=st.integers(0, 99))
def test_no_example_gets_its_own_label(labels, seed):
    assume(2 * Counter(labels).most_common(1)[0][1] <= len(labels))
    found = derangement_by_label(labels, seed)
    assert sorted(found) == list(range(len(labels)))
    assert all(labels[partner] != label for partner, label in zip(found, labels, strict=True))
    np.testing.assert_array_equal(found, derangement_by_label(labels, seed))


def test_partners_change_with_the_seed():
    labels = [number // 2 for number in range(40)]
    partners = {tuple(derangement_by_label(labels, seed).tolist()) for seed in range(10)}
    assert len(partners) == 10


def test_a_label_may_be_half_of_all_but_not_more():
    assert sorted(derangement_by_label(["a", "a", "b", "c"], 0)[:2]) == [2, 3]
    with pytest.raises(UserError, match="3 of 5 examples carry the label 'a'"):
        derangement_by_label(["a", "b", "a", "c", "a"], 0)


def test_one_example_cannot_be_shuffled():
    with pytest.raises(UserError, match="at least 2 examples, not 1"):
        derangement(1, 0)
    with pytest.raises(UserError, match="at least 2 examples, not 1"):
        derangement_by_label(["a"], 0)
