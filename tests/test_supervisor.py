"""Real processes and real signals; the children are small programs that do as a test says."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simvlm_jax import supervisor
from simvlm_jax.children import Child, describe
from simvlm_jax.cli import main as cli

# What every child can do. Its flags are those that let processes meet; it notes each of its starts.
PRELUDE = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
flags = dict(word[2:].split("=", 1) for word in sys.argv[2:] if word.startswith("--"))
index = int(flags.get("process_index", 0))
with (folder / f"starts{index}").open("a") as notes:
    notes.write(json.dumps({"pid": os.getpid(), "time": time.monotonic(), **flags}) + "\\n")
start = len((folder / f"starts{index}").read_text().splitlines())

def save(step):
    (folder / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)

def told(steps, total):
    (folder / "training.json").write_text(json.dumps({"steps": steps, "total_steps": total}))

def ready():
    (folder / f"ready{index}").write_text(str(start))

def wait():
    ready()
    time.sleep(60)

def end(code):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""
DRIVER = """
import json, sys
from simvlm_jax import supervisor
call = json.loads(sys.argv[1])
call["patience"] = supervisor.Patience(**call["patience"])
sys.exit(supervisor.supervise(**call))
"""
QUICK = {
    "attempts": 3,
    "stopped_seconds": 0.4,
    "grace_seconds": 0.3,
    "first_wait_seconds": 0.1,
    "longest_wait_seconds": 0.2,
    "poll_seconds": 0.05,
}


class Run:
    """A run's folder with blanks in its name, a child, and the supervisor of both."""

    def __init__(self, folder):
        self.folder = folder / "a run"
        self.folder.mkdir()
        self.program = folder / "child.py"

    def call(self, child, processes=None, **patience):
        self.program.write_text(PRELUDE + child)
        call = {
            "command": [sys.executable, str(self.program), str(self.folder), "--gin=A = 'b c'"],
            "model_dir": str(self.folder),
            "processes": processes,
            "patience": QUICK | patience,
        }
        return [sys.executable, "-c", DRIVER, json.dumps(call)]

    def run(self, child, processes=None, **patience):
        call = self.call(child, processes, **patience)
        return subprocess.run(call, capture_output=True, text=True, timeout=30)

    def begin(self, child, processes=None, before=(), **patience):
        call = [*before, *self.call(child, processes, **patience)]
        pipe = subprocess.PIPE
        supervisor = subprocess.Popen(call, stdout=pipe, stderr=pipe, text=True)
        until(lambda: all(self.is_ready(index) for index in range(processes or 1)))
        return supervisor

    def is_ready(self, index, start="1"):
        path = self.folder / f"ready{index}"
        return path.exists() and path.read_text() == start

    def starts(self, index=0):
        return [json.loads(s) for s in (self.folder / f"starts{index}").read_text().splitlines()]

    def pid(self, index=0):
        return self.starts(index)[-1]["pid"]


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_a_command_that_ends_well_runs_once_and_unchanged(run):
    done = run.run("save(7); print('out'); print('err', sys.argv[2:], file=sys.stderr)")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert "\nerr [\"--gin=A = 'b c'\"]\n" in done.stderr  # no flags added, no number before it
    assert len(run.starts()) == 1
    assert "newest checkpoint: step 7\nsupervise: done\n" in done.stderr


