"""Keeps a run going: starts its processes, and starts them again when they end before the run does.

A process that dies takes the others with it (JAX ends them with code 134), so they all start again,
from the newest checkpoint. What cannot get better by that stops with a sentence: bad input (code
2), and starts in a row that bring no new checkpoint. Neither JAX nor TensorFlow is imported, and
there are no threads: one loop waits for output, ends of processes and signals at once.
"""

import dataclasses
import json
import selectors
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simvlm_jax.children import Child, describe, write_errors
from simvlm_jax.errors import UserError

BAD_INPUT, GAVE_UP, INTERRUPTED = 2, 1, 130
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long and how often to wait.

    Attributes:
        attempts: Starts in a row without a new checkpoint before giving up.
        stopped_seconds: So long may a process be stopped (SIGSTOP) before it counts as lost.
        grace_seconds: So long the other processes may live on after one ended badly.
        first_wait_seconds: Before the third of such starts; twice as long before each further one.
        longest_wait_seconds: Never more than this.
        poll_seconds: How often to look for processes that are stopped.
    """

    attempts: int = 3
    stopped_seconds: float = 10.0
    grace_seconds: float = 5.0
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    poll_seconds: float = 0.2

    def wait_seconds(self, failures: int) -> float:
        """How long to wait after so many starts in a row without a new checkpoint."""
        if failures < 2:
            return 0.0
        doublings = min(failures - 2, 30)  # a float would overflow one day
        return min(self.first_wait_seconds * 2**doublings, self.longest_wait_seconds)


def supervise(
    command: Sequence[str],
    model_dir: str,
    processes: int | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
) -> int:
    """Runs a command until the run in its folder is finished.

    Args:
        command: A program and its arguments.
        model_dir: The run's folder, local or in a bucket; its checkpoints tell progress.
        processes: How many to start on this machine, each with the flags that let them meet;
            None starts the command as it is, once.
        patience: How long and how often to wait.

    Returns:
        The exit code: 0 when the run is finished, 2 after bad input, 1 after too many starts
        without a new checkpoint, 130 after Ctrl-C; after SIGTERM the processes' own.

    Raises:
        UserError: If there is no such program.
    """
    if not shutil.which(command[0]):
        raise UserError(
            f"There is no program {command[0]!r} to supervise: mend the PATH, or give a whole path."
        )
    with _Signals() as signals:
        return _Run(list(command), model_dir, processes, patience, signals).to_the_end()


class _Signals:
    """What this process was asked to do; and a file descriptor that wakes whoever waits."""

    def __enter__(self) -> "_Signals":
        self.asked: list[int] = []
        self.wakes, self._write = socket.socketpair()
        self.wakes.setblocking(False)
        self._write.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        # A signal that is ignored stays so (nohup); the processes inherit that too.
        wanted = [n for n in PASSED_ON if signal.getsignal(n) != signal.SIG_IGN]
        self._before = {n: signal.signal(n, self._note) for n in (*wanted, signal.SIGCHLD)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self.wakes.close()
        self._write.close()

    def _note(self, number: int, _: Any) -> None:
        if number != signal.SIGCHLD:
            self.asked.append(number)

    def wait(self, seconds: float, children: Sequence[Child] = ()) -> None:
        """Returns when there is output, a signal or an end of a process, or after so long."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.wakes, selectors.EVENT_READ)
            for child in children:
                if child.errors is not None:
                    selector.register(child.errors, selectors.EVENT_READ)
            selector.select(seconds)
        try:
            while self.wakes.recv(4096):
                pass
        except BlockingIOError:
            pass


