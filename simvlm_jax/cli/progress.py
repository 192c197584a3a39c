"""Progress of long work on stderr: how much, how fast, how long still."""

import sys
import time

SECONDS_BETWEEN_LINES = 5


class Progress:
    """One line on stderr: overwritten on a terminal, else a new one every few seconds."""

    def __init__(self):
        """Starts the clock."""
        self._start = self._last = time.monotonic()
        self._what = ""
        self._printed = float("-inf")

    def __call__(self, what: str, done: int, total: int, before: int = 0) -> None:
        """Tells where the work is.

        Args:
          what: a few words; the clock starts anew when they change.
          done: how much of it is done.
          total: how much there is.
          before: how much of `done` an earlier run had done.
        """
        now = time.monotonic()
        if what != self._what:
            self._start, self._what, self._printed = self._last, what, float("-inf")
        self._last = now
        recent = now - self._printed < SECONDS_BETWEEN_LINES
        if recent and done < total and not sys.stderr.isatty():
            return
        line = what
        if done > before:
            rate = (done - before) / max(now - self._start, 1e-3)
            line += f" {done}/{total}, {rate:.0f} a second, {(total - done) / rate:.0f} s left"
        elif before:
            line += f" {done}/{total}, done before"
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{line:<60}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
        self._printed = now
