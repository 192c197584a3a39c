"""A run of two processes under random faults; its end is compared with an undisturbed run's.

    python tests/training/soak.py --faults=200 --seed=0

The schedule follows from the seed: what happens, to which process, how long after the run came
back. A fault is survived when the run makes steps after it. It prints a table and exits
with 1 unless the last parameters and the loss of every step are those of the undisturbed run.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import fault_process
import standin
from simvlm_jax import supervisor
from simvlm_jax.training.reading import restore_params, saved_steps

STEPS_A_FAULT, FIRST_STEPS = 25, 100
EVERY = 20  # steps between checkpoints
STEP_SECONDS = 0.05  # while faults go on, so that a second is some steps
DELAYS = 0.3, 1.5  # seconds from a new step to the next fault, at least and at most
SHORT = 0.5  # seconds of a stop that does no harm
PATIENCE = 120  # seconds without a new step
CALM = "calm"  # a file that lets steps be fast


class Stream(standin.Stream):
    """The stand-in's; a batch takes some time while faults go on."""

    def __init__(self, model_dir):
        super().__init__()
        self._calm = Path(model_dir) / CALM

    def batch(self, step):
        if not self._calm.exists():
            time.sleep(STEP_SECONDS)
        return super().batch(step)


def flip(path: Path, chance: random.Random) -> None:
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    """Leaves the first part."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def remove(path: Path, chance: random.Random) -> None:
    """Takes the file away, as a save that was half done would."""
    path.unlink()


KINDS = ("kill", "kill all", "stop", "short stop", "terminate", "flip", "truncate", "remove")
DAMAGES: dict[str, Callable] = {"flip": flip, "truncate": truncate, "remove": remove}


@dataclasses.dataclass
class Fault:
    """What happened, and what it cost.

    Attributes:
        kind: Of `KINDS`; damage is followed by a kill, so that it is read.
        process: 0 or 1.
        step: The newest step when it happened.
        lost: Steps that were trained again.
        seconds: From it to the first step after the run has started again (after a short stop,
            to the next step).
    """

    kind: str
    process: int
    step: int
    lost: int = 0
    seconds: float = 0.0


class Soak:
    """A supervised run and what it says; faults are done to it one by one."""

    def __init__(self, model_dir: Path, seed: int, faults: int, total: int) -> None:
        """Starts the run."""
        self._model_dir, self._chance, self._faults = model_dir, random.Random(seed), faults
        self._spoiled: set[int] = set()
        self.steps: list[tuple[float, int, bool]] = []  # when, which, whether a start's first
        self._process = start(model_dir, total)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def torment(self) -> list[Fault]:
        """Does all faults, each some time after the run makes new steps again."""
        done = []
        for number in range(self._faults):
            self._wait_for_step(len(self.steps))
            time.sleep(self._chance.uniform(*DELAYS))
            fault = Fault(self._chance.choice(KINDS), self._chance.randrange(2), self.steps[-1][1])
            began, heard = time.monotonic(), len(self.steps)
            self._do(fault)
            place = self._wait_for_step(heard, starting=fault.kind != "short stop")
            at, step, _ = self.steps[place]
            fault.seconds = at - began
            fault.lost = max(0, self.steps[place - 1][1] - step + 1)
            done.append(fault)
            print(f"{number + 1}/{self._faults} {fault}", file=sys.stderr, flush=True)
        return done

    def finish(self) -> int:
        """Lets the run come to its end; returns the supervisor's exit code."""
        (self._model_dir / CALM).touch()
        code = self._process.wait(20 * PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def stop(self) -> None:
        """Ends everything."""
        self._process.kill()

    def _read(self) -> None:
        for line in self._process.stderr:
            if found := re.search(r"step (\d+)/\d+", line):
                self.steps.append((time.monotonic(), int(found[1]), "compiled in" in line))
            elif "cudart" not in line and "absl" not in line:
                sys.stderr.write(line)

    def _wait_for_step(self, heard: int, starting: bool = False) -> int:
        """The place of the next step that was told after so many, or of a start's first."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for place in range(heard, len(self.steps)):
                if self.steps[place][2] or not starting:
                    return place
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The run makes no steps any more: see above.")
            time.sleep(0.01)

    def _do(self, fault: Fault) -> None:
        children = {0: [], 1: []} | children_of(self._process.pid)
        number = signal.SIGKILL
        if fault.kind in DAMAGES:
            self._damage(DAMAGES[fault.kind])
        elif fault.kind == "terminate":
            number = signal.SIGTERM
        elif "stop" in fault.kind:
            number = signal.SIGSTOP
        for process, pids in children.items():
            if fault.kind == "kill all" or process == fault.process:
                for pid in pids:
                    os.kill(pid, number)
        if fault.kind == "short stop":
            time.sleep(SHORT)
            for pid in children[fault.process]:
                os.kill(pid, signal.SIGCONT)

    def _damage(self, damage: Callable) -> None:
        """Damages a file of the newest checkpoint, unless no whole one would be left."""
        folder = self._model_dir / "checkpoints"
        steps = saved_steps(folder)
        if len(set(steps) - self._spoiled) < 2 or steps[-1] in self._spoiled:
            return
        self._spoiled.add(steps[-1])
        files = [p for p in (folder / str(steps[-1])).rglob("*") if p.is_file()]
        sized = sorted(path for path in files if path.stat().st_size)
        damage(self._chance.choice(sized), self._chance)


def children_of(pid: int) -> dict[int, list[int]]:
    """Processes of a supervisor, by their number in the run."""
    found: dict[int, list[int]] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        if number := re.search(r"--process_index=(\d)", command):
            found.setdefault(int(number[1]), []).append(int(child))
    return found


def start(model_dir: Path, total: int, every: int = EVERY) -> subprocess.Popen:
    """Starts the supervisor."""
    model_dir.mkdir(exist_ok=True)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(model_dir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parent))),
    }
    settings = {"model_dir": str(model_dir), "total_steps": total, "checkpoint_every": every}
    return subprocess.Popen(
        [sys.executable, __file__, "supervise", json.dumps(settings)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def supervise(settings: str) -> int:
    """Is the supervisor."""
    # Faults come faster than checkpoints here: no run would be given so many starts without one.
    patience = supervisor.Patience(
        attempts=100, stopped_seconds=2, grace_seconds=1, longest_wait_seconds=0.5
    )
    command = [sys.executable, __file__, "train", settings]
    return supervisor.supervise(command, json.loads(settings)["model_dir"], 2, patience)


def train(settings: str, flags: list[str]) -> None:
    """Is one of the two processes."""
    values = json.loads(settings)
    model_dir = values["model_dir"]
    standin.Stream = lambda: Stream(model_dir)
    values["optimizer"] = {"schedule": values["total_steps"]}
    fault_process.PATIENCE_MINUTES = 2
    fault_process.train(values, flags)


def same_end(one: Path, other: Path) -> bool:
    """Whether the last parameters of two runs, and the loss of every step, are equal."""
    left, right = (jax.tree.leaves(restore_params(folder)) for folder in (one, other))
    equal = all(map(np.array_equal, left, right))
    return equal and standin.losses(one) == standin.losses(other)


def soak(folder: Path, faults: int, seed: int) -> tuple[list[Fault], bool]:
    """Runs both; returns what happened, and whether their ends are equal."""
    total = FIRST_STEPS + STEPS_A_FAULT * faults
    tormented, calm = folder / "tormented", folder / "calm run"
    run = Soak(tormented, seed, faults, total)
    try:
        done = run.torment()
        code = run.finish()
    finally:
        run.stop()
    calm.mkdir()
    (calm / CALM).touch()
    undisturbed = start(calm, total, every=total)
    undisturbed.communicate()
    return done, code == undisturbed.returncode == 0 and same_end(tormented, calm)


def table(faults: list[Fault]) -> str:
    """Figures by kind, as Markdown."""
    lines = [
        "| fault | times | steps lost, median (most) | seconds to go on, median (most) |",
        "|---|---|---|---|",
    ]
    for kind in (*KINDS, "all"):
        some = [fault for fault in faults if kind in (fault.kind, "all")]
        if some:
            lost, seconds = [f.lost for f in some], [f.seconds for f in some]
            lines.append(
                f"| {kind} | {len(some)} | {np.median(lost):.0f} ({max(lost)}) | "
                f"{np.median(seconds):.1f} ({max(seconds):.1f}) |"
            )
    return "\n".join(lines)


def main() -> int:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        faults, same = soak(Path(folder), args.faults, args.seed)
    print(table(faults))
    print(f"{len(faults)} faults in {time.monotonic() - began:.0f} s; ends are equal: {same}")
    return not same


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["supervise", given]:
            sys.exit(supervise(given))
        case ["train", given, *meeting]:
            train(given, meeting)
        case _:
            sys.exit(main())
