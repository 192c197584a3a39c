"""Runs the stages of all runs, some at a time, each as a process of its own with a log of its own.

A stage that is finished has a note beside its log and is not run again; one that was interrupted
goes on, because `simvlm train` resumes. One that fails ends its run, and the others go on.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from simvlm_jax.ablation.plan import METRICS, Run, Stage
from simvlm_jax.children import describe, tied
from simvlm_jax.errors import UserError, writing
from simvlm_jax.json_files import read_object
from simvlm_jax.training.folder import write_atomic

POLL_SECONDS, GRACE_SECONDS = 0.2, 60
LOG_END = 1 << 16  # bytes that are searched for a last sentence
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass
class Outcome:
    """How it ended.

    Attributes:
      failures: one sentence for each run that failed.
      stopped: a signal, or the time that was given, ended it before all was done.
    """

    failures: list[str]
    stopped: bool


def note_of(run: Run, stage: Stage) -> Path:
    """Where it is noted that a stage is finished, and how many seconds it took."""
    return run.folder / f"{stage.name}.json"


def seconds_of(run: Run, stage: Stage) -> float | None:
    """What a finished stage took, all its starts together; None if it is not finished."""
    noted = _noted(run, stage)
    return noted["seconds"] if noted.get("finished") else None


def run_all(
    runs: Sequence[Run],
    parallel: int = 1,
    minutes: float | None = None,
    tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Runs everything that is not finished.

    Args:
      runs: in this order.
      parallel: so many at a time, each on its own share of the cores.
      minutes: after so many no further stage is begun.
      tell: takes a line of progress.
      environment: of the processes, beside this one's.

    Returns:
      The outcome.
    """
    with _signals() as asked:
        return _Runner(runs, parallel, minutes, tell, environment or {}, asked).to_the_end()


