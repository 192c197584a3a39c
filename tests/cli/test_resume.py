"""The real model on the real stream, through the command: killed, resumed, and on eight devices."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from cli.test_verbs import SMALL, bindings
from simvlm_jax.training.reading import restore_params, saved_steps

STEPS = 4
RUN = [*(line for line in SMALL if "TOTAL_STEPS" not in line and "BATCH_SIZE" not in line)]
RUN += [f"TOTAL_STEPS = {STEPS}", "BATCH_SIZE = 8", "CHECKPOINT_PERIOD = 2"]
RUN += ["loop.train.log_every = 1", "config.SimVLMConfig.dropout_rate = 0.1"]
PATIENCE = 300


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Most of these processes compile the same step; in a hurry, for it runs four times only."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield


def start(data, model_dir, *more, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "simvlm_jax.cli.main", "train", "--gin_file=runs/demo.gin"]
        + [f"--model_dir={model_dir}", f"--data_dir={data}", *bindings(*RUN, *more)],
        env=os.environ | {"XLA_FLAGS": flags},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return errors


def losses(model_dir):
    lines = (model_dir / "losses.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def whole(made_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(start(made_data, folder))
    return folder


def wait_for_checkpoint(process, folder):
    deadline = time.monotonic() + PATIENCE
    while not saved_steps(folder / "checkpoints") and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_a_stopped_run_ends_as_the_whole_one_bit_for_bit(made_data, whole, tmp_path, number):
    process = start(made_data, tmp_path)
    wait_for_checkpoint(process, tmp_path)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == (0 if number == signal.SIGTERM else -number)
    finish(start(made_data, tmp_path))
    left, right = restore_params(tmp_path, STEPS), restore_params(whole, STEPS)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert losses(tmp_path) == losses(whole)


def test_eight_devices_give_the_losses_of_one(made_data, tmp_path):
    one, eight = tmp_path / "one", tmp_path / "eight"
    without = "config.SimVLMConfig.dropout_rate = 0.0"  # its draws depend on the devices
    processes = [
        start(made_data, one, without),
        start(made_data, eight, without, devices=8),
    ]
    for process in processes:
        finish(process)
    left, right = losses(one), losses(eight)
    assert set(left) == set(range(1, STEPS + 1))
    for step in left:
        assert right[step] == pytest.approx(left[step], rel=1e-5)
