"""Ways to answer, on a stand-in for the run: what is asked of it, and what its numbers mean."""

import types

import numpy as np
import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation import ways
from simvlm_jax.evaluation.predictor import Inputs

BATCH = {
    "decoder_target_tokens": np.full((2, 5), 9, np.int32),
    "decoder_input_tokens": np.full((2, 5), 9, np.int32),
    "decoder_loss_weights": np.ones((2, 5), np.float32),
    "image": np.zeros((2, 4, 4, 3), np.uint8),
}


class Letters:
    """A vocabulary in which every letter is its place in the alphabet and two more."""

    @staticmethod
    def encode(text):
        return [ord(letter) - ord("a") + 2 for letter in text]


class Run:
    """Says how likely each text is for each of two examples."""

    def __init__(self, likely, **model):
        self.likely, self.model = likely, types.SimpleNamespace(**model)

    def score(self, inputs):
        tokens = inputs.change(BATCH)["decoder_target_tokens"]
        text = "".join(chr(t - 2 + ord("a")) for t in tokens[0] if t > 1)
        return np.float32(self.likely[text])

    def classify(self, inputs):
        return np.float32(self.likely)


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setattr(ways, "default_vocabulary", Letters)


def test_the_worked_example_of_a_target():
    made = ways.with_target(BATCH, np.int32([7, 8, 1]))
    for name, row in {
        "decoder_target_tokens": [7, 8, 1, 0, 0],
        "decoder_input_tokens": [0, 7, 8, 1, 0],
        "decoder_loss_weights": [1, 1, 1, 0, 0],
    }.items():
        np.testing.assert_array_equal(made[name], [row, row])
        assert made[name].dtype == BATCH[name].dtype
    assert made["image"] is BATCH["image"]
    with pytest.raises(UserError, match="has 6 tokens, but the targets' length is 5"):
        ways.with_target(BATCH, np.int32([2, 3, 4, 5, 6, 1]))


def test_the_likeliest_candidate_is_chosen():
    run = Run({"a": [-1, -9], "bb": [-2, -3], "ccc": [-3, -3.5]}, score_batch=None)
    way = ways.Score(["a", "bb", "ccc"])
    answers, scores = way(run, Inputs(None))
    assert answers == ["a", "bb"] and scores.tolist() == [-1, -3]
    answers, _ = ways.Score(["a", "bb", "ccc"], ["yes", "no", "maybe"])(run, Inputs(None))
    assert answers == ["yes", "no"]
    # By token, with the end of sequence: -1/2, -2/3, -3/4 and -9/2, -3/3, -3.5/4.
    answers, scores = ways.Score(["a", "bb", "ccc"], by_token=True)(run, Inputs(None))
    assert answers == ["a", "ccc"] and scores.tolist() == [-0.5, -0.875]


def test_a_class_is_told_by_its_name():
    run = Run([[0, 2, 1], [3, 2, 1]], classes=3)
    answers, scores = ways.Classify(["x", "y", "z"])(run, Inputs(None))
    assert answers == ["y", "x"] and scores.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("way", "model", "sentence"),
    [
        (ways.Classify(["x"]), {"prompt": ""}, "has no classifier"),
        (ways.Classify(["x"]), {"classes": 2}, "tells 2 classes apart, but 1"),
        (ways.Score(["x"]), {"classes": 2}, "is a classifier and scores no texts"),
        (ways.Score([]), {"score_batch": None}, "at least one"),
        (ways.Score(["x"], ["a", "b"]), {"score_batch": None}, "an answer for each"),
        (ways.Generate(), {"classes": 2}, "is a classifier and writes no text"),
    ],
)
def test_a_way_that_does_not_fit_is_refused(way, model, sentence):
    with pytest.raises(UserError, match=sentence):
        way(Run([], **model), Inputs(None))
