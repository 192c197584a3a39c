"""Open files, a bounded number of them, that many threads read at places of their own."""

import collections
import contextlib
import os
import threading
import weakref
from collections.abc import Iterator

MOST_OPEN = 128  # a process may have 1,024 by default, and several sources are open at once


class Descriptors:
    """The most recently read files, held open; the others are closed when nobody reads them."""

    def __init__(self, most: int = MOST_OPEN):
        """Takes the number of files to hold open while nobody reads them."""
        self._most = most
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, _Descriptor] = collections.OrderedDict()
        weakref.finalize(self, _close_all, self._open)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Reads bytes of a file; fewer where it ends before.

        Args:
          path: a local file.
          offset: of the first byte.
          length: how many bytes.

        Raises:
          OSError: the file cannot be opened or read.
        """
        parts = []
        with self._borrow(path) as number:
            while length > 0 and (part := os.pread(number, length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __len__(self) -> int:
        """Returns how many files are held open."""
        return len(self._open)

    @contextlib.contextmanager
    def _borrow(self, path: str) -> Iterator[int]:
        with self._lock:
            entry = self._open.get(path)
            if entry is None:
                entry = self._open[path] = _Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            entry.readers += 1
            self._open.move_to_end(path)
            self._close_oldest()
        try:
            yield entry.number
        finally:
            with self._lock:
                entry.readers -= 1
                self._close_oldest()

    def _close_oldest(self) -> None:
        # One that is being read stays: its number, closed and taken by another file meanwhile,
        # would give that file's bytes.
        surplus = len(self._open) - self._most
        if surplus > 0:
            idle = [path for path, entry in self._open.items() if not entry.readers]
            for path in idle[:surplus]:
                os.close(self._open.pop(path).number)


class _Descriptor:
    def __init__(self, number: int):
        self.number, self.readers = number, 0


def _close_all(descriptors: collections.OrderedDict[str, _Descriptor]) -> None:
    for entry in descriptors.values():
        os.close(entry.number)
    descriptors.clear()
