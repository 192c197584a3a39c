"""T5X on 1, 2 and 4 real processes with four devices in all: one run, wherever it goes on."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

import engine
from simvlm_jax.data.testing_records import make_data

pytest.importorskip("t5x.train", reason="T5X is not installed")

from simvlm_jax.training import digests, reading, t5x_format  # noqa: E402

DEVICES = 4
WITNESS = str(Path(__file__).with_name("witness.gin"))
FILES = ["t5x/pretrain.gin", WITNESS]
SCHEDULE = ["optimizers.adamw.total_steps = 4", "STATS_PERIOD = 1", *engine.MESH_8X1]
NO_EVALUATION = ["TRAIN_EVAL = None", "INFER_EVAL = None"]


def train(data, folder, steps, processes, *bindings):
    """Trains to a step on some processes, which share four devices."""
    bindings = [f"MODEL_DIR = '{folder}'", f"TOTAL_STEPS = {steps}", *SCHEDULE, *bindings]
    if processes == 1:
        engine.t5x("train", data, FILES, bindings, DEVICES)
        return
    ended = engine.finish_all(
        engine.start_together(data, bindings, processes, DEVICES // processes, FILES)
    )
    for code, output in ended:
        assert code == 0, output[-4000:]
    first = ended[0][1]
    assert f"{processes} processes on " in first and "mesh data=4 x model=1" in first, first[-4000:]
    assert "TFLOP a step" in first


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    """Four steps on one process."""
    folder = tmp_path_factory.mktemp("one")
    train(data, folder, 4, 1)
    return folder


@pytest.fixture(scope="module")
def two(data, tmp_path_factory):
    """The first two of the steps, on two processes; not to be written to."""
    folder = tmp_path_factory.mktemp("two")
    train(data, folder, 2, 2)
    return folder


def test_two_processes_train_and_evaluate_as_one(one, two):
    expected = engine.logged(one)
    assert sorted(expected) == [1, 2, 3, 4]
    first = {step: expected[step] for step in (1, 2)}
    assert engine.logged(two) == pytest.approx(first, rel=0, abs=1e-5)
    for events in ("training_eval/openmoji_captions", "inference_eval/openmoji_captions"):
        found = [scalars(folder / events) for folder in (one, two)]
        shared = set(found[0]) & set(found[1])
        assert shared and set(found[1]) <= set(found[0])
        assert {name: found[1][name] for name in shared} == pytest.approx(
            {name: found[0][name] for name in shared}, rel=1e-4
        )


def scalars(folder):
    """What stands in T5X's log of step 2, but for times: {name: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: float(make_ndarray(event.tensor_proto))
        for tag in events.Tags()["tensors"]
        if "per_second" not in tag and "seconds" not in tag and "timing" not in tag
        for event in events.Tensors(tag)
        if event.step == 2 and event.tensor_proto.dtype == 1
    }


@pytest.mark.parametrize("processes", [1, 4])
def test_what_two_saved_goes_on_on_others(data, one, two, tmp_path, processes):
    folder = Path(shutil.copytree(two, tmp_path / "run"))
    train(data, folder, 4, processes, *NO_EVALUATION)
    saved = reading.read_tree(t5x_format.folder(two, 2), lambda path: True)
    # T5X reads all as float32, the step and the optimizer's counts, too.
    saved = digests.manifest({path: np.float32(array) for path, array in saved.items()})
    assert json.loads((folder / "given.json").read_text()) == saved
    assert len(saved) > 100
    assert engine.logged(folder) == pytest.approx(engine.logged(one), rel=0, abs=1e-5)
    assert engine.steps(folder) == [0, 2, 4]


def test_sigterm_to_one_of_two_ends_both_with_a_checkpoint(data, tmp_path):
    folder = tmp_path / "run"
    endless = ["TOTAL_STEPS = 100000", "CHECKPOINT_PERIOD = 100000", "STATS_PERIOD = 1"]
    bindings = [f"MODEL_DIR = '{folder}'", *endless, *NO_EVALUATION]
    first, second = engine.start_together(data, bindings, 2, 1)
    ended = [engine.terminate_after(second, lambda: engine.trained(folder) >= 3)]
    ended += [engine.finish(first)]
    for code, output in ended:
        assert code != 0 and "PreemptionError: SIGTERM after step" in output, output[-3000:]
    *_, step = engine.steps(folder)
    assert 3 <= step == engine.trained(folder) < 100000
    saved, begun = reading.restore_params(folder, step), reading.restore_params(folder, 0)
    difference = np.abs(saved["token_embedding"] - begun["token_embedding"])
    assert 0 < difference.max() < np.inf


def test_what_differs_on_one_is_said_by_all_before_anything_is_trained(data, tmp_path):
    other = make_data(tmp_path / "data")
    shard, *_ = sorted((other / "openmoji").glob("train-*"))
    shutil.copy(next((other / "openmoji").glob("variants-*")), shard)
    bindings = [f"MODEL_DIR = '{tmp_path / 'run'}'", "TOTAL_STEPS = 2", *NO_EVALUATION]
    ended = engine.finish_all(engine.start_together([data, other], bindings, 2, 1))
    assert [code for code, _ in ended] == [2, 2], ended
    for _, output in ended:
        *_, last = output.strip().splitlines()
        assert last.startswith(f"Process 1 on {socket.gethostname()} differs from most in the data")
        assert "t5x_adapter.py" not in output  # no stack trace
    assert not engine.steps(tmp_path / "run")
