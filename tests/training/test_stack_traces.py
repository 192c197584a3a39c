"""In a process of its own, because it changes the logging of the whole process."""

import subprocess
import sys

SCRIPT = """
import asyncio, logging, sys
from types import SimpleNamespace
from simvlm_jax.training import stack_traces
sys.unraisablehook = lambda found: print(found.exc_value, file=sys.stderr)
stack_traces.mute()
stack_traces.mute()
absl = logging.getLogger("absl")
def log(path, level, text):
    absl.handle(logging.LogRecord("absl", level, path, 1, text, None, None))
log("site-packages/orbax/checkpoint/future.py", logging.ERROR, "trace of orbax")
log("site-packages/orbax/checkpoint/future.py", logging.WARNING, "warning of orbax")
log("site-packages/other.py", logging.ERROR, "error of another")
def lost(error, where=None):
    names = {}
    exec(compile("async def f(): pass", where or "own.py", "exec"), names)
    coroutine = names["f"]()
    coroutine.close()
    sys.unraisablehook(SimpleNamespace(exc_value=error, object=coroutine))
lost(RuntimeError("Event loop is closed"))
lost(RuntimeError("late in orbax"), "site-packages/orbax/serialization.py")
lost(RuntimeError("our own"))
"""


def test_only_orbax_s_own_traces_are_muted():
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stderr
    assert "warning of orbax" in told and "error of another" in told and "our own" in told
    assert "trace of orbax" not in told and "late" not in told and "closed" not in told
