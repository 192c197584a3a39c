"""launch/tpu.sh, worker.sh, slurm.sh, local.sh and gke.yaml, by what programs are called with."""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from simvlm_jax.cli import main as cli
from simvlm_jax.cli import train
from site_stand_in import ROOT, Site

GIN = ["--gin", "PAIRS = {'forkme_prefix_lm': 8}", '--gin=A = "it\'s" # $HOME `x` \\ b']
GIN_WORDS = ["--gin=PAIRS = {'forkme_prefix_lm': 8}", '--gin=A = "it\'s" # $HOME `x` \\ b']
RUN = ["--gin_file=models/huge.gin", "--gin_file", "runs/paper.gin", *GIN]
TPU = ["--name=vlm", "--zone=z-a", "--topology=v5e:16x16", "--poll_seconds=1"]
POD = [*TPU, *RUN, "--model_dir=/mnt/a run's"]
T5X_WORDS = [
    "--gin.MODEL_DIR='/mnt/a run\\'s'",
    "--gin.PAIRS={'forkme_prefix_lm': 8}",
    '--gin.A="it\'s" # $HOME `x` \\ b',
]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def until(condition):
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told(done):
    """The commands of a dry run, as a shell reads them."""
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = [line[2:] for line in done.stdout.splitlines() if line.startswith("+ ")]
    return [shlex.split(line) for line in lines]


def parsed(call, monkeypatch):
    """What `simvlm train` makes of a command."""
    seen = []
    monkeypatch.setattr(train, "run", lambda args: seen.append(args) or 0)
    assert Path(call[0]).name == "simvlm" and cli.main(call[1:]) == 0
    return seen[0]


def after_dashes(call):
    return call[call.index("--") + 1 :]


@pytest.mark.parametrize("engine", ["own", "t5x"])
def test_local_processes(site, engine, monkeypatch, tmp_path):
    words = [
        "--processes=2",
        "--cpu_devices",
        "4",
        "--engine",
        engine,
        *RUN,
        "--model_dir=it's mine",
    ]
    (call,) = told(site.run("local.sh", *words, "--dry_run", "--", "--extra=a b", cwd=tmp_path))
    assert call[0] == "env" and f"SIMVLM_DATA_DIR={site.root}/data" in call
    assert {"JAX_PLATFORMS=cpu"} < set(call)
    assert any(word.endswith("--xla_force_host_platform_device_count=4") for word in call)
    folder = f"{tmp_path}/it's mine"
    start = call.index(f"{site.root}/.venv/bin/simvlm")
    assert call[start + 1 : call.index("--")] == [
        "supervise", f"--model_dir={folder}", "--attempts=3", "--processes=2",
    ]  # fmt: skip
    training = after_dashes(call)
    assert training.pop() == "--extra=a b"
    if engine == "own":
        args = parsed(training, monkeypatch)
        assert args.gin_file == ["models/huge.gin", "runs/paper.gin"] and args.model_dir == folder
        assert args.gin == [word.removeprefix("--gin=") for word in GIN_WORDS]
        assert not args.distributed  # the supervisor says who they are
    else:
        gin = f"{site.root}/gin"
        assert training == [
            f"{site.root}/.venv/bin/python", "-m", "t5x.train", "--multiprocess_gpu",
            f"--gin_search_paths={gin}", f"--gin_file={gin}/models/huge.gin",
            f"--gin_file={gin}/runs/paper.gin", f"--gin_file={gin}/t5x/pretrain.gin",
            "--gin.MODEL_DIR='" + folder.replace("'", "\\'") + "'", *T5X_WORDS[1:],
        ]  # fmt: skip


def test_local_processes_run_and_their_code_comes_back(site):
    site.says(does="7")
    words = ["--processes=3", "--gin_file=runs/demo.gin", "--model_dir=/m", "--attempts", "5"]
    assert site.run("local.sh", *words).returncode == 7
    (call,) = site.calls("simvlm")
    assert call[1:5] == ["supervise", "--model_dir=/m", "--attempts=5", "--processes=3"]


def test_a_gin_file_of_the_callers_own(site, tmp_path):
    (tmp_path / "mine.gin").write_text("")
    words = ["--gin_file=mine.gin", "--model_dir=m", "--dry_run"]
    (call,) = told(site.run("local.sh", *words, cwd=tmp_path))
    assert f"--gin_file={tmp_path}/mine.gin" in call