@dataclasses.dataclass
class _Run:
    command: list[str]
    model_dir: str
    processes: int | None
    patience: Patience
    signals: _Signals

    def to_the_end(self) -> int:
        failures, starts, newest = 0, 0, self._newest_step(None)
        while True:
            starts += 1
            before, began = newest, time.monotonic()
            children, first_bad = self._start(starts)
            newest = self._newest_step(before)
            _say(
                f"start {starts} lasted {time.monotonic() - began:.0f} s; "
                f"newest checkpoint: {_step(newest)}"
            )
            if self.signals.asked:
                return self._asked_code(children)
            code = first_bad.code if first_bad else 0
            if code == BAD_INPUT:
                _say("not started again: code 2 is bad input, which the line above explains")
                return BAD_INPUT
            if code == 0 and (open_end := self._open_end()) is None:
                _say("done")
                return 0
            if _grew(before, newest) and self._complete(newest):
                _say("done: the last step was saved before that")
                return 0
            failures = 0 if _grew(before, newest) else failures + 1
            if failures >= self.patience.attempts:
                last_words = (first_bad or children[0]).last_words
                write_errors(self._gave_up(failures, code, last_words, newest) + "\n")
                return GAVE_UP
            if code == 0:
                _say(f"the run is not finished ({open_end})")
            self._wait_between(self.patience.wait_seconds(failures))
            if self.signals.asked:
                return 128 + self.signals.asked[0]

    def _start(self, number: int) -> tuple[list[Child], Child | None]:
        """Runs all processes once, until the last has ended; also tells which ended badly first."""
        commands = [self.command]
        if self.processes is not None:
            commands = _meeting(self.command, self.processes)
        several = len(commands) > 1
        of = f" of {self.processes} processes" if several else ""
        _say(f"start {number}{of}: {shlex.join(self.command)}")
        children = [
            Child(
                command,
                f"process {index}" if several else "the process",
                index if several else None,
            )
            for index, command in enumerate(commands)
        ]
        first_bad, deadline, passed_on = None, float("inf"), 0
        while running := [child for child in children if child.code is None]:
            passed_on = self._pass_signals_on(running, passed_on)
            self.signals.wait(self.patience.poll_seconds, running)
            for child in running:
                child.look(self.patience.stopped_seconds)
                if child.code is None:
                    continue
                _say(f"{child.name} ended with {describe(child.code)}")
                if child.code and first_bad is None:
                    first_bad = child
                    deadline = time.monotonic() + self.patience.grace_seconds
            if time.monotonic() > deadline and not self.signals.asked:
                for child in running:
                    child.kill(f"it could only wait for {first_bad.name}")
        return children, first_bad

    def _pass_signals_on(self, running: Sequence[Child], done: int) -> int:
        """Sends the processes the signals after the first `done`; returns how many there were."""
        asked = list(self.signals.asked)
        for position, number in enumerate(asked[done:], done):
            again = number == signal.SIGINT and signal.SIGINT in asked[:position]
            _say(f"{signal.Signals(number).name} is passed on{', as SIGKILL' if again else ''}")
            for child in running:
                child.send(signal.SIGKILL if again else number)
        return len(asked)

    def _asked_code(self, children: Sequence[Child]) -> int:
        if signal.SIGINT in self.signals.asked:
            return INTERRUPTED
        return next((child.code for child in children if child.code), 0)

    def _wait_between(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        _say(f"starting again {f'in {seconds:g} s' if seconds else 'at once'}")
        while (left := end - time.monotonic()) > 0 and not self.signals.asked:
            self.signals.wait(left)

    def _newest_step(self, otherwise: int | None) -> int | None:
        try:
            return newest_step(self.model_dir)
        except Exception as error:  # a bucket's client has exceptions of its own
            _say(f"{self.model_dir} could not be read: {_one_line(str(error))}")
            return otherwise

    def _open_end(self) -> str | None:
        """Says how far the run is, if it says of itself that it is not finished."""
        try:
            return open_end(self.model_dir)
        except Exception as error:
            return f"its training.json could not be read: {_one_line(str(error))}"

    def _complete(self, newest: int | None) -> bool:
        """Whether the newest checkpoint is the run's last; the other hosts then wait for nobody."""
        return self._open_end() is None and last_step(self.model_dir) == newest

    def _gave_up(self, failures: int, code: int, last_words: str, newest: int | None) -> str:
        times = f"{failures} times in a row" if failures > 1 else "once"
        ending = f", which said last: {last_words}" if last_words else ""
        return (
            f"Gave up after {self.command[0]} was started {times} without a new checkpoint in "
            f"{self.model_dir} (newest: {_step(newest)}); it ended with {describe(code)}{ending}; "
            f"mend what its output above names and start the same command again: "
            f"{shlex.join(self.command)}"
        )


def newest_step(model_dir: str) -> int | None:
    """Finds the newest finished checkpoint, ours or T5X's.

    Args:
        model_dir: The run's folder.

    Returns:
        Its step, or None where there is no checkpoint.
    """
    folder = _path(model_dir)
    # In a bucket a folder cannot be renamed when it is whole: Orbax leaves a file in it instead.
    mark = "commit_success.txt" if "://" in model_dir else "."
    own, t5x = folder / "checkpoints", "checkpoint_"
    found = [(path.name, path) for path in (own.iterdir() if own.exists() else ())]
    found += [(path.name.removeprefix(t5x), path) for path in folder.glob(f"{t5x}*")]
    found = [(int(name), path) for name, path in found if name.isdecimal()]
    for step, path in sorted(found, reverse=True, key=lambda item: item[0]):
        if path.name.startswith(t5x) or (path / mark).exists():
            return step
    return None


def open_end(model_dir: str) -> str | None:
    """Says how far a run is that is not finished; None where nothing says so."""
    if (record := _record(model_dir)) is None:
        return None
    steps, total = record["steps"], record["total_steps"]
    return f"step {steps} of {total}" if steps < total else None


def last_step(model_dir: str) -> int | None:
    """The last step that a run was told to make; None where nothing says so."""
    record = _record(model_dir)
    return None if record is None else record["total_steps"]


def _record(model_dir: str) -> dict | None:
    file = _path(model_dir) / "training.json"
    return json.loads(file.read_text()) if file.exists() else None


def _path(model_dir: str) -> Any:
    if "://" not in model_dir:
        return Path(model_dir)
    from etils import epath  # brings a bucket's client, which a local folder does not need

    return epath.Path(model_dir)


def _meeting(command: Sequence[str], processes: int) -> list[list[str]]:
    """The command of each process, with what lets them meet at a port that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = [f"--coordinator_address=127.0.0.1:{port}", f"--process_count={processes}"]
    return [[*command, *flags, f"--process_index={index}"] for index in range(processes)]


def _grew(before: int | None, after: int | None) -> bool:
    return after is not None and (before is None or after > before)


def _step(step: int | None) -> str:
    return "none" if step is None else f"step {step}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _say(sentence: str) -> None:
    write_errors(f"supervise: {sentence}\n")
