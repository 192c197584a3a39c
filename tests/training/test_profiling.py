"""Traces are read back with `jax.profiler.ProfileData` and TensorFlow's protobuf."""

import collections
import contextlib
import re
import signal

import jax
import pytest

from simvlm_jax import testing
from simvlm_jax.errors import UserError
from simvlm_jax.partitioning import Partitioner
from simvlm_jax.training import loop, optimizers, profiling
from simvlm_jax.training.guards import NonFiniteError
from simvlm_jax.training.reading import saved_steps
from simvlm_jax.training.state import abstract_state, lay_out
from simvlm_jax.training.step import compile_step
from standin import run, same

PARTS = ("conv_stage", "encoder", "decoder", "loss")
BOTH_WAYS = [f"{way}/{part}" for way in ("forward", "backward") for part in PARTS]


def trace_file(folder):
    """The one trace that XProf would find there."""
    (path,) = (folder / "profile").glob("plugins/profile/*/*.xplane.pb")
    return path


def traced(folder):
    """(numbers of the marked steps, operations on devices of each execution of the step)."""
    steps, executions = [], collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(trace_file(folder))).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if event.name == profiling.MARKER:
                    steps.append(stats["step_num"])
                if stats.get("hlo_module") == "jit_step" and "run_id" in stats:
                    executions[stats["run_id"]] += 1
    return steps, list(executions.values())


def require_whole(folder, steps):
    """Asserts that just these steps are in the trace, and all their work on devices."""
    found, executions = traced(folder)
    assert found == steps
    assert len(executions) == len(steps) and len(set(executions)) == 1, executions


def named(op_names):
    """The parts of a step among names of operations, each with its way."""
    found = set()
    for name in op_names:
        way = "backward" if "transpose(jvp(" in name else "forward"
        found |= {f"{way}/{part}" for part in PARTS if re.search(rf"[/(]{part}[/)]", name)}
        found |= {"optimizer"} & set(name.split("/"))
    return found


@pytest.mark.parametrize(
    ("profile", "steps"), [((3, 6), [3, 4, 5]), ((1, 2), [1]), ((11, 13), [11, 12])]
)
def test_the_steps_asked_for_are_traced_and_the_run_is_the_same(
    whole, tmp_path, capsys, profile, steps
):
    same(run(tmp_path, profile=profile), whole[1])
    require_whole(tmp_path, steps)
    told = "step 1" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    folder = tmp_path / "profile"
    line = f"The profile of {told} is in {folder}: `pip install xprof`, then "
    assert f"\n{line}`tensorboard --logdir={folder}`.\n" in capsys.readouterr().err


def test_a_run_that_is_not_asked_traces_nothing(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: pytest.fail("it traces"))
    run(tmp_path)
    assert "profile" not in capsys.readouterr().err
    assert not (tmp_path / "profile").exists()


def test_a_resumed_run_traces_what_is_left(whole, tmp_path):
    run(tmp_path, 4)
    same(run(tmp_path, profile=(2, 7)), whole[1])
    require_whole(tmp_path, [5, 6])


@pytest.mark.parametrize("total", [5, 4])
def test_a_run_beyond_the_steps_says_so(tmp_path, capsys, total):
    run(tmp_path, 4)
    capsys.readouterr()
    run(tmp_path, total, profile=(3, 5))
    told = capsys.readouterr().err.splitlines()
    assert told.count("No profile is written: this start did not run steps 3 to 4.") == 1
    assert not (tmp_path / "profile").exists()


def test_sigterm_ends_the_trace_with_the_run(tmp_path, capsys):
    at = {"signal_at": 6, "signal_number": int(signal.SIGTERM)}
    with pytest.raises(SystemExit):
        run(tmp_path, stream=at, profile=(4, 13))
    last = saved_steps(tmp_path / "checkpoints")[-1]
    require_whole(tmp_path, list(range(4, last + 1)))
    assert f"The profile of steps 4 to {last} is in" in capsys.readouterr().err
    at = {"signal_at": 9, "signal_number": int(signal.SIGTERM)}
    with pytest.raises(SystemExit):
        run(tmp_path, stream=at, profile=(12, 13))
    assert "No profile is written: this start did not run step 12.\n" in capsys.readouterr().err


