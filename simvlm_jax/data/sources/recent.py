"""The values that were used last, as many as fit into memory that is set aside for them."""

import collections
import threading
from collections.abc import Callable, Hashable
from typing import Any

_LOCKS = 16  # as many different values may be loaded at once


class Recent:
    """A cache bounded in bytes, safe between threads; two threads never load the same value."""

    def __init__(self, limit: int):
        """Takes the most bytes to keep."""
        self._limit, self._bytes = limit, 0
        self._kept: collections.OrderedDict[Hashable, tuple[Any, int]] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(_LOCKS)]

    def get(self, key: Hashable, load: Callable[[], tuple[Any, int]]) -> Any:
        """Returns the value of a key.

        Args:
          key: of the value.
          load: gives (value, its bytes) where it is not kept; what it raises is raised.
        """
        with self._loading[hash(key) % _LOCKS]:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key][0]
            value, size = load()
            with self._lock:
                self._kept[key] = value, size
                self._bytes += size
                while self._bytes > self._limit:
                    self._bytes -= self._kept.popitem(last=False)[1][1]
            return value
