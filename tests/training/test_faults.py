"""What can happen to a run of two processes, with real processes and signals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import fault_process
from simvlm_jax.errors import LostError
from simvlm_jax.training.reading import restore_params, saved_steps
from standin import losses, same

SCRIPT = Path(fault_process.__file__)
ROOT = Path(__file__).parents[2]
LONGEST = 60  # seconds from a fault to the end of the start that it hits


def start(model_dir, **settings):
    """A supervised run of two processes."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    settings = {"model_dir": str(model_dir), **settings}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "supervise", json.dumps(settings), "2"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    """Its exit code, what it said, and how many seconds its first start took."""
    try:
        _, said = process.communicate(timeout=4 * LONGEST)
    finally:
        process.kill()
    first = next(line for line in said.splitlines() if "start 1 lasted" in line)
    return process.returncode, said, int(first.split("lasted ")[1].split()[0])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, said, _ = end(start(folder))
    assert code == 0, said
    return folder


def endings(said):
    """How the processes of the first start ended, in their order."""
    lines = said.split("start 1 lasted")[0].splitlines()
    marks = [f"supervise: process {number} ended with code " for number in range(2)]
    return [
        next(int(line.removeprefix(mark).split(":")[0]) for line in lines if line.startswith(mark))
        for mark in marks
    ]


# What happens, to which process, and how that one ends (128 and the signal's number, or a code).
LOST = [("kill", 1, 137), ("kill", 0, 137), ("fail", 1, 1), ("stop", 1, 137), ("hang", 1, 1)]


@pytest.mark.parametrize(("fault", "on", "code"), LOST)
def test_a_lost_process_ends_all_and_all_go_on_bit_for_bit(undisturbed, tmp_path, fault, on, code):
    returned, said, seconds = end(start(tmp_path, fault=fault, at=9, on=on))
    assert returned == 0 and seconds < LONGEST, said
    assert endings(said)[on] == code
    # JAX aborts it (134), or it notices first that something does not come.
    assert endings(said)[1 - on] in (134, 1, LostError.exit_code), said
    assert "newest checkpoint: step 4" in said or "newest checkpoint: step 8" in said
    same(restore_params(tmp_path, 12), restore_params(undisturbed, 12))
    assert losses(tmp_path) == losses(undisturbed)


def test_sigterm_to_one_process_saves_on_all_and_the_run_goes_on(undisturbed, tmp_path):
    returned, said, _ = end(start(tmp_path, fault="terminate", at=9, on=1, checkpoint_every=100))
    assert returned == 0 and endings(said) == [0, 0], said
    assert "Stopped by SIGTERM" in said and "start 2 of 2 processes" in said
    step, last = saved_steps(tmp_path / "checkpoints")
    assert 8 <= step <= 11 and last == 12
    same(restore_params(tmp_path, 12), restore_params(undisturbed, 12))


@pytest.mark.parametrize(
    ("fault", "on", "sentence"),
    [("fill_disk", 1, "File too large"), ("seal_folder", 0, "/checkpoints")],
)
def test_where_nothing_can_be_saved_a_person_is_asked(undisturbed, tmp_path, fault, on, sentence):
    returned, said, seconds = end(start(tmp_path, fault=fault, at=5, on=on))
    assert returned == 2 and seconds < LONGEST and "start 2" not in said, said
    assert "A checkpoint cannot be written into" in said and sentence in said
    if fault == "seal_folder":
        (tmp_path / "checkpoints").unlink()
        (tmp_path / "away").rename(tmp_path / "checkpoints")
    assert saved_steps(tmp_path / "checkpoints") == [4]
    returned, said, _ = end(start(tmp_path))
    assert returned == 0, said
    same(restore_params(tmp_path, 12), restore_params(undisturbed, 12))


def test_a_poisoned_batch_stops_all_before_it_is_saved(undisturbed, tmp_path):
    returned, said, _ = end(start(tmp_path, stream={"poison_at": 6}))
    assert returned == 2 and endings(said) == [2, 2], said
    assert "became nan at step 7: lower the learning rate" in said
    assert f"the last good checkpoint is {tmp_path}/checkpoints/4" in said
    assert saved_steps(tmp_path / "checkpoints") == [4]


def test_a_clock_that_jumps_costs_a_start_at_most(undisturbed, tmp_path):
    """Orbax's waits for a save end at once then; what was being saved is trained again."""
    settings = {"checkpoint_minutes": 60, "keep": {"newest": 3, "every_hours": 24}}
    returned, said, seconds = end(start(tmp_path, fault="move_clock", at=5, on=0, **settings))
    assert returned == 0 and seconds < LONGEST and "start 3" not in said, said
    assert saved_steps(tmp_path / "checkpoints") == [4, 8, 12]
    same(restore_params(tmp_path, 12), restore_params(undisturbed, 12))
    assert losses(tmp_path) == losses(undisturbed)


def test_a_reader_of_data_that_hangs_does_not_hold_up_the_end(tmp_path):
    """The loss of step 3 is no number, and the batch after it never comes."""
    program = (
        "import sys, time, standin\n"
        "class Stream(standin.Stream):\n"
        "    def batch(self, step):\n"
        "        time.sleep(1000 * (step == 3))\n"
        "        return super().batch(step)\n"
        "standin.Stream = Stream\n"
        "standin.run(sys.argv[1], log_every=1, patience_minutes=0.1, stream={'poison_at': 2})\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(SCRIPT.parent)]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LONGEST,
    )
    assert ended.returncode == 1 and "Timeout (" in ended.stderr, ended.stderr
