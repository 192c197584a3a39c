"""Checkpoints of several processes: other counts and meshes, damage that one sees, lost saves."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import checkpoint_process
from simvlm_jax.training.checkpoints import Checkpoints
from simvlm_jax.training.reading import saved_steps

SCRIPT = Path(checkpoint_process.__file__)
ROOT = Path(__file__).parents[2]


def start(count, doings, devices=2):
    """Starts some processes with so many devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(port), str(count), str(index), json.dumps(doings)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def end(processes):
    """Returns their exit codes and what they said, in their order."""
    try:
        told = [process.communicate(timeout=120)[1] for process in processes]
        return [process.returncode for process in processes], told
    finally:
        for process in processes:
            process.kill()


def restored_here(folder):
    mesh = checkpoint_process.mesh_of(1)
    with Checkpoints(folder) as saved:
        return saved.restore_latest(checkpoint_process.target(mesh))


def require_step(state, step):
    checkpoint_process.require_same(state, checkpoint_process.contents(step))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{name: (folder, exit codes, what was said)}; those that can run at the same time do."""
    names = ("whole", "full_0", "full_1")
    folders = {name: tmp_path_factory.mktemp(name) for name in names}
    whole = {"model_dir": str(folders["whole"])}
    started = {
        "whole": start(
            2,
            [
                {"do": "save", "steps": [1, 2, 3], "fsdp": 4, **whole},
                {"do": "restore", "step": 3, "fsdp": 4, **whole},
                {"do": "restore", "step": 3, "fsdp": 1, **whole},
                {"do": "files", "model_dir": str(folders["whole"] / "file")},
            ],
        )
    }
    for number in range(2):
        name = f"full_{number}"
        doing = {"do": "save", "steps": [1, 2, 3], "fsdp": 4, "limited": number}
        started[name] = start(2, [doing | {"model_dir": str(folders[name])}])
    return {name: (folders[name], *end(processes)) for name, processes in started.items()}


def test_two_processes_save_and_restore_on_two_meshes(outcomes):
    folder, codes, told = outcomes["whole"]
    assert codes == [0, 0], told
    assert saved_steps(folder / "checkpoints") == [1, 2, 3]


def test_what_two_saved_four_and_one_restore(outcomes):
    folder = outcomes["whole"][0]
    four = start(4, [{"do": "restore", "model_dir": str(folder), "step": 3, "fsdp": 2}], devices=1)
    require_step(restored_here(folder), 3)
    codes, told = end(four)
    assert codes == [0] * 4, told


def test_what_one_process_cannot_read_none_uses(outcomes, tmp_path):
    """Step 3 is damaged for all, step 2 for process 1 alone, which then is saved again."""
    folder = shutil.copytree(outcomes["whole"][0], tmp_path / "copy")
    for path in (folder / "checkpoints" / "3").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-1])
    doing = {"model_dir": str(folder), "step": 1, "unreadable": 2}
    doings = [doing | {"do": "read"}, doing | {"do": "restore", "fsdp": 4}]
    codes, told = end(start(2, doings))
    assert codes == [0, 0], told
    assert "checkpoints/3 cannot be read" in told[0] and "process 1 says so" in told[0]
    assert told[0].count("Going on from step 1 instead.") == 1
    assert "checkpoints" not in told[1]
    aside = folder / "damaged_checkpoints"
    assert sorted(path.name for path in aside.iterdir()) == ["2", "3"]
    assert saved_steps(folder / "checkpoints") == [1, 2]
    require_step(restored_here(folder), 2)


@pytest.mark.parametrize("full", [0, 1])
def test_a_save_that_fails_on_one_process_ends_both(outcomes, full):
    folder, codes, told = outcomes[f"full_{full}"]
    assert codes[full] == 2 and codes[1 - full] != 0, told
    sentence = told[full].strip().splitlines()[-1]
    assert f"A checkpoint cannot be written into {folder}/checkpoints: File too large;" in sentence
    assert sentence.endswith(f"the last good checkpoint is {folder}/checkpoints/1.")
    assert "Traceback" not in told[full]
    assert saved_steps(folder / "checkpoints") == [1]
    require_step(restored_here(folder), 1)
    checkpoint_process.save(folder, [2])
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["1", "2"]


def test_what_all_are_told_each_says_also_a_slow_one():
    """Process 0 has the store: once it is gone, another one could only say that it is lost."""
    codes, told = end(start(2, [{"do": "differ"}]))
    assert codes == [2, 2], told
    assert all("has other numbers than process 0" in text for text in told)
