"""One host of several: appends a digest of each global batch to a file, as the first host.

    python host_process.py PORT HOSTS INDEX DIGESTS STEPS [KILLED_AT]

It goes on where the file ends. The last host ends itself by SIGKILL before step KILLED_AT.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import simvlm_jax.tasks  # noqa: F401  registers the tasks
from jax.experimental import multihost_utils

from simvlm_jax.data.streams import GroupStream, host_groups

PAIR = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 24}
SETTINGS = {
    "pairs": {"openmoji_prefix_lm": 2, "openmoji_en_de": 1},
    "documents": {"documents_prefix_lm": 1},
    "groups": 4,
    "pair_lengths": PAIR,
    "document_lengths": {"inputs": 8, "targets": 8},
    "image_size": (8, 8),
    "seed": 3,
}


def digest(batch: dict[str, np.ndarray]) -> str:
    """A digest of names, shapes and contents."""
    whole = hashlib.sha256()
    for name in sorted(batch):
        array = np.ascontiguousarray(batch[name])
        whole.update(f"{name} {array.shape} {array.dtype}".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def main() -> None:
    """Runs one host to the last step."""
    port, hosts, index = map(int, sys.argv[1:4])
    digests, steps = Path(sys.argv[4]), int(sys.argv[5])
    killed_at = int(sys.argv[6]) if len(sys.argv) > 6 else None
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        hosts,
        index,
        heartbeat_timeout_seconds=10,
        shutdown_timeout_seconds=15,
    )
    stream, mine = GroupStream(**SETTINGS), host_groups(SETTINGS["groups"], index, hosts)
    start = len(digests.read_text().splitlines())
    multihost_utils.sync_global_devices("all have read where to start")
    for step, batch in zip(range(start, steps), stream.batches(start, mine), strict=False):
        if step == killed_at and index == hosts - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        whole = {
            name: multihost_utils.process_allgather(array, tiled=True)
            for name, array in batch.items()
        }
        if index == 0:
            with digests.open("a") as file:
                file.write(digest(whole) + "\n")


if __name__ == "__main__":
    main()
