"""Streams on several hosts, each a process of its own."""

import itertools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import simvlm_jax.tasks  # noqa: F401  registers the tasks

from simvlm_jax.data.streams import GroupStream

SCRIPT = Path(__file__).with_name("host_process.py")
STEPS, SECONDS = 12, 150


def run_hosts(hosts, digests, steps, killed_at=None):
    """Returns the exit codes of the hosts, in their order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [str(digests), str(steps), *([] if killed_at is None else [str(killed_at)])]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(port), str(hosts), str(index), *arguments],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for index in range(hosts)
    ]
    try:
        return [process.wait(SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()


def test_the_same_batches_on_1_2_and_4_hosts_through_kills(data_folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from host_process import SETTINGS, digest

    one_host = GroupStream(**SETTINGS)
    wanted = [digest(batch) for batch in itertools.islice(one_host.batches(), STEPS)]
    assert len(set(wanted)) == STEPS
    digests = tmp_path / "digests"
    digests.touch()
    codes = run_hosts(4, digests, STEPS, killed_at=3)
    assert codes[3] == -signal.SIGKILL and all(codes)  # none goes on alone, none calls it success
    done = len(digests.read_text().splitlines())
    assert done == 3
    codes = run_hosts(2, digests, STEPS, killed_at=7)
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    assert run_hosts(1, digests, STEPS - 2) == [0]
    assert run_hosts(2, digests, STEPS) == [0, 0]
    assert digests.read_text().splitlines() == wanted