def test_an_error_ends_the_trace_and_is_told(tmp_path, capsys):
    with pytest.raises(NonFiniteError, match="at step 6"):
        run(tmp_path / "traced", stream={"poison_at": 5}, profile=(5, 9))
    require_whole(tmp_path / "traced", [5, 6])
    with pytest.raises(NonFiniteError):
        run(tmp_path / "before", stream={"poison_at": 5}, profile=(9, 11))
    assert "No profile" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ((0, 2), r"profile=\(0, 2\) is no pair of step numbers"),
        ((7, 3), "no pair"),
        ((3, 3), "no pair"),
        ((3.0, 4), "no pair"),
        ((3,), "no pair"),
        ("3:4", "no pair"),
        ((12, 14), r"^profile=12:14 asks for steps 12 to 13, beyond the run's last, 12: .* at 13 "),
        ((20, 21), "asks for step 20, beyond"),
    ],
)
def test_what_is_no_step_of_the_run_is_refused_before_it(tmp_path, capsys, profile, words):
    with pytest.raises(UserError, match=words):
        run(tmp_path / "run", profile=profile)
    assert not (tmp_path / "run").exists() and not capsys.readouterr().err


def test_the_trace_begins_and_ends_when_the_devices_are_done(tmp_path, monkeypatch):
    events = []

    class Result:
        def __init__(self, step):
            self.step = step

        def block_until_ready(self):
            events.append(f"wait {self.step}")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: events.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
    profiler = profiling.profiler((4, 6), tmp_path, 7)
    for step, batch in profiler.steps(iter("cdefg"), 3):
        events.append(f"{step}{batch}")
        profiler.watch(Result(step))
    assert events == ["3c", "wait 3", "start", "4d", "5e", "wait 5", "stop", "6f", "7g"]


def test_the_loop_says_what_to_wait_for(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(profiling.Profiler, "watch", lambda self, *results: seen.append(results))
    run(tmp_path, 3, profile=(1, 2))
    assert len(seen) == 3 and all(result.shape == () for results in seen for result in results)
    assert all(seen)


def test_work_that_fails_ends_the_trace_all_the_same(tmp_path, monkeypatch):
    class Broken:
        def block_until_ready(self):
            raise RuntimeError("the device is gone")

    stopped = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: stopped.append(True))
    profiler = profiling.profiler((1, 3), tmp_path, 7)
    with pytest.raises(RuntimeError, match="gone"):
        with contextlib.closing(profiler.steps(iter("ab"), 1)) as steps:
            next(steps)
            profiler.watch(Broken())
    assert stopped == [True]


CONFIG = testing.tiny_config(conv_layers=(1,), encoder_layers=1, decoder_layers=1)  # for speed


class TinyStream:
    """The same tiny batch of pairs and documents for ever."""

    def __init__(self):
        self.batch = testing.tiny_groups(CONFIG, groups=2, pairs=1)
        self.input_shapes = testing.shapes_of(self.batch)
        self.input_types = {name: leaf.dtype for name, leaf in self.batch.items()}

    def batches(self, start_step, groups=None):
        while True:
            yield self.batch

    def report(self, step):
        return {}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A traced run of the tiny SimVLM, and the text of its compiled step."""
    folder, stream = tmp_path_factory.mktemp("tiny"), TinyStream()
    model = testing.tiny_model(CONFIG)
    optimizer = optimizers.adamw(total_steps=3, peak_learning_rate=1e-3, clip_norm=1.0)
    parameters = testing.random_parameters(CONFIG)  # made faster than the initial ones
    settings = {"tensorboard": False, "initial_params": parameters}
    loop.train(model, optimizer, stream, folder, 3, profile=(2, 4), **settings)
    layout = lay_out(model, stream, Partitioner())
    target = abstract_state(model, optimizer, stream, layout)
    step = compile_step(model, optimizer, target, layout, seed=0)
    return folder, step.lower(target, stream.batch).compile().as_text()


def test_the_compiled_step_names_its_parts(tiny):
    op_names = re.findall(r'op_name="(jit\(step\)[^"]*)"', tiny[1])
    assert named(op_names) == {*BOTH_WAYS, "optimizer"}
    assert named(["jit(step)/jvp(SimVLM)/encoder_norm/mul"]) == set()  # it can also fail


def test_the_trace_names_them_too(tiny):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    require_whole(tiny[0], [2, 3])
    space = xplane_pb2.XSpace.FromString(trace_file(tiny[0]).read_bytes())
    (metadata,) = (plane for plane in space.planes if plane.name == "/host:metadata")
    programs = [
        stat.bytes_value
        for program in metadata.event_metadata.values()
        if program.name.startswith("jit_step")
        for stat in program.stats
    ]
    op_names = re.findall(rb"jit\(step\)/[\x20-\x7e]+", b"".join(programs))
    assert named(name.decode() for name in op_names) == {*BOTH_WAYS, "optimizer"}