@pytest.mark.parametrize(("index", "seen"), [(0, "0,1"), (3, "6,7")])
def test_each_process_sees_its_share_of_the_gpus(index, seen, site):
    words = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES", "--", f"--process_index={index}"]
    assert site.run("with_gpus.sh", "2", *words).stdout == f"{seen}\n"
    words = ["--gpus_per_process=2", "--gin_file=runs/demo.gin", "--model_dir=m", "--dry_run"]
    (call,) = told(site.run("local.sh", *words))
    assert after_dashes(call)[:3] == ["bash", f"{site.root}/launch/with_gpus.sh", "2"]


@pytest.mark.parametrize(
    ("topology", "flags"),
    [
        ("v5e:16x16", ["--accelerator-type=v5litepod-256", "v2-alpha-tpuv5-lite"]),
        ("v6e:8x8", ["--accelerator-type=v6e-64", "v2-alpha-tpuv6e"]),
        ("v5p:4x4x4", ["--accelerator-type=v5p-128", "v2-alpha-tpuv5"]),
        ("v3:8x8", ["--accelerator-type=v3-128", "tpu-ubuntu2204-base"]),
        ("v4:4x4x8", ["--type=v4", "--topology=4x4x8", "tpu-ubuntu2204-base"]),
    ],
)
def test_topologies_as_google_calls_them(site, topology, flags):
    words = ["--name=vlm", "--zone=z", f"--topology={topology}", "--dry_run"]
    (call,) = told(site.run("tpu.sh", "create", *words))
    start = [
        "gcloud",
        "compute",
        "tpus",
        "queued-resources",
        "create",
        "vlm",
        "--zone=z",
        "--quiet",
    ]
    assert call == [*start, *flags[:-1], f"--runtime-version={flags[-1]}", "--node-id=vlm"]


def test_several_slices_spot_and_further_flags(site):
    words = [
        "--slices=2",
        "--spot",
        "--create_flag=--reserved",
        "--project=p",
        "--runtime_version=r",
    ]
    (call,) = told(site.run("tpu.sh", "create", *TPU, *words, "--dry_run"))
    assert call[8:] == [
        "--project=p", "--accelerator-type=v5litepod-256", "--runtime-version=r", "--node-count=2",
        "--node-prefix=vlm", "--spot", "--reserved",
    ]  # fmt: skip


def test_a_dry_run_of_up_tells_all_and_calls_nothing(site):
    calls = told(site.run("tpu.sh", "up", *POD, "--dry_run"))
    verbs = [call[4] if call[0] == "gcloud" else call[:3] for call in calls]
    bundle = ["git", "bundle", "create"]
    assert verbs == ["describe", "create", "describe", bundle, "scp", "ssh", "ssh"]
    assert site.calls() == [] and not list(site.root.glob(".git/*.bundle"))
    for call in calls[-2:]:
        assert {"--node=all", "--worker=all", "--batch-size=all", "vlm", "--zone=z-a"} < set(call)
    watch = told(site.run("tpu.sh", "watch", *POD, "--dry_run"))
    assert watch[: len(calls)] == calls and [c[4] for c in watch[len(calls) :]] == ["ssh", "delete"]


