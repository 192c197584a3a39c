"""An evaluation's controls, on a stand-in for the run: what it is shown, and what is told of it."""

import types

import numpy as np
import pytest

from simvlm_jax.data.ledger import FailureLedger
from simvlm_jax.errors import UserError
from simvlm_jax.evaluation import evaluations
from simvlm_jax.evaluation.evaluations import TaskEvaluation, blindness, spread
from simvlm_jax.evaluation.fields import every, first
from simvlm_jax.evaluation.predictor import GREY, Inputs

ANSWERS = ["red", "blue", "green", "black"]


class Split:
    """Four examples, each with an image of its own brightness."""

    has_image = True

    def __init__(self):
        self.ledger = FailureLedger()

    def records(self):
        return [{"id": n, "answer": a, "question": f"q{n}"} for n, a in enumerate(ANSWERS)]

    def examples(self, numbers):
        image = np.zeros((len(numbers), 2, 2, 3), np.uint8)
        return {"image": image + np.uint8(numbers)[:, None, None, None]}

    def batches(self, size, rows, images_of=None):
        numbers = np.arange(4) if images_of is None else images_of
        yield self.examples(numbers), 4


def looking(predictor, inputs):
    """A way that sees what the image is, and says nothing where it is grey or missing."""
    ((batch, _),) = inputs.batches(4, np.arange(4))
    shown = batch["image"][:, 0, 0, 0] if "image" in batch else [GREY] * 4
    return [ANSWERS[n] if n < 4 else "" for n in shown], np.zeros(4)


def share_right(answers, records):
    right = [a == r["answer"] for a, r in zip(answers, records, strict=True)]
    return {"accuracy": sum(right) / len(right), "name": "a text"}


@pytest.fixture
def metrics(monkeypatch, tmp_path):
    split = Split()
    run = types.SimpleNamespace(step=7, open=lambda *_: split)
    monkeypatch.setattr(evaluations, "Predictor", lambda *_: run)
    training = [{"answer": a} for a in ("blue", "red", "blue")]
    monkeypatch.setattr(evaluations, "evaluation_examples", lambda *_: training)

    def measure(controls):
        evaluation = TaskEvaluation(
            "x", "task", "test", {}, share_right, looking, controls, reference="answer"
        )
        return evaluation.run(tmp_path)

    return measure


def test_each_control_takes_away_what_it_says(metrics):
    result = metrics(("shuffled", "masked", "without_image", "most_frequent"))
    assert result.metrics == {
        "examples": 4,
        "accuracy": 1.0,
        "name": "a text",
        "accuracy_shuffled": 0.0,
        "accuracy_masked": 0.0,
        "accuracy_without_image": 0.0,
        "accuracy_most_frequent": 0.25,
    }
    assert (result.step, result.answers) == (7, ANSWERS)
    assert [sample.correct for sample in result.samples] == [True] * 4


def test_a_control_that_there_is_not_is_refused(metrics):
    with pytest.raises(UserError, match="no control 'dark'"):
        metrics(("dark",))


def test_a_masked_image_is_grey_and_a_missing_one_is_gone():
    ((batch, _),) = Inputs(Split(), images="masked").batches(4, np.arange(4))
    assert (batch["image"] == GREY).all()
    ((batch, _),) = Inputs(Split(), images="none").batches(4, np.arange(4))
    assert "image" not in batch


def test_a_loss_that_does_not_see_the_image_is_told():
    assert "ignores" in blindness({"loss": 2.31, "loss_shuffled": 2.312})["warning_images"]
    assert "ignores" in blindness({"loss": 2.31, "loss_shuffled": 2.2})["warning_images"]
    assert blindness({"loss": 2.31, "loss_shuffled": 2.41}) == {}
    assert blindness({"accuracy": 1.0}) == {}


def test_samples_are_spread_evenly():
    assert spread(10, 4) == [0, 2, 5, 7] and spread(2, 5) == [0, 1] and spread(0, 3) == []


def test_texts_of_a_field():
    record = {"one": "a", "many": ["a", "b"], "label": 3, "none": -1, "empty": []}
    assert [every(record, name) for name in record] == [["a"], ["a", "b"], ["3"], [], []]
    assert every(record, "absent") == [] and first(record, "many") == "a"
    assert first(record, "none") == ""
