"""One process that a supervisor started: what it writes, how it ended, and that it ends with us."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LONGEST_LINE = 65536  # bytes; a longer one is passed on in pieces
MOST_READS = 64  # in a row: one process that writes without end must not starve the others
KEPT_OF_LINE = 300
MEANINGS = {
    0: "done, or saved and stopped",
    1: "an error",
    2: "bad input",
    130: "interrupted",
    134: "another process was lost, or it aborted itself",
    137: "killed, perhaps for want of memory",
    139: "crashed",
    143: "terminated before it could save",
}
# Takes the place of the program's first moments: a child of its own could not say, between fork and
# exec, that it is to die with its parent, without running Python where other threads hold locks.
_TIED = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        os._exit(137)
for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(ignored_by_python, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Child:
    """A process in a group of its own, whose stderr is passed on and whose last line is kept."""

    def __init__(self, command: Sequence[str], name: str, index: int | None) -> None:
        """Starts it.

        Args:
            command: A program and its arguments.
            name: What to call it in sentences.
            index: Stands before each line of its stderr, where there are several.
        """
        self.name, self.code = name, None
        self._prefix = b"" if index is None else f"[{index}] ".encode()
        self._rest, self._lines = b"", collections.deque(maxlen=1)
        self._stopped_since: float | None = None
        self._killed = False
        self.errors, writes = os.pipe()
        os.set_blocking(self.errors, False)
        try:
            self._process = subprocess.Popen(
                tied(command),
                stdin=subprocess.DEVNULL,
                stderr=writes,
                process_group=0,
            )
        finally:
            os.close(writes)

    @property
    def last_words(self) -> str:
        """The last line that it wrote to stderr, cut to a readable length."""
        return self._lines[-1] if self._lines else ""

    def send(self, number: int) -> None:
        """Sends a signal to it and to what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self, reason: str) -> None:
        """Kills it, and says why; once."""
        if self.code is None and not self._killed:
            self._killed = True
            write_errors(f"supervise: {self.name} is killed: {reason}\n")
            self.send(signal.SIGKILL)

    def look(self, stopped_seconds: float) -> None:
        """Passes on what it wrote, and notes whether it has ended or is stopped for too long."""
        self._read()
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self.send(signal.SIGKILL)  # what it started, if anything: the number is still its own
            code = self._process.wait()
            self._read()
            self._close()
            self.code = code if code >= 0 else 128 - code
        elif not self._is_stopped():
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = time.monotonic()
        elif time.monotonic() - self._stopped_since > stopped_seconds:
            self.kill(f"it has been stopped for {stopped_seconds:g} s")

    def _is_stopped(self) -> bool:
        try:  # the state stands behind the name, which may hold anything
            status = Path(f"/proc/{self._process.pid}/stat").read_text(errors="replace")
        except OSError:  # no Linux
            return False
        return status.rpartition(")")[2].split()[0] == "T"

    def _read(self) -> None:
        for _ in range(MOST_READS):
            if self.errors is None:
                return
            try:
                data = os.read(self.errors, LONGEST_LINE)
            except BlockingIOError:
                return
            if data:
                self._pass_on(data)
            else:
                self._close()

    def _close(self) -> None:
        if self.errors is not None:
            os.close(self.errors)
            self.errors = None
            if self._rest:
                self._pass_on(b"\n")

    def _pass_on(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if words := " ".join(line.decode(errors="replace").split()):
                self._lines.append(words[:KEPT_OF_LINE])
        whole = b"".join(self._prefix + line + b"\n" for line in lines)
        write_errors(whole if self._prefix else data)


def tied(command: Sequence[str]) -> list[str]:
    """Returns a command that runs another one, which on Linux is killed when this process ends."""
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


def describe(code: int) -> str:
    """Says an exit code and what it means, e.g. "code 137: killed, perhaps for want of memory"."""
    meaning = MEANINGS.get(code)
    if meaning is None and code > 128:
        with contextlib.suppress(ValueError):
            meaning = signal.Signals(code - 128).name
    return f"code {code}: {meaning or 'an error'}"


def write_errors(text: str | bytes) -> None:
    """Writes to stderr; that nobody reads it any more is no reason for a run to end."""
    data = memoryview(text.encode() if isinstance(text, str) else text)
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(2, data) :]
