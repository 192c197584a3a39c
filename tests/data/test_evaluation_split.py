"""A split for evaluation: every example once and whole, and another one's image where asked for."""

import numpy as np
import pytest
import simvlm_jax.tasks  # noqa: F401  registers the tasks

from simvlm_jax.data.evaluation_split import EvaluationSplit
from simvlm_jax.data.plain import plain_batches

LENGTHS = {"image": 1, "example_seed": 2, "inputs": 12, "targets": 14}
SIZE = (8, 10)
COUNT = 7  # examples of the split


@pytest.fixture
def split(data_folder):
    return EvaluationSplit("openmoji_captions", "variants", LENGTHS, SIZE)


def joined(batches):
    batches = list(batches)
    return {n: np.concatenate([b[n][:count] for b, count in batches]) for n in batches[0][0]}


def wanted():
    """The same by seqio's own way."""
    return joined(plain_batches("openmoji_captions", "variants", LENGTHS, SIZE, 4))


@pytest.mark.parametrize("size", [1, 3, 7, 16])
def test_all_examples_come_once_in_order_and_as_seqio_shows_them(split, size):
    batches = list(split.batches(size, np.arange(size)))
    assert [count for _, count in batches] == [
        min(size, COUNT - first) for first in range(0, COUNT, size)
    ]
    assert all(len(array) == size for batch, _ in batches for array in batch.values())
    found, expected = joined(batches), wanted()
    assert len(split) == COUNT and found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_images_of_others_come_with_an_example_s_own_texts(split):
    order = np.array([3, 0, 6, 1, 2, 4, 5])
    found, own = joined(split.batches(3, np.arange(3), order)), wanted()
    np.testing.assert_array_equal(found["image"], own["image"][order])
    assert (found["image"] != own["image"]).any()
    for name in own.keys() - {"image"}:
        np.testing.assert_array_equal(found[name], own[name])


def test_rows_of_other_processes_are_zeros(split):
    (batch, _), *_ = split.batches(4, np.array([1, 3]))
    own = wanted()
    np.testing.assert_array_equal(batch["image"][[1, 3]], own["image"][[1, 3]])
    assert not batch["image"][[0, 2]].any() and not batch["decoder_target_tokens"][[0, 2]].any()


def test_some_examples_by_number(split):
    np.testing.assert_array_equal(split.examples([5, 0])["image"], wanted()["image"][[5, 0]])
