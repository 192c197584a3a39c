import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.classification import (
    accuracy,
    f1,
    matthews,
    score_classes,
    score_logits,
    top_k_accuracy,
)
from simvlm_jax.evaluation.glue import METRICS, score_glue

names = st.one_of(st.sampled_from(["yes", "no", "", "é", "a\nb"]), st.text(max_size=4))
name_pairs = st.lists(st.tuples(names, names), min_size=1, max_size=30)
bits = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=200)
@given(name_pairs)
def test_accuracy_and_recall_equal_scikit_learns(pairs):
    given_, wanted = map(list, zip(*pairs, strict=True))
    found = score_classes(given_, wanted)
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(wanted, given_))
    classes = sorted(set(wanted))
    recalls = sklearn.metrics.recall_score(
        wanted, given_, labels=classes, average=None, zero_division=0
    )
    expected = dict(zip(classes, recalls, strict=True))
    assert found["accuracy_by_class"] == pytest.approx(expected)
    commonest = max(given_.count(name) for name in given_) / len(given_)
    assert found["most_frequent_share"] == pytest.approx(commonest)


@pytest.mark.filterwarnings("ignore:A single label")
@settings(deadline=None, max_examples=300)
@given(bits)
def test_matthews_and_f1_equal_scikit_learns(pairs):
    given_, wanted = map(list, zip(*pairs, strict=True))
    expected = sklearn.metrics.matthews_corrcoef(wanted, given_)
    assert matthews(given_, wanted) == pytest.approx(expected, abs=1e-12)
    expected = sklearn.metrics.f1_score(wanted, given_, zero_division=0)
    assert f1(np.array(given_), np.array(wanted)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(3, 8), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_top_k_equals_scikit_learns(count, classes, k, seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes))
    labels = generator.integers(0, classes, count)
    expected = sklearn.metrics.top_k_accuracy_score(labels, logits, k=k, labels=range(classes))
    assert top_k_accuracy(logits, labels, k) == pytest.approx(expected)


def test_the_examples():
    assert accuracy(["yes", "no"], ["yes", "yes"]) == 0.5
    assert score_classes([0, 1, 1, 1], np.array([0, 0, 1, 1])) == {
        "accuracy": 0.75,
        "accuracy_by_class": {"0": 0.5, "1": 1.0},
        "most_frequent_share": 0.75,
    }
    assert [top_k_accuracy([[0.1, 0.7, 0.2]], [2], k) for k in (1, 2, 9)] == [0, 1, 1]
    assert top_k_accuracy([[0.5, 0.5]], [1], 1) == 0  # the lower id is first of equals
    equal = np.zeros((1, 999))
    assert [top_k_accuracy(equal, [label], 5) for label in (0, 4, 5, 998)] == [1, 1, 0, 0]
    assert matthews([1, 1, 0, 0], [1, 0, 0, 0]) == pytest.approx(3**-0.5)
    assert f1([1, 1, 0], [1, 0, 0]) == pytest.approx(2 / 3)
    assert score_logits(np.eye(7)[:3], [0, 1, 6]) == pytest.approx(
        {"accuracy": 2 / 3, "accuracy_top5": 2 / 3}
    )


def test_constant_predictions_have_no_correlation():
    assert matthews([1, 1], [1, 0]) == matthews([1, 0], [0, 0]) == f1([0, 0], [0, 0]) == 0


def test_every_glue_task_has_the_metrics_of_the_papers_table():
    found = {task: sorted(score_glue(task, [1, 1, 0], [1, 0, 0])) for task in METRICS}
    expected = {task: ["accuracy"] for task in METRICS}
    expected |= {"cola": ["matthews"], "mrpc": ["accuracy", "f1"], "qqp": ["accuracy", "f1"]}
    assert found == expected and len(found) == 8
    assert score_glue("SST-2", [1], [1]) == score_glue("sst_2", [1], [1]) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda: accuracy([], []), "0 predictions"),
        (lambda: accuracy([1], [1, 2]), "1 predictions for 2 labels"),
        (lambda: score_classes(["1"], [1]), "'1' cannot equal labels such as 1"),
        (lambda: matthews([2], [1]), "classes 0 and 1, not 2"),
        (lambda: f1([1], [-1]), "classes 0 and 1, not -1"),
        (lambda: f1([1], [1, 0]), "1 predictions for 2 labels"),
        (lambda: top_k_accuracy([1.0], [0], 1), "shape"),
        (lambda: top_k_accuracy([[1.0, np.nan]], [0], 1), "1 of them are no numbers"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [2], 1), r"from 0 to 1 .*\[2\]"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [-1], 1), r"\[-1\]"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [0.5], 1), "float64"),
        (lambda: top_k_accuracy([[1.0, 2.0]], [0], 0), "k=0"),
        (lambda: score_glue("stsb", [1], [1]), "'stsb' is none of cola"),
    ],
)
def test_what_cannot_be_scored_is_a_sentence(score, sentence):
    with pytest.raises(UserError, match=sentence):
        score()
