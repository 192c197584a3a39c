"""A trace of some steps, for XProf: TensorBoard's profile plugin.

XProf knows a step by its marker, and an operation by its name: the modules of the network, `loss`
and `optimizer` are parts of that name, forward under `jvp` and backward under `transpose(jvp)`.
"""

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from simvlm_jax import hosts
from simvlm_jax.errors import UserError

FOLDER = "profile"
MARKER = "train"


class NoProfiler:
    """Numbers the batches and traces none of them; a context that does nothing."""

    def __enter__(self) -> "NoProfiler":
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Has nothing to tell."""

    def steps(self, batches: Iterable[dict], first: int) -> Iterator[tuple[int, dict]]:
        """Yields (number of the step, its batch), from `first` on."""
        yield from enumerate(batches, first)

    def watch(self, *results: jax.Array) -> None:
        """Needs nothing of a step."""


class Profiler(NoProfiler):
    """Traces the steps from `start` to before `stop`, as far as the run comes by them.

    The numbers are those of the progress line, where a run's first step is 1.
    """

    def __init__(self, start: int, stop: int, model_dir: str | Path) -> None:
        """Traces to model_dir/profile, later."""
        self._start, self._stop = start, stop
        self._folder = Path(model_dir) / FOLDER
        self._results: tuple[jax.Array, ...] = ()
        self._traced = False

    def __exit__(self, error: type | None, *_: Any) -> None:
        """Says so if there is no trace, unless an error is to be told."""
        if not self._traced and error is None:
            asked = _steps(self._start, self._stop - 1)
            print(f"No profile is written: this start did not run {asked}.", file=sys.stderr)

    def steps(self, batches: Iterable[dict], first: int) -> Iterator[tuple[int, dict]]:
        """Yields (number of the step, its batch), from `first` on.

        Closing it ends the trace. A step's marker spans all that is done until the next batch is
        asked for, and the wait for its own batch.
        """
        numbered = enumerate(batches, first)
        start = max(self._start, first)
        yield from itertools.islice(numbered, start - first)
        if start < self._stop:
            with self._trace(start):
                for step in range(start, self._stop):
                    with jax.profiler.StepTraceAnnotation(MARKER, step_num=step):
                        self._last = step
                        yield next(numbered)
        yield from numbered

    def watch(self, *results: jax.Array) -> None:
        """Notes arrays that a step computes, other than the state, which the next one takes."""
        self._results = results

    @contextlib.contextmanager
    def _trace(self, start: int) -> Iterator[None]:
        # What the devices still do belongs to the step before: it must not be in the trace.
        jax.block_until_ready(self._results)
        options = jax.profiler.ProfileOptions()
        # The markers and the operations' names come from elsewhere; a trace of Python's own calls
        # hooks into every thread, TensorFlow's among them, and has crashed a run.
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._folder, profiler_options=options)
        self._traced = True
        try:
            yield
        finally:
            try:
                jax.block_until_ready(self._results)
            finally:
                jax.profiler.stop_trace()
            print(
                f"The profile of {_steps(start, self._last)} is in {self._folder}: "
                f"`pip install xprof`, then `tensorboard --logdir={self._folder}`.",
                file=sys.stderr,
            )


def profiler(profile: tuple[int, int] | None, model_dir: str | Path, total: int) -> NoProfiler:
    """Makes what traces the steps that are asked for.

    Args:
        profile: The first step to trace and the first not to, counted from 1; None traces nothing.
        model_dir: The run's folder.
        total: The run's last step.

    Raises:
        UserError: If these are no steps of the run.
    """
    if profile is None or not hosts.is_first():
        return NoProfiler()  # what one process of several does is what all do
    start, stop = bounds(profile)
    if stop > total + 1:
        raise UserError(
            f"profile={start}:{stop} asks for {_steps(start, stop - 1)}, beyond the run's last, "
            f"{total}: let it stop at {total + 1} or before."
        )
    return Profiler(start, stop, model_dir)


def bounds(profile: tuple[int, int]) -> tuple[int, int]:
    """Checks that these are two whole numbers, the first of them from 1 on, the second above it.

    Raises:
        UserError: If they are not.
    """
    match profile:
        case (int(start), int(stop)) if 1 <= start < stop:
            return start, stop
    raise UserError(
        f"profile={profile!r} is no pair of step numbers: give the first step to trace, from 1 "
        "on, and the first after it not to trace."
    )


def _steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
