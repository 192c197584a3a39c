"""The order, the resuming and the failing of runs, with small programs in the verbs' place."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from simvlm_jax.ablation import running
from simvlm_jax.ablation.plan import Run, Stage
from simvlm_jax.ablation.rows import Row
from simvlm_jax.errors import UserError

# A training that takes STEPS steps, resumes, and saves and ends with code 0 after SIGTERM.
TRAIN = """
import json, pathlib, signal, sys, time
folder, steps, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
file, asked = folder / "training.json", []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
start = json.loads(file.read_text())["steps"] if file.exists() else 0
with open(folder.parent.parent / "order.txt", "a") as order:
    order.write(f"{folder.parent.name}/{folder.name} from {start}\\n")
for step in range(start + 1, steps + 1):
    time.sleep(seconds)
    file.write_text(json.dumps({"steps": step}))
    if asked:
        break
"""
EVALUATE = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
assert json.loads((folder / "training.json").read_text())["steps"]
(folder / "metrics.json").write_text(json.dumps({"questions": {"accuracy": 0.5}}))
"""
FAIL = "import sys; print('The disk is full.', file=sys.stderr); sys.exit(2)"


def program(text, *arguments):
    return (sys.executable, "-S", "-c", text, *map(str, arguments))


def make_run(folder, name, seed=0, steps=3, seconds=0.0, train=TRAIN):
    own = folder / f"{name}{seed}"
    before, after = own / "pretraining", own / "questions"
    stages = (
        Stage("pretraining", program(train, before, steps, seconds), before, steps),
        Stage("questions", program(TRAIN, after, steps, seconds), after, steps),
        Stage("evaluation", program(EVALUATE, after), after, None),
    )
    return Run(Row(name, name, 1.0), seed, own, stages)


def order(folder):
    return (folder / "order.txt").read_text().split("\n")[:-1]


def test_every_stage_runs_once_and_in_order_and_is_told(tmp_path):
    told, runs = [], [make_run(tmp_path, "a"), make_run(tmp_path, "b")]
    outcome = running.run_all(runs, tell=told.append)
    assert outcome == running.Outcome([], stopped=False)
    wanted = [f"{r}0/{s} from 0" for r in "ab" for s in ("pretraining", "questions")]
    assert order(tmp_path) == wanted
    assert told[0] == "ablate 0/2 runs  a, seed 0: pretraining  eta unknown"
    assert told[3] == "ablate 1/2 runs  a, seed 0: done  eta 0 min"
    assert told[-1] == "ablate 2/2 runs  b, seed 0: done  eta 0 min"
    assert running.run_all(runs, tell=told.append) == outcome
    assert order(tmp_path) == wanted and len(told) == 8


def test_one_failure_is_one_sentence_and_the_others_go_on(tmp_path):
    told = []
    runs = [make_run(tmp_path, "a", train=FAIL), make_run(tmp_path, "b")]
    outcome = running.run_all(runs, tell=told.append)
    (sentence,) = outcome.failures
    log = tmp_path / "a0" / "pretraining.log"
    assert sentence == (
        f"a, seed 0: pretraining failed (code 2: bad input): The disk is full. (all of it: {log})"
    )
    assert sentence in told and not outcome.stopped
    assert running.next_stage(runs[0]) and not running.next_stage(runs[1])


def test_a_program_that_is_not_there_is_a_failure_too(tmp_path):
    run = make_run(tmp_path, "a")
    gone = Stage("pretraining", ("/no/such/program",), tmp_path / "x", 1)
    outcome = running.run_all([Run(run.row, 0, run.folder, (gone,))], tell=lambda line: None)
    assert len(outcome.failures) == 1


def test_an_end_with_code_0_before_the_last_step_is_no_end(tmp_path):
    early = "import sys; sys.exit(0)"
    run = make_run(tmp_path, "a", train=early)
    assert running.run_all([run], tell=lambda line: None).failures
    assert running.next_stage(run).name == "pretraining"


def test_a_stage_of_another_command_is_not_taken_for_finished(tmp_path):
    running.run_all([make_run(tmp_path, "a")], tell=lambda line: None)
    assert running.next_stage(make_run(tmp_path, "a", steps=4)).name == "pretraining"


