"""A site to launch at: a clone with the real scripts, and programs that stand in for the cloud's.

`gcloud` keeps a queued resource in files and runs commands for its hosts in a shell each, as ssh
does; `sbatch` runs the job at once. Each notes how it was called, and so does `simvlm`.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As pip does it: a line "#!" cannot name an interpreter in a folder with blanks.
NOTE = f"""#!/bin/sh
'''exec' {shlex.quote(sys.executable)} "$0" "$@"
' '''
import json, os, pathlib, shutil, subprocess, sys, time
cloud = pathlib.Path(os.environ["CLOUD"])
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with (cloud / "calls").open("a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
"""
GCLOUD = (
    NOTE
    + """
flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
verb, current = words[3], cloud / "current"
lives = json.loads((cloud / "lives").read_text())
hosts = sorted(cloud.glob("host*"))
if verb == "create":
    current.write_text(json.dumps(lives.pop(0)))
    (cloud / "lives").write_text(json.dumps(lives))
    for host in ("host0", "host1"):
        shutil.rmtree(cloud / host, ignore_errors=True)
        (cloud / host).mkdir()
elif verb == "describe":
    if not current.exists():
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found.")
    states = json.loads(current.read_text())
    state = states.pop(0) if len(states) > 1 else states[0]
    current.write_text(json.dumps(states))
    if state == "UNREACHABLE":
        sys.exit("ERROR: (gcloud) UNAVAILABLE: try later")
    print(state)
elif verb == "delete":
    current.unlink()
elif verb == "scp":
    for host in hosts:
        shutil.copy(words[4], host / words[5].split(":")[1])
elif verb == "ssh":
    if flags["worker"] != "all":
        hosts = [cloud / ("host" + flags["worker"])]
    shell = ["bash", "-c", flags["command"]]
    sys.exit(max(subprocess.run(shell, cwd=host).returncode for host in hosts))
"""
)
# What `simvlm` does is said by a file: an exit code, or "run" until SIGTERM. It is the Python, too.
SIMVLM = (
    NOTE
    + """
import signal
if name == "python" and words[:1] == ["-"]:
    sys.exit(int(os.environ.get("OPEN", 1)))  # as asked whether the run is open
if name == "simvlm":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while (does := (cloud / "does").read_text()) == "run":
        time.sleep(0.05)
    sys.exit(int(does))
"""
)
PYTHON = f"""#!/usr/bin/env bash
if [[ "$1 $2" != "-m venv" ]]; then exec {shlex.quote(sys.executable)} "$@"; fi
mkdir -p .venv/bin && cp "$CLOUD/programs/simvlm" .venv/bin/ && cp .venv/bin/simvlm .venv/bin/python
"""
SBATCH = (
    NOTE
    + """
(script,) = [word.removeprefix("--wrap=") for word in words if word.startswith("--wrap=")]
sys.exit(subprocess.run(["sh", "-c", script], env=os.environ | {"SLURM_JOB_ID": "7"}).returncode)
"""
)
SRUN = (
    NOTE
    + """
os.execvp("env", words[[word[:2] == "--" for word in words].index(False) :])
"""
)
SQUEUE = NOTE + "print(os.environ.get('JOB_STATE', 'RUNNING'))\n"
PROGRAMS = {
    "gcloud": GCLOUD, "simvlm": SIMVLM, "python3-stand-in": PYTHON, "sbatch": SBATCH, "srun": SRUN,
    "squeue": SQUEUE, "scontrol": NOTE, "sleep": "#!/bin/sh\nexec /bin/sleep 0.05\n",
}  # fmt: skip


class Site:
    """The clone, the cloud's files, and what was called."""

    def __init__(self, folder):
        self.root, self.cloud = folder / "a clone" / "it's here", folder / "cloud"
        (self.cloud / "programs").mkdir(parents=True)
        for name, text in PROGRAMS.items():
            path = self.cloud / "programs" / name
            path.write_text(text)
            path.chmod(0o755)
        shutil.copytree(ROOT / "launch", self.root / "launch")
        shutil.copytree(ROOT / "gin", self.root / "gin")
        (self.root / "setup.py").write_text("")
        (self.root / "requirements.lock").write_text("a==1\n")
        (self.root / ".gitignore").write_text(".venv\n/runs\n")
        self.environment = os.environ | {
            "PATH": f"{self.cloud / 'programs'}:{os.environ['PATH']}",
            "CLOUD": str(self.cloud),
            "SIMVLM_PYTHON": "python3-stand-in",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        self.environment.pop("SIMVLM_DATA_DIR", None)
        self.git("init", "--quiet")
        self.commit()
        self.says(does="0")
        self.lives([["ACTIVE"]])

    def git(self, *words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *who, *words]
        done = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=a")

    def lives(self, states):
        """The states of the queued resource, look by look, for each time it is created."""
        (self.cloud / "lives").write_text(json.dumps(states))

    def says(self, **files):
        for name, text in files.items():
            (self.cloud / name).write_text(text)

    def command(self, script, *words):
        return ["bash", str(self.root / "launch" / script), *words]

    def run(self, script, *words, cwd="/", **variables):
        return subprocess.run(
            self.command(script, *words),
            cwd=cwd,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def begin(self, script, *words, **variables):
        pipe = subprocess.PIPE
        environment = self.environment | variables
        command = self.command(script, *words)
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def calls(self, *start):
        """How programs were called whose words begin so."""
        path = self.cloud / "calls"
        calls = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [call for call in calls if call[: len(start)] == list(start)]

    def verbs(self):
        return [call[4] for call in self.calls("gcloud")]