@pytest.mark.parametrize(
    ("death", "code"),
    [
        ("end(1)", 1),
        ("end(134)", 134),
        ("end(137)", 137),
        ("end(139)", 139),
        ("os.abort()", 134),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_what_died_is_started_again(run, death, code):
    done = run.run(f"save(start)\nif start < 3: {death}")
    assert done.returncode == 0
    assert len(run.starts()) == 3
    assert done.stderr.count(f"supervise: the process ended with {describe(code)}\n") == 2
    assert "in 0" not in done.stderr and done.stderr.count("starting again at once") == 2


def test_progress_forgets_failures_and_waits(run):
    child = "save(start // 2)\nif start < 8: end(1)\n"  # a new checkpoint every second start
    done = run.run(child, attempts=2)
    assert done.returncode == 0 and len(run.starts()) == 8
    assert "starting again in" not in done.stderr


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_crash_loop_stops_with_a_sentence(run, attempts):
    child = (
        "save(5)\nif start > 1:\n  print('no\\n  disk left ', file=sys.stderr)\n  end(7)\nend(1)"
    )
    done = run.run(child, attempts=attempts)
    assert done.returncode == 1
    assert len(run.starts()) == attempts + 1  # the first made the checkpoint
    sentence = done.stderr.splitlines()[-1]
    times = "4 times in a row" if attempts == 4 else "once"
    assert sentence.startswith(f"Gave up after {sys.executable} was started {times} without a new ")
    assert f"in {run.folder} (newest: step 5); it ended with code 7: an error, " in sentence
    assert "which said last: disk left; mend" in sentence
    assert sentence.endswith(f"{run.program} '{run.folder}' '--gin=A = '\"'\"'b c'\"'\"''")


def test_an_older_checkpoint_in_place_of_a_damaged_one_is_no_progress(run):
    child = """
if start == 1: save(3); save(9)
if start == 2: (folder / 'checkpoints/9').rename(folder / 'damaged')
end(1)
"""
    assert run.run(child).returncode == 1
    assert len(run.starts()) == 4  # the first made progress, and three did not


def test_waits_double_up_to_the_longest(run):
    done = run.run("end(1)", attempts=6)
    waits = re.findall(r"starting again (.*)", done.stderr)
    assert waits == ["at once", "in 0.1 s", "in 0.2 s", "in 0.2 s", "in 0.2 s"]
    times = [start["time"] for start in run.starts()]
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert all(gap > wait for gap, wait in zip(gaps, (0, 0.1, 0.2, 0.2, 0.2), strict=True))
    waits = [supervisor.Patience().wait_seconds(failures) for failures in range(10)]
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert supervisor.Patience().wait_seconds(10**6) == 60


@pytest.mark.parametrize("processes", [None, 2])
def test_bad_input_is_not_started_again(run, processes):
    child = "if index: wait()\ntime.sleep(0.1); print('No such file.', file=sys.stderr); end(2)"
    done = run.run(child, processes)
    assert done.returncode == 2 and len(run.starts()) == 1
    assert "No such file.\n" in done.stderr and "not started again" in done.stderr


def test_what_follows_from_a_lost_process_is_no_bad_input(run):
    child = """
if start == 1 and index == 1: end(137)
if start == 1: time.sleep(0.15); end(2)
"""
    assert run.run(child, 2).returncode == 0
    assert len(run.starts()) == 2


def test_a_run_that_left_early_is_started_again_until_it_is_finished(run):
    done = run.run("save(start); told(start * 10, 30)")  # each ends with code 0
    assert done.returncode == 0 and len(run.starts()) == 3
    assert "the run is not finished (step 20 of 30)" in done.stderr


@pytest.mark.parametrize(("saved", "starts"), [(30, 1), (29, 3)])
def test_an_end_that_fails_after_the_last_save_is_the_end(run, saved, starts):
    done = run.run(f"save({saved}); told(30, 30); end(134)")
    assert done.returncode == (0 if starts == 1 else 1)
    assert len(run.starts()) == starts + (starts > 1)  # 29 itself is progress, once


@pytest.mark.parametrize("record", ["told(10, 30)", "(folder / 'training.json').write_text('{')"])
def test_a_run_that_keeps_leaving_early_is_a_crash_loop(run, record):
    done = run.run(record)
    assert done.returncode == 1 and len(run.starts()) == 3
    assert "ended with code 0" in done.stderr.splitlines()[-1]


def test_processes_get_the_flags_to_meet_and_a_new_port_every_time(run):
    done = run.run("save(start)\nif start < 3: end(1)", 3)
    assert done.returncode == 0
    for index in range(3):
        starts = run.starts(index)
        assert [s["process_index"] for s in starts] == [str(index)] * 3
        assert {s["process_count"] for s in starts} == {"3"}
        assert [s["coordinator_address"] for s in starts] == [
            s["coordinator_address"] for s in run.starts(0)
        ]
    ports = {s["coordinator_address"].removeprefix("127.0.0.1:") for s in run.starts()}
    assert len(ports) > 1 and all(port.isdecimal() for port in ports)


def test_one_process_of_one_gets_the_flags_too(run):
    assert run.run("", 1).returncode == 0
    assert run.starts()[0]["process_count"] == "1"


def test_the_others_are_killed_after_a_grace_and_all_start_again(run):
    child = """
signal.signal(signal.SIGTERM, lambda *_: (folder / 'termed').write_text(''))
if start == 1 and index == 0: wait()
if start == 1 and index == 1: time.sleep(0.2); end(1)
if start == 1 and index == 2: time.sleep(0.3); end(134)
"""
    done = run.run(child, 3)
    assert done.returncode == 0
    assert [len(run.starts(index)) for index in range(3)] == [2, 2, 2]
    assert "process 1 ended with code 1" in done.stderr
    assert "process 2 ended with code 134" in done.stderr  # within the grace, on its own
    assert "process 0 is killed: it could only wait for process 1\n" in done.stderr
    assert "process 2 is killed" not in done.stderr
    assert not (run.folder / "termed").exists()  # that would mean: save, and stop


def test_stderr_of_several_is_told_apart_and_of_one_passes_as_it_is(run):
    child = """
os.write(2, b"one\\ntw"); time.sleep(0.1); os.write(2, b"o\\n\\xff\\nrest")
os.write(1, b"")
"""
    done = subprocess.run(run.call(child, 2), capture_output=True, timeout=30)
    lines = done.stderr.splitlines()
    for index in (b"0", b"1"):
        words = [line[4:] for line in lines if line.startswith(b"[" + index + b"] ")]
        assert words == [b"one", b"two", b"\xff", b"rest"]
    done = subprocess.run(run.call(child), capture_output=True, timeout=30)
    assert b"\none\ntwo\n\xff\nrest\nsupervise: " in done.stderr


@pytest.mark.parametrize(("processes", "written", "seen"), [(None, 3, 3), (2, 10**6, 9 * 10**5)])
def test_what_has_no_end_of_line_is_passed_on_all_the_same(run, processes, written, seen):
    child = f"""
ready()
for _ in range(0 if index else {written}, 0, -1000): os.write(2, b'x' * min({written}, 1000))
time.sleep(60)
"""
    process, began = run.begin(child, processes), time.monotonic()
    told = b""
    while told.count(b"x") < seen:
        told += os.read(process.stderr.fileno(), 65536)
    assert time.monotonic() - began < 30  # before it ended
    process.kill()
    process.communicate(timeout=20)


def test_a_last_word_between_two_looks_is_heard(tmp_path):
    child = Child([sys.executable, "-c", "import sys; sys.exit('last')"], "it", None)
    os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)
    read, calls = child._read, []
    child._read = lambda: calls.append("") or (len(calls) > 1 and read())
    child.look(1)
    assert (child.code, child.last_words) == (1, "last")


def test_only_the_beginning_of_long_last_words_is_told(run):
    done = run.run("print('x' * 50000, file=sys.stderr); end(1)", attempts=1)
    assert len(done.stderr.splitlines()[-1]) < 3000


@pytest.mark.parametrize("code", [0, 1])
def test_sigterm_is_passed_on_and_nothing_follows(run, code):
    child = f"""
def leave(*_): print('saved', file=sys.stderr); told(3, 9); end({code} if index else 0)
signal.signal(signal.SIGTERM, leave)
wait()
"""
    process = run.begin(child, 2)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "[0] saved\n" in errors and "[1] saved\n" in errors
    assert len(run.starts()) == 1


def test_a_child_that_saves_for_long_after_sigterm_is_let_be(run):
    child = """
def leave(*_):
    if index: end(1)
    time.sleep(1); print('saved', file=sys.stderr); end(0)
signal.signal(signal.SIGTERM, leave)
wait()
"""
    process = run.begin(child, 2)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1 and "[0] saved\n" in errors


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_signals_end_children_that_do_not_know_them(run, number, code):
    process = run.begin("signal.signal(signal.SIGINT, signal.SIG_DFL); wait()", 2)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code and len(run.starts()) == 1
    assert not is_alive(run.pid(0)) and not is_alive(run.pid(1))


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_ctrl_c_kills(run, first):
    child = """
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, lambda *_: (folder / "int").open("a").write("again"))
wait()
"""
    process = run.begin(child)
    process.send_signal(first)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # after SIGTERM the first of its kind
    if first == signal.SIGTERM:
        until((run.folder / "int").exists)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130 and not is_alive(run.pid())
    assert (run.folder / "int").read_text() == "again"


def test_a_signal_ends_the_wait_between_starts(run):
    process = run.begin("ready(); end(1)", first_wait_seconds=60, longest_wait_seconds=60)
    until(lambda: run.is_ready(0, "2"))
    time.sleep(0.2)
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143 and len(run.starts()) == 2
    assert errors.endswith("starting again in 60 s\n")


def test_under_nohup_a_hangup_is_nothing(run):
    child = "signal.signal(signal.SIGTERM, lambda *_: end(0)); wait()"
    process = run.begin(child, before=["nohup"])
    process.send_signal(signal.SIGHUP)
    os.kill(run.pid(), signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None and is_alive(run.pid())
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0 and len(run.starts()) == 1


def test_a_child_finds_no_signals_ignored_that_python_ignores(tmp_path):
    grep = ["grep", "SigIgn", "/proc/self/status"]
    call = [sys.executable, "-m", "simvlm_jax.cli.main", "supervise", f"--model_dir={tmp_path}"]
    done = subprocess.run([*call, "--", *grep], capture_output=True, text=True, timeout=30)
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1


def test_children_do_not_outlive_a_killed_supervisor(run):
    process = run.begin("wait()", 2)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: not is_alive(run.pid(0)) and not is_alive(run.pid(1)))


def test_what_a_child_started_ends_with_it(run):
    child = """
import subprocess
if start == 1:
    (folder / 'grandchild').write_text(str(subprocess.Popen(['sleep', '60']).pid))
    end(1)
"""
    assert run.run(child).returncode == 0
    until(lambda: not is_alive(int((run.folder / "grandchild").read_text())))


def test_a_child_that_stays_stopped_is_lost(run):
    child = "told(1, 2) if start == 1 else told(2, 2)\nif start == 1: wait()"
    process = run.begin(child, 2)
    os.kill(run.pid(1), signal.SIGSTOP)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and len(run.starts()) == 2
    assert "process 1 is killed: it has been stopped for 0.4 s" in errors


def test_a_child_that_is_soon_continued_goes_on(run):
    child = "ready()\nwhile not (folder / 'go').exists(): time.sleep(0.01)"
    process = run.begin(child, stopped_seconds=0.6)
    for _ in range(2):  # each less than the limit, together more
        os.kill(run.pid(), signal.SIGSTOP)
        time.sleep(0.35)
        os.kill(run.pid(), signal.SIGCONT)
        time.sleep(0.15)
    (run.folder / "go").write_text("")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and len(run.starts()) == 1
    assert "killed" not in errors


def test_a_reader_that_went_away_does_not_end_the_run(run):
    process = run.begin("ready()\nwhile not (folder / 'go').exists(): time.sleep(0.01)\nsave(1)")
    process.stderr.close()
    os.kill(run.pid(), signal.SIGKILL)
    until(lambda: run.is_ready(0, "2"))
    (run.folder / "go").write_text("")
    assert process.wait(timeout=20) == 0


def test_the_wall_clock_does_not_matter():
    names = {"time.time", "datetime", "gmtime", "localtime"}
    for file in ("supervisor.py", "children.py"):
        text = (Path(supervisor.__file__).parent / file).read_text()
        assert not [name for name in names if name in text]


def test_a_bucket_out_of_reach_is_told_and_no_stack_trace(run):
    call = run.call("end(1)")
    call[-1] = json.dumps(json.loads(call[-1]) | {"model_dir": "nonesuch://bucket/run"})
    done = subprocess.run(call, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and len(run.starts()) == 3
    assert "nonesuch://bucket/run could not be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_verb(tmp_path):
    program = "import sys; print(sys.argv[1:]); sys.exit(2)"
    call = [sys.executable, "-m", "simvlm_jax.cli.main", "supervise", f"--model_dir={tmp_path}"]
    words = ["--attempts=1", "--", sys.executable, "-c", program, "--", "--help"]
    done = subprocess.run([*call, *words], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "['--', '--help']\n")
    done = subprocess.run([*call, "--", "nonesuch"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("There is no program 'nonesuch'") and done.stderr.count("\n") == 1


def test_the_verb_passes_its_options_on(monkeypatch):
    seen = []
    monkeypatch.setattr(supervisor, "supervise", lambda *words: seen.append(words) or 5)
    given = ["--model_dir=m", "--processes=2", "--attempts=4", "--stopped_seconds=9"]
    assert cli.main(["supervise", *given, "--", "a", "--b"]) == 5
    patience = supervisor.Patience(attempts=4, stopped_seconds=9)
    assert seen == [(["a", "--b"], "m", 2, patience)]


def test_it_is_light():
    program = (
        "import sys; import simvlm_jax.supervisor, simvlm_jax.cli.supervise\n"
        "sys.exit(bool({'jax', 'numpy', 'tensorflow', 'etils'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
