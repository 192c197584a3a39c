"""Watching a run: every checkpoint is evaluated once, and the best is what a person would say."""

import json

import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation import watching
from simvlm_jax.training.best import read_best

VALUES = {100: 0.5, 200: 0.75, 300: 0.75, 400: 0.25}


def save(folder, step):
    (folder / "checkpoints" / str(step)).mkdir(parents=True)


def evaluated(step, output):
    return {"steps": step, "dev": {"accuracy": VALUES[step], "loss": 1 - VALUES[step], "name": "x"}}


def test_checkpoints_are_evaluated_as_they_appear_until_the_last(tmp_path, monkeypatch, capsys):
    calls, coming = [], [[200], [300, 400]]
    save(tmp_path, 100)
    (tmp_path / "training.json").write_text(json.dumps({"total_steps": 400}))

    def evaluate(step, output):
        calls.append((step, output))
        return evaluated(step, output)

    def wait(seconds):
        assert seconds == 7
        for step in coming.pop(0):
            save(tmp_path, step)

    monkeypatch.setattr(watching.time, "sleep", wait)
    found = watching.watch(tmp_path, evaluate, "dev/accuracy", wait_seconds=7)
    assert calls == [(s, tmp_path / "evaluations" / str(s)) for s in (100, 200, 300, 400)]
    assert found == {
        "step": 200,
        "metric": "dev/accuracy",
        "value": 0.75,
        "values": {str(step): value for step, value in VALUES.items()},
    }
    assert json.loads((tmp_path / "best.json").read_text()) == found and not coming
    assert read_best(tmp_path) == 200
    assert "step 300: dev/accuracy 0.75; the best is 0.75 of step 200" in capsys.readouterr().err


def test_of_a_loss_the_lowest_is_the_best():
    assert watching.best_step({1: 0.5, 2: 0.25, 3: 0.25}, "dev/loss") == 2
    assert watching.best_step({1: 0.5, 2: 0.25, 3: 0.75}, "loss_of/accuracy") == 3


@pytest.mark.parametrize("name", ["dev/f1", "dev", "test/accuracy", "dev/name", "steps/x", ""])
def test_a_metric_that_there_is_none_of_is_refused(name):
    with pytest.raises(UserError, match="use one of dev/accuracy, dev/loss"):
        watching.metric(evaluated(100, None), name)


def test_nobody_knows_the_best_before(tmp_path):
    with pytest.raises(UserError, match="run simvlm evaluate --watch first"):
        read_best(tmp_path)
    (tmp_path / "best.json").write_text('{"step": "9"}')
    with pytest.raises(UserError, match="names no step"):
        read_best(tmp_path)
