"""What a run tells while it goes: a line, TensorBoard's events, and two files for reports.

`losses.jsonl` has one line per log point, {"step", "loss", ...}: the means over the steps since the
line before. `training.json` has {"steps", "total_steps", "seconds"}, where the seconds are those of
all starts of this run together.
"""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax

from simvlm_jax import hosts
from simvlm_jax.errors import UserError, writing
from simvlm_jax.json_files import object_lines, read_object
from simvlm_jax.training.folder import write_atomic

COUNTS = ("examples", "tokens")  # metrics that count; they are told as rates
WAITING_TOLD = 0.05


class Progress:
    """Gathers metrics on the devices and measures time between log points, as a context.

    One process of several tells them, by `Told`; to the others this is all.
    """

    def __init__(
        self,
        start: int,
        total: int,
        flops_per_step: float,
        data_report: Callable[[int], dict[str, float]] = lambda step: {},
    ) -> None:
        """Starts the clock.

        Args:
            start: The step that was restored, or 0.
            total: The run's last step.
            flops_per_step: Floating-point operations of a step, forward and backward.
            data_report: Says at each report what else to tell of the data before a step, numbers
                by name.
        """
        self.start, self.total = start, total
        self._flops, self._data_report = flops_per_step, data_report
        self._pending: list[dict] = []
        self._waited, self._starting = 0.0, True
        self._began = self._reported = time.monotonic()

    def __enter__(self) -> "Progress":
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Has nothing to close."""

    def watch(self, batches: Iterator[Future[dict]]) -> Iterator[dict]:
        """Yields the batches and measures how long the devices wait for them."""
        for future in batches:
            if not future.done():
                # The host runs ahead: it waits for data while the devices still have work.
                jax.block_until_ready(self._pending[-1:])
                before = time.monotonic()
                future.result()
                self._waited += time.monotonic() - before
            yield future.result()

    def add(self, metrics: dict) -> None:
        """Notes the clu metrics of one step without waiting for them."""
        self._pending.append(metrics)

    def report(self, step: int) -> dict[str, float]:
        """Merges what was noted since the last report, tells it, and returns its means by name."""
        pending, self._pending = jax.device_get(self._pending), []
        now = time.monotonic()
        seconds, self._reported = now - self._reported, now
        merged = functools.reduce(
            lambda left, right: {name: left[name].merge(right[name]) for name in left}, pending
        )
        values = {name: float(metric.compute()) for name, metric in merged.items()}
        values |= self._data_report(step)
        counts = [name for name in COUNTS if name in values]
        rates = {f"{name}_per_second": values.pop(name) / seconds for name in counts}
        rates["flops_per_second"] = len(pending) * self._flops / seconds
        rates["waiting_share"], self._waited = self._waited / seconds, 0.0
        if self._starting:  # compiling took most of this time, so it says nothing about the rest
            rates, ending = {}, f"compiled in {_duration(seconds)}"
        else:
            ending = f"eta {_duration((self.total - step) * seconds / len(pending))}"
        self._starting = False
        self._tell(step, values, rates, ending)
        return values

    def _tell(self, step: int, values: dict, rates: dict, ending: str) -> None:
        """Another process does."""


class Told(Progress):
    """Progress that is printed and written into the run's folder."""

    def __init__(self, model_dir: str | Path, tensorboard: bool, *arguments: Any) -> None:
        """Opens the run's records and forgets what they say of steps beyond the start.

        Args:
            model_dir: The run's folder.
            tensorboard: Writes events to model_dir/tensorboard too.
            *arguments: Those of `Progress`.
        """
        super().__init__(*arguments)
        self._folder = Path(model_dir)
        self._former_seconds = _former_seconds(self._folder / "training.json")
        self._losses = self._folder / "losses.jsonl"
        with writing(self._losses):
            _forget(self._losses, self.start)
        self._writer = None
        if tensorboard:
            with self._writing_events():
                self._writer = _summary_writer(self._folder / "tensorboard")

    def __exit__(self, *_: Any) -> None:
        """Closes TensorBoard's file."""
        if self._writer:
            with self._writing_events():
                self._writer.close()

    def _tell(self, step: int, values: dict, rates: dict, ending: str) -> None:
        print(progress_line(step, self.total, values, rates, ending), file=sys.stderr)
        with writing(self._losses), self._losses.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        record = {
            "steps": step,
            "total_steps": self.total,
            "seconds": round(self._former_seconds + self._reported - self._began, 3),
        }
        with writing(self._folder / "training.json"):
            write_atomic(self._folder / "training.json", json.dumps(record).encode())
        if self._writer:
            with self._writing_events():
                self._writer.write_scalars(step, values | rates)
                self._writer.flush()

    @contextlib.contextmanager
    def _writing_events(self) -> Iterator[None]:
        """Like `writing`, where TensorFlow writes, which has errors of its own."""
        import tensorflow as tf  # TensorBoard's events need it anyway

        with writing(self._folder / "tensorboard"):
            try:
                yield
            except tf.errors.OpError as error:
                raise OSError(None, " ".join(error.message.split())[:200]) from error