class _Runner:
    def __init__(self, runs, parallel, minutes, tell, environment, asked):
        self._runs, self._tell, self._asked = list(runs), tell, asked
        self._environment = {**os.environ, **environment}
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self._shares = shares_of_cores(sorted(os.sched_getaffinity(0)), parallel)
        self._waiting = [run for run in self._runs if next_stage(run)]
        self._going: dict[int, _Process] = {}  # by share
        self._failures: list[str] = []

    def to_the_end(self) -> Outcome:
        late = False
        while self._going or (self._waiting and not late):
            if self._asked:
                self._stop()
                return Outcome(self._failures, stopped=True)
            late = self._deadline is not None and time.monotonic() > self._deadline
            for share in range(len(self._shares)):
                if share not in self._going and self._waiting and not late:
                    self._begin(share, self._waiting.pop(0))
            time.sleep(POLL_SECONDS)
            for share, process in list(self._going.items()):
                if process.popen.poll() is not None:
                    self._finish(share, process, late)
        return Outcome(self._failures, stopped=bool(self._waiting))

    def _begin(self, share: int, run: Run) -> None:
        stage = next_stage(run)
        log = run.folder / f"{stage.name}.log"
        with writing(log), _on_cores(self._shares[share]):
            run.folder.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                popen = subprocess.Popen(
                    tied(stage.command),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    process_group=0,
                )
        self._going[share] = _Process(popen, run, stage, log, time.monotonic())
        self._report(run, stage.name)

    def _finish(self, share: int, process: "_Process", late: bool) -> None:
        del self._going[share]
        run, stage, code = process.run, process.stage, process.popen.returncode
        finished = code == 0 and has_result(stage)
        _note(process, finished)
        if finished and not next_stage(run):
            self._report(run, "done")
        elif finished and late:
            self._waiting.insert(0, run)
        elif finished:
            self._begin(share, run)
        else:
            sentence = failure(process, code if code >= 0 else 128 - code)
            self._failures.append(sentence)
            self._tell(sentence)

    def _stop(self) -> None:
        """Lets every process save and end; what does not in time is killed."""
        self._tell("Stopping: what trains is saved first.")
        for process in self._going.values():
            _send(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._going.values():
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _send(process, signal.SIGKILL)
                process.popen.wait()
            _note(process, process.popen.returncode == 0 and has_result(process.stage))

    def _report(self, run: Run, what: str) -> None:
        done = sum(not next_stage(run) for run in self._runs)
        begun = [(p.stage.name, time.monotonic() - p.began) for p in self._going.values()]
        left = seconds_left(self._runs, begun, len(self._shares))
        ending = "eta unknown" if left is None else f"eta {left / 60:.0f} min"
        self._tell(f"ablate {done}/{len(self._runs)} runs  {run.title}: {what}  {ending}")


@dataclasses.dataclass
class _Process:
    popen: subprocess.Popen
    run: Run
    stage: Stage
    log: Path
    began: float


def next_stage(run: Run) -> Stage | None:
    """The first stage that is not finished; None where all are."""
    return next((stage for stage in run.stages if seconds_of(run, stage) is None), None)


def has_result(stage: Stage) -> bool:
    """Whether a stage that ended well is at its end: SIGTERM ends a training with code 0, too."""
    try:
        if stage.steps is None:
            return bool(read_object(stage.folder / METRICS))
        return read_object(stage.folder / "training.json").get("steps") == stage.steps
    except UserError:
        return False


def seconds_left(
    runs: Sequence[Run], begun: Sequence[tuple[str, float]], parallel: int
) -> float | None:
    """Estimates from the mean of what finished stages of the same name took.

    Args:
      runs: all of them.
      begun: name and seconds so far of each stage under way.
      parallel: how many go at a time.

    Returns:
      Seconds; None while a kind of stage that is still to come has never finished.
    """
    known: dict[str, list[float]] = {}
    waiting: list[str] = []
    for run in runs:
        for stage in run.stages:
            seconds = seconds_of(run, stage)
            if seconds is None:
                waiting.append(stage.name)
            else:
                known.setdefault(stage.name, []).append(seconds)
    if any(name not in known for name in waiting):
        return None
    means = {name: sum(found) / len(found) for name, found in known.items()}
    so_far = sum(min(seconds, means[name]) for name, seconds in begun)
    return (sum(means[name] for name in waiting) - so_far) / parallel


def shares_of_cores(cores: Sequence[int], parallel: int) -> list[list[int]]:
    """Deals out cores: 4 of them to 2 runs are [[0, 1], [2, 3]].

    Raises:
      UserError: there are fewer cores than runs at a time.
    """
    if parallel > len(cores):
        raise UserError(f"--parallel={parallel} runs need as many cores; here are {len(cores)}.")
    ends = [len(cores) * share // parallel for share in range(parallel + 1)]
    return [list(cores[a:b]) for a, b in zip(ends, ends[1:], strict=False)]


def failure(process: _Process, code: int) -> str:
    """One sentence on a run that failed, with the last line that it wrote."""
    with contextlib.suppress(OSError), process.log.open("rb") as file:
        file.seek(max(0, process.log.stat().st_size - LOG_END))
        lines = [
            " ".join(line.split()) for line in file.read().decode(errors="replace").split("\n")
        ]
        last = next((line for line in reversed(lines) if line), "it wrote nothing")
        return (
            f"{process.run.title}: {process.stage.name} failed ({describe(code)}): {last[:300]} "
            f"(all of it: {process.log})"
        )
    return f"{process.run.title}: {process.stage.name} failed ({describe(code)})."


def _noted(run: Run, stage: Stage) -> dict:
    path = note_of(run, stage)
    try:
        noted = read_object(path) if path.is_file() else {}
    except UserError:
        return {}
    right = isinstance(noted.get("seconds"), int | float) and noted.get("command") == [
        *stage.command
    ]
    return noted if right else {}


def _note(process: _Process, finished: bool) -> None:
    run, stage = process.run, process.stage
    seconds = _noted(run, stage).get("seconds", 0.0) + time.monotonic() - process.began
    noted = {"finished": finished, "seconds": round(seconds, 2), "command": [*stage.command]}
    with writing(note_of(run, stage)):
        write_atomic(note_of(run, stage), json.dumps(noted, indent=2).encode())


def _send(process: _Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.popen.pid, number)


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """A process that is started inside inherits these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Gathers signals that ask to stop, instead of dying of them."""
    asked: list[int] = []
    wanted = [n for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN]
    before = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in wanted}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
