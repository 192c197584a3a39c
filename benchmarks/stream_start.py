"""Seconds to the first batch of a training stream that starts at step 0, 10,000 and 1,000,000.

    python benchmarks/stream_start.py

The step is the stream's whole state, so all three should cost the same. The last line is a JSON
object: medians of the repeats with their lowest and highest, and the slowest start's ratio to the
fastest.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import simvlm_jax.tasks  # noqa: F401  registers the tasks

from simvlm_jax.data.streams import GroupStream
from simvlm_jax.data.testing_records import make_data

STEPS = (0, 10_000, 1_000_000)
PAIR_LENGTHS = {"image": 1, "example_seed": 2, "inputs": 16, "targets": 24}
DOCUMENT_LENGTHS = {"inputs": 16, "targets": 16}


def main() -> None:
    """Starts the stream again and again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SIMVLM_DATA_DIR"] = str(make_data(folder))
        stream = GroupStream(
            pairs={"openmoji_prefix_lm": 8},
            documents={"documents_prefix_lm": 1},
            groups=16,
            pair_lengths=PAIR_LENGTHS,
            document_lengths=DOCUMENT_LENGTHS,
            image_size=(64, 64),
            seed=0,
        )
        first_batch(stream, 0)  # traces the functions
        seconds: dict[int, list[float]] = {step: [] for step in STEPS}
        for _ in range(args.repeats):
            for step in STEPS:
                seconds[step].append(first_batch(stream, step))
    medians = {step: statistics.median(values) for step, values in seconds.items()}
    result = {
        "seconds_to_first_batch": {step: round(value, 4) for step, value in medians.items()},
        "lowest": {step: round(min(values), 4) for step, values in seconds.items()},
        "highest": {step: round(max(values), 4) for step, values in seconds.items()},
        "slowest_to_fastest": round(max(medians.values()) / min(medians.values()), 3),
    }
    print(json.dumps(result))


def first_batch(stream: GroupStream, step: int) -> float:
    """Seconds from asking for a stream to holding its first batch."""
    start = time.perf_counter()
    batches = stream.batches(step)
    next(batches)
    seconds = time.perf_counter() - start
    batches.close()
    return seconds


if __name__ == "__main__":
    main()
