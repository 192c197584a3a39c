"""What a training process tells and opens: no secret of its environment, no port but JAX's own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.test_verbs import SMALL, bindings
from simvlm_jax.cli.main import main
from simvlm_jax.data.sources.patterns import find_shards
from simvlm_jax.errors import UserError
from simvlm_jax.training.reading import saved_steps

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "unmistakable-aws-Zq81xk",
    "HF_TOKEN": "hf_unmistakableZq82xk",
    "WANDB_API_KEY": "unmistakablewandbZq83xk",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON": '{"key": "unmistakable-gcp-Zq84xk"}',
}
MARK = b"nmistakable"  # in each of them
LONG = [line for line in SMALL if "TOTAL_STEPS" not in line]
LONG += ["TOTAL_STEPS = 1000000", "CHECKPOINT_PERIOD = 2", "loop.train.log_every = 1"]
LISTEN = "0A"  # a state in /proc/net/tcp
PATIENCE = 300


def train(data, model_dir, *lines):
    return subprocess.Popen(
        [sys.executable, "-m", "simvlm_jax.cli.main", "train", "--gin_file=runs/demo.gin"]
        + [f"--model_dir={model_dir}", f"--data_dir={data}", *bindings(*lines)],
        env=os.environ | SECRETS | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def listening_ports(process):
    """The ports on which a process waits for others, by the sockets that it holds."""
    sockets = set()
    for number in Path(f"/proc/{process}/fd").iterdir():
        try:
            sockets.add(os.readlink(number))
        except FileNotFoundError:  # closed meanwhile
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTEN and f"socket:[{rest[5]}]" in sockets:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


@pytest.fixture(scope="module")
def stopped(made_data, tmp_path_factory):
    """A run that was looked at while it trained, and then stopped by SIGTERM."""
    folder = tmp_path_factory.mktemp("stopped")
    process = train(made_data, folder, *LONG)
    deadline = time.monotonic() + PATIENCE
    while not saved_steps(folder / "checkpoints") and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    ports = listening_ports(process.pid)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told[1]
    return folder, told, ports


def leaks(folder, *told):
    """Where a secret stands: in a file below the folder, or in what was told."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files
    return [place for place, content in [*files.items(), *enumerate(told)] if MARK in content]


def test_no_secret_of_the_environment_is_told_or_written(stopped):
    folder, told, _ = stopped
    names = {path.name for path in folder.rglob("*")}
    assert {"config.gin", "model_config.json", "losses.jsonl"} <= names and told[1]
    assert leaks(folder, *told) == []


def test_nor_where_a_run_fails(made_data, tmp_path):
    process = train(made_data, tmp_path, *SMALL, "LEARNING_RATE = 'no number'")
    told = process.communicate(timeout=PATIENCE)
    assert process.returncode and b"Traceback" in told[1]
    (tmp_path / "told").write_bytes(told[1])
    assert leaks(tmp_path, *told) == []


def test_a_leak_would_be_found(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "config").write_text(str(SECRETS))
    assert leaks(tmp_path, b"", *(secret.encode() for secret in SECRETS.values())) == [
        tmp_path / "deep" / "config", 1, 2, 3, 4,
    ]  # fmt: skip


URL = "https://someone:unmistakable-Zq85xk@example.com/a-{0..1}.jsonl"


def test_a_password_in_a_url_is_refused_and_not_repeated(capsys, tmp_path):
    assert main(["prepare", "pairs", f"--input={URL}", f"--data_dir={tmp_path}", "--name=a"]) == 2
    told = capsys.readouterr()
    assert "--input has a URL with a password in it, at example.com" in told.err
    (tmp_path / "told").write_text(told.out + told.err)
    assert leaks(tmp_path) == []
    with pytest.raises(UserError, match="The split has a URL with a password") as caught:
        find_shards(URL, "The split")
    assert MARK.decode() not in str(caught.value)


@pytest.mark.parametrize("url", ["abfs://box@account.example/a", "memory://user/a@b:c", "gs://a/b"])
def test_other_urls_are_none_of_that(url):
    assert find_shards(url, "The split") == [url]


def test_a_process_without_a_coordinator_listens_on_no_port(stopped):
    assert stopped[2] == set()


def test_a_process_with_one_listens_where_jax_does_only():
    """On the coordinator's port, and once JAX has devices on that of its CPU collectives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = (
        "from simvlm_jax import hosts\n"
        f"hosts.join('127.0.0.1:{port}', 1, 0)\n"
        "print('joined', flush=True); input()\n"
        "import jax; jax.devices()\n"
        "print('devices', flush=True); input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    try:
        assert process.stdout.readline() == b"joined\n"
        assert listening_ports(process.pid) == {port}
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"devices\n"
        assert len(listening_ports(process.pid) - {port}) == 1
    finally:
        process.kill()
        process.communicate()


def test_a_port_would_be_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in listening_ports(os.getpid())