@pytest.mark.parametrize("engine", ["own", "t5x"])
def test_up_installs_one_commit_and_starts_every_host(site, engine, monkeypatch):
    site.lives([["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]])
    prepare = f'echo "$PWD it\'s" >{shlex.quote(str(site.cloud))}/prepared'
    more = ["--", "--heartbeat_seconds=60"] if engine == "own" else ["--", "--gin.X='y z'"]
    words = [f"--engine={engine}", f"--prepare={prepare}", "--data_dir=/mnt/my data"]
    done = site.run("tpu.sh", "up", *POD, *words, *more)
    assert done.returncode == 0, done.stderr
    seen = ["describe", "create", *["describe"] * 3, "scp", "ssh", "ssh"]
    assert site.verbs() == seen
    until(lambda: len(site.calls("simvlm")) == 2)
    assert (site.cloud / "prepared").read_text().endswith("/simvlm_jax it's\n")
    for host, call in zip(("host0", "host1"), sorted(site.calls("simvlm")), strict=True):
        clone = site.cloud / host / "simvlm_jax"
        head = subprocess.check_output(["git", "-C", clone, "rev-parse", "HEAD"], text=True)
        assert head.strip() == site.git("rev-parse", "HEAD")
        until((clone / "runs/launch/code").exists)
        log = (clone / "runs/launch/log").read_text()
        training = shlex.split(next(s for s in log.splitlines() if s.startswith("+ "))[2:])
        assert training[1:] == call[1:]
        assert call[1:5] == ["supervise", "--model_dir=/mnt/a run's", "--attempts=3", "--"]
        training = after_dashes(training)
        if engine == "own":
            args = parsed(training, monkeypatch)
            assert args.distributed and args.model_dir == "/mnt/a run's"
            assert args.gin == [word.removeprefix("--gin=") for word in GIN_WORDS]
            assert args.heartbeat_seconds == 60
        else:
            assert training[:4] == [
                f"{clone}/.venv/bin/python",
                "-m",
                "t5x.train",
                "--multiprocess_gpu",
            ]
            assert training[-4:] == [*T5X_WORDS, "--gin.X='y z'"]
    installed = [call for call in site.calls("python") if ".[tpu,gcs]" in call]
    t5x = [call for call in site.calls("python") if "google-research/t5x" in call[-1]]
    assert len(installed) == 2 and len(t5x) == (2 if engine == "t5x" else 0)
    done = site.run("tpu.sh", "status", *TPU)
    assert done.stdout.count("simvlm: finished\n") == 2
    assert "supervise" in site.run("tpu.sh", "logs", *TPU, "--worker=1").stdout


def test_t5x_may_write_to_a_bucket(site):
    words = [*TPU, *RUN, "--model_dir=gs://a/b", "--engine=t5x", "--dry_run"]
    (call,) = told(site.run("tpu.sh", "start", *words))
    assert " --model_dir=gs://a/b " in call[-1]


def test_hosts_may_clone_a_repository_instead(site):
    site.lives([["ACTIVE"]])
    commit = site.git("rev-parse", "HEAD")
    (site.root / "gin/runs/later.gin").write_text("")
    site.commit()
    words = [*POD, f"--repository={site.root}/.git", f"--commit={commit}"]
    assert site.run("tpu.sh", "up", *words).returncode == 0
    clone = site.cloud / "host0/simvlm_jax"
    assert "scp" not in site.verbs() and not (clone / "gin/runs/later.gin").exists()
    assert site.run("tpu.sh", "setup", *TPU, f"--repository={site.root}/.git").returncode == 0
    assert (clone / "gin/runs/later.gin").exists()  # the same host goes to another commit


def test_a_started_run_is_not_started_twice_and_stops_when_told(site):
    site.says(does="run")
    assert site.run("tpu.sh", "up", *POD).returncode == 0
    until(lambda: len(site.calls("simvlm")) == 2)
    done = site.run("tpu.sh", "start", *POD)
    assert done.returncode == 0 and done.stdout.count("simvlm: running\n") == 2
    assert site.run("tpu.sh", "status", *TPU).stdout.count("simvlm: running; + ") == 2
    assert site.run("tpu.sh", "stop", *TPU).returncode == 0
    assert site.run("tpu.sh", "status", *TPU).stdout.count("simvlm: stopped\n") == 2
    assert len(site.calls("simvlm")) == 2
    done = site.run("tpu.sh", "watch", *POD)
    assert done.returncode == 0 and "was stopped" in done.stdout


def test_watch_makes_a_machine_anew_that_was_taken_back(site):
    site.says(does="run")
    site.lives(
        [["WAITING_FOR_RESOURCES", "ACTIVE", "UNREACHABLE", "SUSPENDING", "SUSPENDED"], ["ACTIVE"]]
    )
    watch = site.begin("tpu.sh", "watch", *POD, "--spot", "--delete_at_end")
    until(lambda: site.verbs().count("create") == 2)
    until(lambda: len(site.calls("simvlm")) == 4)
    site.says(does="0")
    output, errors = watch.communicate(timeout=60)
    assert watch.returncode == 0, errors
    assert "vlm is SUSPENDED" in output and "The run is finished" in output
    assert site.verbs().count("delete") == 2
    assert all(
        "--spot" in call for call in site.calls("gcloud", *["compute", "tpus"]) if "create" in call
    )


def test_watch_starts_again_what_a_restarted_host_lost(site):
    site.says(does="run")
    watch = site.begin("tpu.sh", "watch", *POD)
    until(lambda: len(site.calls("simvlm")) == 2)
    pid = int((site.cloud / "host1/simvlm_jax/runs/launch/pid").read_text())
    os.kill(pid, signal.SIGTERM)  # as when the host shuts down: nobody asked the run to stop
    until(lambda: len(site.calls("simvlm")) == 3)
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=60)
    assert watch.returncode == 130
    site.run("tpu.sh", "stop", *TPU)


def test_watch_ends_where_the_run_failed(site):
    site.says(does="2")
    done = site.run("tpu.sh", "watch", *POD)
    assert done.returncode == 1 and "failed with code 2" in done.stderr.splitlines()[-1]
    assert "delete" not in site.verbs()


def test_watch_gives_up_what_cannot_be_had(site):
    site.lives([["FAILED"]] * 9)
    done = site.run("tpu.sh", "watch", *POD, "--attempts=2")
    assert done.returncode == 1 and site.verbs().count("create") == 2
    assert "vlm could not be had, 2 times in a row" in done.stderr


def test_up_does_not_wait_for_what_will_not_come(site):
    site.lives([["WAITING_FOR_RESOURCES", "FAILED"]])
    done = site.run("tpu.sh", "up", *POD)
    assert done.returncode == 1 and "vlm is FAILED and will not come" in done.stderr
    assert site.verbs() == ["describe", "create", "describe", "describe"]


@pytest.mark.parametrize("engine", ["own", "t5x"])
def test_slurm_submits_and_the_job_trains(site, engine, monkeypatch):
    words = ["--nodes=2", "--gpus_per_node=4", "--cpus_per_node=12", "--sbatch_flag=--time=1:00:00"]
    words += [f"--engine={engine}", *RUN, "--model_dir=/shared/a run's", "--", "--extra=a b"]
    assert site.run("slurm.sh", *words).returncode == 0
    (sbatch,) = site.calls("sbatch")
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--cpus-per-task=12"} < set(
        sbatch
    )
    assert {"--requeue", "--signal=B:TERM@120", "--time=1:00:00", "--exclusive"} < set(sbatch)
    (srun,) = site.calls("srun")
    assert srun[1:5] == [
        "--ntasks=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "--cpus-per-task=12",
    ]  # fmt: skip
    assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3" in srun and f"SIMVLM_DATA_DIR={site.root}/data" in srun
    (call,) = site.calls("simvlm")
    training = after_dashes(call)
    assert training.pop() == "--extra=a b"
    if engine == "own":
        args = parsed(training, monkeypatch)
        assert args.distributed and args.model_dir == "/shared/a run's"
        assert args.gin == [word.removeprefix("--gin=") for word in GIN_WORDS]
    else:
        assert training[1:4] == ["-m", "t5x.train", "--multiprocess_gpu"]
        assert training[-2:] == T5X_WORDS[1:]
    assert site.calls("scontrol") == []


@pytest.mark.parametrize(
    ("state", "requeued"), [("RUNNING", [["scontrol", "requeue", "7"]]), ("CANCELLED", [])]
)
def test_slurm_queues_again_what_the_time_limit_ended(site, state, requeued):
    site.says(does="run")
    words = ["--in_job", "--nodes=2", "--gpus_per_node=4", "--model_dir=/m", *RUN]
    job = site.begin("slurm.sh", *words, SLURM_JOB_ID="7", JOB_STATE=state)
    until(lambda: site.calls("simvlm"))
    job.terminate()
    job.communicate(timeout=60)
    assert job.returncode == 0 and site.calls("scontrol") == requeued


@pytest.mark.parametrize(
    ("code", "is_open", "queued"), [("0", "0", 1), ("0", "1", 0), ("1", "0", 0)]
)
def test_slurm_queues_again_a_run_that_left_early(site, code, is_open, queued):
    site.says(does=code)
    words = ["--in_job", "--nodes=2", "--gpus_per_node=4", "--model_dir=/m", *RUN]
    # The program's folder is that of the simvlm found; its Python answers whether the run is open.
    python = site.cloud / "programs/python"
    python.write_text((site.cloud / "programs/simvlm").read_text())
    python.chmod(0o755)
    done = site.run("slurm.sh", *words, SLURM_JOB_ID="7", OPEN=is_open)
    assert done.returncode == int(code) and len(site.calls("scontrol")) == queued


MISTAKES = [
    ("local.sh", ["--model_dir=m"], "local.sh needs --gin_file"),
    ("local.sh", ["--gin_file=runs/demo.gin"], "local.sh needs --model_dir"),
    ("local.sh", ["--fast=1"], "local.sh knows no flag --fast"),
    ("local.sh", ["--processes=two"], "--processes is a whole number from 1 on, not 'two'"),
    ("local.sh", ["--gin=x"], "--gin is 'NAME = VALUE', not 'x'"),
    ("local.sh", ["--engine=torch"], "--engine is own or t5x, not 'torch'"),
    ("local.sh", ["--gin_file=no.gin", "--model_dir=m"], "There is no gin file no.gin"),
    ("local.sh", ["--model_dir=a\nb"], "another control character"),
    ("local.sh", [*RUN, "--model_dir=m", "--cpu_devices=1", "--gpus_per_process=1"], "not both"),
    ("slurm.sh", [*RUN, "--model_dir=m", "--nodes=2"], "needs --nodes and --gpus_per_node"),
    ("tpu.sh", ["launch"], "knows no verb 'launch'"),
    ("tpu.sh", ["up", "--zone=z"], "needs --name"),
    ("tpu.sh", ["up", "--name=A b", "--zone=z"], "not 'A b'"),
    ("tpu.sh", ["wait", "--name=a"], "needs --zone"),
    ("tpu.sh", ["create", *TPU, "--topology=v5e-256"], "not 'v5e-256'"),
    ("tpu.sh", ["create", *TPU, "--topology=v5e:4x4x4"], "not 'v5e:4x4x4'"),
    ("tpu.sh", ["create", *TPU, "--topology=v9:4x4"], "not 'v9:4x4'"),
    ("tpu.sh", ["start", *TPU, *RUN, "--model_dir=runs/a"], "that all hosts share"),
    ("tpu.sh", ["start", *TPU, *RUN, "--model_dir=gs://a/b"], "writes to folders, not to gs://a/b"),
    ("tpu.sh", ["up", *POD, "--gin_file=mine.gin"], "The commit has no gin/mine.gin"),
    ("tpu.sh", ["up", *POD, "--commit=abc"], "finds no commit 'abc'"),
    ("worker.sh", ["dance"], "knows no verb 'dance'"),
]


@pytest.mark.parametrize(("script", "words", "sentence"), MISTAKES)
def test_mistakes_are_one_sentence(site, script, words, sentence):
    done = site.run(script, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert site.calls() == []


def test_what_is_not_committed_is_not_installed(site):
    (site.root / "setup.py").write_text("changed")
    done = site.run("tpu.sh", "up", *POD)
    assert done.returncode == 2 and "has changes that are in none" in done.stderr
    assert site.calls() == []


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh", "tpu.sh"])
def test_help_lists_every_flag(site, script):
    done = site.run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    files = {"tpu.sh": ["tpu.sh", "tpu_machine.sh", "training.sh"]}.get(
        script, [script, "training.sh"]
    )
    text = "".join((ROOT / "launch" / file).read_text() for file in files)
    known = {
        line.strip().split("=")[0].split(")")[0]
        for line in text.splitlines()
        if line.startswith(("    --", "      --")) and ")" in line
    }
    assert len(known) > 8
    assert not [flag for flag in known if flag not in done.stdout]


def test_the_manifest_for_gke():
    (jobset,) = yaml.safe_load_all((ROOT / "launch/gke.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    x, y = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = int(container["resources"]["limits"]["google.com/tpu"])
    assert spec["completions"] == spec["parallelism"] == x * y // chips  # a pod a host
    assert spec["backoffLimit"] == 0 and jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    command = shlex.split(container["command"][-1])
    assert container["command"][:2] == ["bash", "-c"] and command[:2] == ["exec", "simvlm"]
    assert after_dashes(command)[:2] == ["simvlm", "train"] and "--distributed" in command
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"] and "nfs" in volume
    assert json.dumps(container["command"]).count(f"--model_dir={mount['mountPath']}/") == 2
    assert len((ROOT / "launch/gke.yaml").read_text().splitlines()) <= 60
