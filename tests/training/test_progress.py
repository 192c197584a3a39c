import json
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from clu import metrics

from simvlm_jax.errors import UserError
from simvlm_jax.training import progress
from simvlm_jax.training.progress import progress_line
from standin import Count


def test_the_line():
    values = {"loss": 2.3141, "accuracy": 0.412, "other": 1.0}
    rates = {"examples_per_second": 412.3, "tokens_per_second": 5100, "flops_per_second": 38.2e9}
    assert progress_line(120, 2000, values, rates, "eta 3m12s") == (
        "step 120/2000  loss 2.314  acc 0.41  412 examples/s  5.1k tokens/s  38.2 GFLOP/s  "
        "eta 3m12s"
    )
    waiting = {"waiting_share": 0.049}
    assert progress_line(1, 2, {}, waiting, "end") == "step 1/2  end"
    waiting = {"waiting_share": 0.126}
    assert progress_line(1, 2, {}, waiting, "end") == (
        "step 1/2  waits for data 13% of the time  end"
    )
    assert progress_line(1, 2, {}, {"flops_per_second": 0.5}, "end") == "step 1/2  0.5 FLOP/s  end"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14, "3.1"), (99.96, "100"), (999.4, "999"), (999.6, "1.0k"), (2.5e12, "2.5T")],
)
def test_numbers_are_scaled(value, text):
    assert "".join(progress._scaled(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (192.4, "3m12s"), (59.6, "1m00s"), (3599, "59m59s"), (7384, "2h03m")],
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text


def step_metrics(total, count):
    return {
        "loss": metrics.Average(total=jnp.float32(total), count=jnp.float32(count)),
        "tokens": Count(jnp.float32(count)),
    }


def test_means_rates_and_seconds(tmp_path, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    for start, end in [(0, 3), (3, 6)]:
        with progress.progress(tmp_path, start, 6, 1e9, tensorboard=False) as told:
            told.add(step_metrics(6, 3))
            clock[0] += 90
            told.report(start + 1)
            told.add(step_metrics(6, 3))
            told.add(step_metrics(4, 1))
            clock[0] += 8
            told.report(end)
    lines = (tmp_path / "losses.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 2.0},
        {"step": 3, "loss": 2.5},  # (6 + 4) / (3 + 1): a mean over tokens, not over steps
        {"step": 4, "loss": 2.0},
        {"step": 6, "loss": 2.5},
    ]
    record = json.loads((tmp_path / "training.json").read_bytes())
    assert record == {"steps": 6, "total_steps": 6, "seconds": 196.0}
    assert capsys.readouterr().err.splitlines() == [
        "step 1/6  loss 2.000  compiled in 1m30s",
        "step 3/6  loss 2.500  0.5 tokens/s  250 MFLOP/s  eta 12s",
        "step 4/6  loss 2.000  compiled in 1m30s",
        "step 6/6  loss 2.500  0.5 tokens/s  250 MFLOP/s  eta 0s",
    ]


class Simulated:
    """A device, a thread that makes batches one ahead, and a clock for both, in seconds."""

    def __init__(self, step, batch):
        self.clock = self.busy_until = self.idle = self.made = 0.0
        self.step, self.batch = step, batch

    def futures(self, count):
        """What `prefetch` yields: batch k is begun once k - 1 is made and k - 2 in use."""
        begun_from = 0.0
        for _ in range(count):
            self.made = max(self.made, begun_from) + self.batch
            begun_from = self.clock
            arrives = self.made
            yield SimpleNamespace(
                done=lambda arrives=arrives: self.clock >= arrives,
                result=lambda arrives=arrives: self.wait_until(arrives),
            )

    def dispatch(self):
        """Sends a step to the device and returns when that will have done it."""
        begins = max(self.clock, self.busy_until)
        self.idle += begins - self.busy_until
        self.busy_until = begins + self.step
        return self.busy_until

    def wait_until(self, moment):
        self.clock = max(self.clock, moment)


class SimulatedMetric:
    """The metric of a step that is done at a moment of the simulation."""

    def __init__(self, simulated, ends):
        self.block_until_ready = lambda: simulated.wait_until(ends)

    def merge(self, _):
        return self

    def compute(self):
        return 1.0


@pytest.mark.parametrize(
    ("step", "batch", "share"), [(5, 3, 0.0), (3, 5, 0.4), (4, 4, 0.0), (1, 10, 0.9)]
)
def test_only_the_time_in_which_the_device_has_nothing_to_do_is_waited(
    tmp_path, monkeypatch, step, batch, share
):
    simulated, written = Simulated(step, batch), []
    monkeypatch.setattr(progress.time, "monotonic", lambda: simulated.clock)
    with progress.progress(tmp_path, 0, 101, 1e9, False, lambda step: {"epoch/a": 0.5}) as told:
        told._writer = SimpleNamespace(
            write_scalars=lambda _, values: written.append(values),
            flush=lambda: None,
            close=lambda: None,
        )
        previous, begins = 0.0, None
        for number, _ in enumerate(told.watch(simulated.futures(101)), 1):
            ends = simulated.dispatch()
            told.add({"loss": SimulatedMetric(simulated, ends)})
            simulated.wait_until(previous)  # the host is one step ahead
            previous = ends
            if number in (1, 101):
                simulated.wait_until(ends)
                told.report(number)
                begins = begins or (simulated.idle, simulated.clock)
    first, last = written
    assert "waiting_share" not in first
    truth = (simulated.idle - begins[0]) / (simulated.clock - begins[1])
    assert last["waiting_share"] == pytest.approx(truth)
    assert last["waiting_share"] == pytest.approx(share, abs=0.03)
    assert last["epoch/a"] == 0.5
    assert json.loads((tmp_path / "losses.jsonl").read_text().splitlines()[0])["epoch/a"] == 0.5


def test_lines_of_steps_to_come_are_forgotten(tmp_path):
    lines = [f'{{"step": {step}, "loss": {step}.5}}\n' for step in (1, 3, 6, 9)]
    (tmp_path / "losses.jsonl").write_text("".join(lines) + '{"step": 1')
    progress.progress(tmp_path, 6, 12, 1.0, tensorboard=False)
    assert (tmp_path / "losses.jsonl").read_text() == "".join(lines[:3])


def test_tensorboard_gets_the_same_numbers(tmp_path):
    with progress.progress(tmp_path, 0, 4, 1e9) as told:
        for step in (1, 2):
            told.add(step_metrics(6, 3))
            told.report(step)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    _, event = events.Tensors("loss")
    assert event.step == 2 and make_ndarray(event.tensor_proto) == pytest.approx(2.0)
    assert "tokens_per_second" in events.Tags()["tensors"]


@pytest.mark.parametrize(
    ("name", "hinder", "reason"),
    [
        ("losses.jsonl", lambda path: path.symlink_to("/dev/full"), "No space left on device"),
        ("training.json", lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(tmp_path, name, hinder, reason):
    told = progress.progress(tmp_path, 0, 4, 1.0, tensorboard=False)
    hinder(tmp_path / name)
    told.add(step_metrics(6, 3))
    with pytest.raises(UserError, match=f"{name} cannot be written: {reason}; make room"):
        told.report(1)


def test_events_that_cannot_be_written_are_a_sentence(tmp_path):
    (tmp_path / "tensorboard").write_text("no folder")
    refused = pytest.raises(UserError, match="tensorboard cannot be written: .*; make room")
    with refused, progress.progress(tmp_path, 0, 4, 1.0) as told:
        told.add(step_metrics(6, 3))
        told.report(1)
