import datetime

import jax.numpy as jnp
import pytest
from orbax.checkpoint.checkpoint_managers import PolicyCheckpointInfo

from simvlm_jax.errors import UserError
from simvlm_jax.training.checkpoints import Checkpoints
from simvlm_jax.training.keeping import KeepRules
from simvlm_jax.training.state import TrainState
from standin import losses, run

# At step 3 the loss is lowest, at step 1 it is highest.
LOSSES = {1: 9.0, 2: 4.0, 3: 0.5, 4: 2.0, 5: 3.0, 6: 2.5}


def save(folder, keep, steps, losses=LOSSES):
    """Saves the steps; returns which are left."""
    with Checkpoints(folder, keep) as saved:
        for step in steps:
            state = TrainState(jnp.int32(step), {"kernel": jnp.ones(4)}, ())
            saved.save(state, {"loss": losses[step], "accuracy": 1 / losses[step]})
    with Checkpoints(folder, keep) as saved:
        return saved.steps()


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({"newest": 1}, [6]),
        ({"newest": 2}, [5, 6]),
        ({"newest": 1, "every_steps": 2}, [2, 4, 6]),
        ({"newest": 1, "best": "loss"}, [3, 6]),
        ({"newest": 1, "best": "loss", "best_count": 2}, [3, 4, 6]),
        ({"newest": 1, "best": "loss", "best_mode": "max"}, [1, 6]),
        ({"newest": 1, "best": "accuracy", "best_mode": "max"}, [3, 6]),
        ({"newest": 2, "best": "loss", "every_steps": 4}, [3, 4, 5, 6]),
    ],
)
def test_each_rule_keeps_its_own_also_through_a_restart(tmp_path, rules, left):
    keep = KeepRules(**rules)
    assert save(tmp_path / "once", keep, range(1, 7)) == left
    save(tmp_path / "twice", keep, range(1, 5))
    assert save(tmp_path / "twice", keep, range(5, 7)) == left


def test_checkpoints_from_before_a_rule_have_no_metric(tmp_path):
    save(tmp_path, KeepRules(newest=2), [1, 2])
    assert save(tmp_path, KeepRules(newest=1, best="loss"), [3, 4, 5]) == [3, 5]
    # Another metric's rule finds none in those that the first one kept: none is its best.
    state = TrainState(jnp.int32(6), {"kernel": jnp.ones(4)}, ())
    with Checkpoints(tmp_path, KeepRules(newest=1, best="bleu", best_mode="max")) as saved:
        saved.save(state, {"bleu": 0.1})
        assert saved.steps()
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [6]


@pytest.mark.parametrize(
    ("hours", "left"), [(1, [0, 60, 120]), (1.5, [0, 90, 120]), (0.5, [0, 30, 60, 90, 120])]
)
def test_the_rule_by_time(hours, left):
    """Checkpoints at these minutes, once the newest is at 120."""
    minutes = [0, 30, 60, 90, 119, 120]
    policy = KeepRules(newest=1, every_hours=hours).options()["preservation_policy"]
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    infos = [Info(minute, begin + datetime.timedelta(minutes=minute), None) for minute in minutes]
    stay = policy.should_preserve(infos, context=None)
    assert [minute for minute, stays in zip(minutes, stay, strict=True) if stays] == left


class Info(PolicyCheckpointInfo):
    def __init__(self, step, time, metrics):
        self.step, self.time, self.metrics = step, time, metrics


def test_a_run_keeps_the_best_of_its_reports(tmp_path):
    """Reports and checkpoints come every two steps; the schedule ends where it learns nothing."""
    often = {"checkpoint_every": 2, "log_every": 2}
    run(tmp_path, keep={"newest": 1, "best": "loss", "best_mode": "max"}, **often)
    told = {step: loss for step, loss in losses(tmp_path).items() if step > 1}
    worst = max(told, key=told.get)
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == sorted({worst, 12})


def test_a_metric_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"best='cider' is no metric of .* accuracy, .*loss"):
        run(tmp_path, keep={"best": "cider"})


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"newest": 0}, "newest=0 is not a whole number above 0"),
        ({"newest": None}, "newest=None is not"),
        ({"every_steps": 0.5}, "every_steps=0.5 is not"),
        ({"every_hours": -1}, "every_hours=-1 is not a number above 0"),
        ({"every_hours": float("inf")}, "every_hours=inf is not a number above 0"),
        ({"every_hours": "6"}, "every_hours='6' is not a number above 0"),
        ({"best_count": 0}, "best_count=0 is not"),
        ({"best_mode": "best"}, "best_mode='best' is not 'min' or 'max'"),
    ],
)
def test_what_makes_no_sense_is_refused(rules, words):
    with pytest.raises(UserError, match=words):
        KeepRules(**rules)


def test_saves_by_time(tmp_path):
    """With no time at all between them, every report is followed by one."""
    run(tmp_path / "often", checkpoint_every=100, checkpoint_minutes=1e-9, keep={"newest": 9})
    with Checkpoints(tmp_path / "often") as saved:
        assert saved.steps() == [1, 3, 6, 9, 12]
    run(tmp_path / "seldom", checkpoint_every=100, checkpoint_minutes=60)
    with Checkpoints(tmp_path / "seldom") as saved:
        assert saved.steps() == [12]


@pytest.mark.parametrize("name", ["checkpoint_minutes", "patience_minutes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True])
def test_minutes_that_nobody_can_wait_are_refused(tmp_path, name, value):
    with pytest.raises(UserError, match=f"{name}={value!r} is not a number above 0"):
        run(tmp_path, **{name: value})
