"""What only a process of its own can show: other devices, kills, signals, imports."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from simvlm_jax.training.reading import saved_steps
from standin import losses, run, same

ROOT = Path(__file__).parents[2]
LARGE = {"hidden": 256}  # its checkpoints have files of 256 KiB
FULL = {"model": LARGE, "fill_disk_after": 2}


def start(*runs, **environment):
    arguments = [{**settings, "model_dir": str(settings["model_dir"])} for settings in runs]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("standin.py")), json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Five processes at the same time: {name: (folder, exit code, stdout, stderr)}."""
    names = ("devices", "sharded", "step", "save", "term", "full")
    folders = {name: tmp_path_factory.mktemp(name) for name in names}
    at = {"signal_at": 9}
    # One of the killed runs compiles for itself, as a run on another day would.
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    started = {
        "devices": start(
            {"model_dir": folders["devices"]},
            {"model_dir": folders["sharded"], "total_steps": 8, "shard": True},
            XLA_FLAGS="--xla_force_host_platform_device_count=8",
        ),
        "step": start(
            {"model_dir": folders["step"], "stream": at | {"signal_number": int(signal.SIGKILL)}}
        ),
        "save": start({"model_dir": folders["save"], "kill_within_save": 8}, **cache),
        "full": start(
            {"model_dir": folders["full"], "model": LARGE, "fill_disk_after": 2}, **cache
        ),
        "term": start(
            {
                "model_dir": folders["term"],
                "stream": at | {"signal_number": int(signal.SIGTERM)},
                "checkpoint_every": 100,
            },
            **cache,
        ),
    }
    outcome = {}
    for name, process in started.items():
        output = process.communicate(timeout=300)
        outcome[name] = (folders[name], process.returncode, *output)
    outcome["sharded"] = (folders["sharded"], *outcome["devices"][1:])
    return outcome


def test_eight_devices_give_the_losses_of_one(processes, whole):
    folder, code, output, errors = processes["devices"]
    assert code == 0, errors
    assert json.loads(output)["devices"] == 8
    assert jax.local_device_count() == 1
    expected = losses(whole[0])
    assert losses(folder) == pytest.approx(expected, rel=0, abs=1e-5)
    sharded = losses(processes["sharded"][0])
    shared = {step: expected[step] for step in sharded if step in expected}
    assert {step: sharded[step] for step in shared} == pytest.approx(shared, rel=0, abs=1e-5)
    assert len(shared) == 3


def test_a_sharded_checkpoint_goes_on_with_one_device(processes, whole):
    state = run(processes["sharded"][0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state, whole[1])


def test_training_and_reading_checkpoints_import_no_tensorflow(processes):
    modules = json.loads(processes["devices"][2])["modules"]
    assert "orbax.checkpoint" in modules
    assert [name for name in modules if name.split(".")[0] in ("tensorflow", "seqio")] == []


def test_a_run_killed_within_a_step_goes_on_bit_for_bit(processes, whole):
    folder, code, _, errors = processes["step"]
    assert code == -signal.SIGKILL, errors
    assert set(saved_steps(folder / "checkpoints")) in ({4, 8}, {4})
    same(run(folder), whole[1])


def test_a_run_killed_within_a_save_goes_on_bit_for_bit(processes, whole):
    folder, code, _, errors = processes["save"]
    assert code == -signal.SIGKILL, errors
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left[0] == "4" and left[1].startswith("8.") and len(left) == 2
    same(run(folder), whole[1])
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == ["12", "4", "8"]


def test_a_full_disk_ends_a_run_which_goes_on_bit_for_bit_once_there_is_room(processes, tmp_path):
    folder, code, _, errors = processes["full"]
    assert code == 1, errors
    sentence = errors.strip().splitlines()[-1]
    assert f"cannot be written into {folder}/checkpoints: File too large; make room" in sentence
    assert sentence.endswith(f"the last good checkpoint is {folder}/checkpoints/8.")
    assert "Traceback" not in errors
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left[:2] == ["12.orbax-checkpoint-tmp", "4"]
    same(run(folder, model=LARGE), run(tmp_path, model=LARGE))
    assert saved_steps(folder / "checkpoints") == [4, 8, 12]


def test_a_terminated_run_saves_exits_with_0_and_goes_on_bit_for_bit(processes, whole):
    folder, code, _, errors = processes["term"]
    assert code == 0, errors
    assert "Stopped by SIGTERM;" in errors
    (step,) = saved_steps(folder / "checkpoints")
    assert 8 <= step <= 10
    same(run(folder), whole[1])
