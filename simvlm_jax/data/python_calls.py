"""Python functions inside a TensorFlow pipeline, and the moment at which it may be deleted.

While TensorFlow deletes an iterator it waits for the calls under way and holds the interpreter's
lock, which just those calls need: deleted at a bad moment, it would wait for ever. It would at the
end of the program too, when no other thread gets that lock any more. A pipeline that nobody reads
fills its buffers and comes to rest; then it may go.
"""

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class _Calls:
    """How many calls of all pipelines have started, and how many are under way."""

    def __init__(self):
        self._lock = threading.Lock()
        self.started = self.active = 0

    def __enter__(self) -> None:
        with self._lock:
            self.started += 1
            self.active += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self.active -= 1


_calls = _Calls()


def numpy_function(
    function: Callable, inputs: Sequence[tf.Tensor], output_types: Any
) -> tf.Tensor | tuple[tf.Tensor, ...]:
    """`tf.numpy_function` without a state, whose calls `wait_until_idle` knows of."""

    def counted(*arguments: Any) -> Any:
        with _calls:
            return function(*arguments)

    return tf.numpy_function(counted, inputs, output_types, stateful=False)


def wait_until_idle(rest: float = 0.3, patience: float = 20.0) -> None:
    """Waits until no pipeline has called Python for a while.

    Args:
      rest: seconds without a call.
      patience: seconds after which it returns all the same.
    """
    seen, since = -1, time.monotonic()
    deadline = since + patience
    while (now := time.monotonic()) < deadline:
        if _calls.active or _calls.started != seen:
            seen, since = _calls.started, now
        elif now - since >= rest:
            return
        time.sleep(0.01)


@atexit.register
def _rest_at_exit() -> None:
    if _calls.started:
        wait_until_idle()