@pytest.mark.parametrize("content", ["", "[]", '{"finished": true}', '{"seconds": 1e999'])
def test_a_damaged_note_counts_for_nothing(tmp_path, content):
    run = make_run(tmp_path, "a")
    running.run_all([run], tell=lambda line: None)
    running.note_of(run, run.stages[2]).write_text(content)
    assert running.next_stage(run) == run.stages[2]


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_running import make_run
from simvlm_jax.ablation import running
folder = Path({folder!r})
runs = [make_run(folder, name, steps=40, seconds=0.05) for name in "ab"]
outcome = running.run_all(runs, parallel=1)
print("stopped" if outcome.stopped else "done", flush=True)
"""


def drive(folder):
    text = DRIVER.format(tests=str(Path(__file__).parent), folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(folder, step):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if step_of(folder) >= step:
            return
        time.sleep(0.02)
    raise AssertionError("no step was made")


def step_of(folder):
    try:
        return json.loads((folder / "training.json").read_text())["steps"]
    except (OSError, ValueError):
        return 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_training_save_and_the_same_command_goes_on(tmp_path, number):
    process = drive(tmp_path)
    wait_for_step(tmp_path / "a0" / "pretraining", 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert out == "stopped\n"
    reached = step_of(tmp_path / "a0" / "pretraining")
    assert 2 <= reached < 40
    runs = [make_run(tmp_path, name, steps=40, seconds=0.05) for name in "ab"]
    note = json.loads(running.note_of(runs[0], runs[0].stages[0]).read_text())
    assert not note["finished"] and note["seconds"] > 0.05
    fast = [
        Stage(s.name, (*s.command[:-1], "0.0"), s.folder, s.steps) if s.steps else s
        for s in runs[0].stages
    ]
    assert running.run_all([Run(runs[0].row, 0, runs[0].folder, tuple(fast))]).failures == []
    assert order(tmp_path)[1] == f"a0/pretraining from {reached}"


def test_killed_it_takes_its_programs_with_it(tmp_path):
    process = drive(tmp_path)
    folder = tmp_path / "a0" / "pretraining"
    wait_for_step(folder, 2)
    process.kill()
    process.communicate(timeout=60)
    time.sleep(0.3)
    reached = step_of(folder)
    time.sleep(0.3)
    assert step_of(folder) == reached < 40
    runs = [make_run(tmp_path, "a", steps=40, seconds=0.0)]
    assert running.run_all(runs, tell=lambda line: None).failures == []
    assert order(tmp_path)[1] == f"a0/pretraining from {reached}"


def test_after_its_minutes_no_stage_is_begun(tmp_path):
    runs = [make_run(tmp_path, name, seconds=0.1) for name in "ab"]
    outcome = running.run_all(runs, minutes=0.2 / 60, tell=lambda line: None)
    assert outcome == running.Outcome([], stopped=True)
    assert running.next_stage(runs[0]).name == "questions"
    assert running.next_stage(runs[1]).name == "pretraining"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_at_a_time_have_cores_of_their_own(tmp_path):
    cores = "import os, pathlib, sys; print(sorted(os.sched_getaffinity(0)))"
    runs = [make_run(tmp_path, name, train=cores + "\ninput()") for name in "ab"]
    before = os.sched_getaffinity(0)
    running.run_all(runs, parallel=2, tell=lambda line: None)
    seen = [(tmp_path / f"{name}0" / "pretraining.log").read_text() for name in "ab"]
    first, second = (set(json.loads(text.split("\n")[0])) for text in seen)
    assert first and second and not first & second and first | second == before
    assert os.sched_getaffinity(0) == before


def test_cores_are_dealt_out():
    assert running.shares_of_cores([3, 5, 6, 7, 9], 2) == [[3, 5], [6, 7, 9]]
    with pytest.raises(UserError, match="--parallel=3 runs need as many cores; here are 2"):
        running.shares_of_cores([0, 1], 3)


def test_the_time_left_goes_by_what_stages_of_a_name_took(tmp_path):
    runs = [make_run(tmp_path, name) for name in "abc"]
    took = {"pretraining": 100.0, "questions": 40.0, "evaluation": 10.0}

    def finish(run, stages):
        run.folder.mkdir(exist_ok=True)
        for stage in stages:
            noted = {"finished": True, "seconds": took[stage.name], "command": [*stage.command]}
            running.note_of(run, stage).write_text(json.dumps(noted))

    finish(runs[0], runs[0].stages[:2])
    assert running.seconds_left(runs, [], 1) is None  # no evaluation is known yet
    finish(runs[0], runs[0].stages)
    assert running.seconds_left(runs, [], 1) == 300
    finish(runs[1], runs[1].stages[:1])
    assert running.seconds_left(runs, [("questions", 15.0)], 1) == 185
    assert running.seconds_left(runs, [("questions", 99.0)], 2) == 80