def progress(
    model_dir: str | Path,
    start: int,
    total: int,
    flops_per_step: float,
    tensorboard: bool = True,
    data_report: Callable[[int], dict[str, float]] = lambda step: {},
) -> Progress:
    """Makes what the first of several processes tells, or another one does not; see `Progress`."""
    arguments = start, total, flops_per_step, data_report
    return Told(model_dir, tensorboard, *arguments) if hosts.is_first() else Progress(*arguments)


def progress_line(step: int, total: int, values: dict, rates: dict, ending: str) -> str:
    """Writes one line, e.g. "step 120/2000  loss 2.314  acc 0.41  412 examples/s  eta 3m12s".

    Args:
        step: The current step.
        total: The last step.
        values: Means by name; `loss` and `accuracy` are shown where present.
        rates: Per second, by name; examples, tokens and operations are shown where present. So is
            `waiting_share`, the part of the time spent waiting for data, from 5 % on.
        ending: The last part.
    """
    parts = [f"step {step}/{total}"]
    if "loss" in values:
        parts.append(f"loss {values['loss']:.3f}")
    if "accuracy" in values:
        parts.append(f"acc {values['accuracy']:.2f}")
    for name in COUNTS:
        if f"{name}_per_second" in rates:
            parts.append("{}{} {}/s".format(*_scaled(rates[f"{name}_per_second"]), name))
    if "flops_per_second" in rates:
        parts.append("{} {}FLOP/s".format(*_scaled(rates["flops_per_second"])))
    if rates.get("waiting_share", 0.0) >= WAITING_TOLD:
        parts.append(f"waits for data {rates['waiting_share']:.0%} of the time")
    return "  ".join([*parts, ending])


def _scaled(value: float) -> tuple[str, str]:
    prefixes = ["", "k", "M", "G", "T", "P"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}", prefixes[0]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def _former_seconds(path: Path) -> float:
    """The seconds of earlier starts: no reason to end a run where a crash left another file."""
    if not path.exists():
        return 0.0
    try:
        seconds = read_object(path).get("seconds")
    except UserError as error:
        print(error, file=sys.stderr)
        seconds = None
    if isinstance(seconds, int | float) and 0 <= seconds < float("inf"):
        return float(seconds)
    print(f"{path} does not say how long the run took before; it counts from now.", file=sys.stderr)
    return 0.0


def _forget(losses: Path, start: int) -> None:
    """Drops the lines of steps that will be trained again, and a line that a kill cut short."""
    if not losses.exists():
        return
    kept, dropped = [], 0
    for line, point in object_lines(losses):
        step = (point or {}).get("step")
        if not isinstance(step, int):
            dropped += line.endswith(b"\n")
        elif step <= start:
            kept.append(line)
    if dropped:
        print(f"{dropped} lines of {losses} are no points of a run; they go.", file=sys.stderr)
    write_atomic(losses, b"".join(kept))


def _summary_writer(folder: Path) -> Any:
    from clu.metric_writers import SummaryWriter  # brings TensorFlow, seconds to import

    return SummaryWriter(str(folder))
