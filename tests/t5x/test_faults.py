"""What T5X lacks: SIGTERM leaves a checkpoint of the current state, a loss of NaN stops the run."""

import socket
from pathlib import Path

import numpy as np
import pytest

import engine

pytest.importorskip("t5x.train", reason="T5X is not installed")

from simvlm_jax.training import reading  # noqa: E402

POISON = str(Path(__file__).parent / "poison.gin")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("distributed", [False, True], ids=["alone", "jax.distributed"])
def test_sigterm_saves_the_current_state(data, tmp_path, distributed):
    extra = []
    if distributed:
        address = f"--coordinator_address=127.0.0.1:{free_port()}"
        extra = ["--multiprocess_gpu", address, "--process_count=1", "--process_index=0"]
    folder = tmp_path / "run"
    bindings = [f"MODEL_DIR = '{folder}'", "TOTAL_STEPS = 100000", "CHECKPOINT_PERIOD = 100000"]
    bindings += ["STATS_PERIOD = 1"]
    process = engine.start("train", data, ["t5x/pretrain.gin"], bindings, extra=extra)
    code, output = engine.terminate_after(process, lambda: trained(folder) >= 3)
    assert code != 0 and "PreemptionError" in output, output[-3000:]
    *_, step = engine.steps(folder)
    assert 3 <= step < 100000
    saved, first = reading.restore_params(folder, step), reading.restore_params(folder, 0)
    assert np.isfinite(saved["token_embedding"]).all()
    assert np.abs(saved["token_embedding"] - first["token_embedding"]).max() > 0
    # Saved is the state of just that step: a run that was not disturbed agrees.
    whole = tmp_path / "whole"
    until = [f"CHECKPOINT_PERIOD = {step}", "EVAL_STEPS = 1"]
    schedule = ["optimizers.adamw.total_steps = 100000"]
    engine.pretrain(data, whole, step, *until, *schedule)
    undisturbed = reading.restore_params(whole, step)
    np.testing.assert_array_equal(saved["token_embedding"], undisturbed["token_embedding"])


def trained(folder):
    """The last step that T5X has logged, or 0."""
    if not list((folder / "train").glob("events*")):
        return 0
    try:
        return max(engine.logged(folder), default=0)
    except KeyError:  # no loss yet
        return 0


def test_a_poisoned_batch_stops_the_run_before_it_is_saved(data, tmp_path):
    bindings = [f"MODEL_DIR = '{tmp_path}'", "TOTAL_STEPS = 6"]
    process = engine.start("train", data, ["t5x/pretrain.gin", POISON], bindings)
    code, output = engine.finish(process)
    assert code != 0 and "The loss became nan at step 3" in output, output[-3000:]
    assert engine.steps(tmp_path) == [0, 2]
    assert np.isfinite(reading.restore_params(tmp_path)["token_embedding"]).all()


def test_a_moving_average_is_kept_and_read(data, tmp_path):
    engine.pretrain(data, tmp_path, 2, "optimizers.adamw.ema_decay = 0.5")
    average, params = reading.restore_params(tmp_path, ema=True), reading.restore_params(tmp_path)
    difference = np.abs(average["token_embedding"] - params["token_embedding"])
    assert 0 < difference.max() < 1e-2
