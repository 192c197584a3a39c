"""One process of a run of the stand-in, to which something happens; or the run, supervised.

    python fault_process.py '{"model_dir": ..., "fault": NAME, "at": STEP, "on": PROCESS}' [FLAGS]
    python fault_process.py supervise '{...}' PROCESSES

What happens is in `FAULTS`. It happens once: a file in the run's folder remembers it.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import standin
from simvlm_jax import hosts, supervisor
from simvlm_jax.errors import UserError

HEARTBEAT, PATIENCE_MINUTES = 5, 0.2
STEPS = 12


def kill(model_dir):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(model_dir):
    raise RuntimeError("something nobody thought of")


def terminate(model_dir):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3)  # JAX tells the others in the background, and these steps take no time


def stop(model_dir):
    os.kill(os.getpid(), signal.SIGSTOP)


def hang(model_dir):
    time.sleep(1000)


def fill_disk(model_dir):
    _wait_for_first_save(model_dir)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))


def seal_folder(model_dir):
    """Nobody can make anything in /proc, also not root."""
    _wait_for_first_save(model_dir)
    (model_dir / "checkpoints").rename(model_dir / "away")
    (model_dir / "checkpoints").symlink_to("/proc")


def move_clock(model_dir):
    """As when a machine finds out that its clock was wrong: a year ahead, for all that ask."""
    now, moved = time.time, time.time_ns
    time.time = lambda: now() + 3.15e7
    time.time_ns = lambda: moved() + int(3.15e16)


def _wait_for_first_save(model_dir):
    while not (model_dir / "checkpoints" / "4").exists():
        time.sleep(0.05)


FAULTS = {
    action.__name__: action
    for action in (kill, fail, terminate, stop, hang, fill_disk, seal_folder, move_clock)
}


class Stream(standin.Stream):
    """The stand-in's, in which something happens while a batch is made."""

    def __init__(self, model_dir, fault, at, on):
        super().__init__()
        self._model_dir, self._fault, self._at, self._on = model_dir, fault, at, on

    def batch(self, step):
        mark = self._model_dir / f"fault-{self._fault}"
        if step == self._at and hosts.index() == self._on and not mark.exists():
            mark.touch()
            FAULTS[self._fault](self._model_dir)
        return super().batch(step)


def train(settings, flags):
    """Joins and trains; ends as `simvlm train` does."""
    values = dict(flag.removeprefix("--").split("=") for flag in flags)
    if values:
        address, count, index = values.values()
        hosts.join(address, int(count), int(index), HEARTBEAT, meeting_seconds=30)
    model_dir = Path(settings.pop("model_dir"))
    if "fault" in settings:
        fault = {name: settings.pop(name) for name in ("fault", "at", "on")}
        standin.Stream = lambda: Stream(model_dir, **fault)
    try:
        standin.run(model_dir, log_every=1, patience_minutes=PATIENCE_MINUTES, **settings)
    except UserError as error:
        print(error, file=sys.stderr)
        hosts.leave(error.exit_code)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        hosts.leave(1)


def main():
    """Trains, or supervises."""
    if sys.argv[1] != "supervise":
        train(json.loads(sys.argv[1]), sys.argv[2:])
        return
    settings = json.loads(sys.argv[2])
    # The others get time to find out by themselves that one is lost: that is what is tested.
    patience = supervisor.Patience(grace_seconds=40, stopped_seconds=3 * HEARTBEAT)
    command = [sys.executable, __file__, sys.argv[2]]
    sys.exit(supervisor.supervise(command, settings["model_dir"], int(sys.argv[3]), patience))


if __name__ == "__main__":
    main()
