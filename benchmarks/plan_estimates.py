"""A plan's estimates beside measurements on CPU: memory and operations of a training step.

    python benchmarks/plan_estimates.py

For the demo's size and for small, each in a process of its own: the resident memory that a step
takes (its peak beyond what the process holds between steps, warmed up) beside the plan's bytes per
device; and the analytic operations beside XLA's own count of the same step with its loops unrolled.
The last line is a JSON object with the ratios estimate / measurement: the median of the repeats
with its lowest and highest.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
GIN = {
    "tiny": ["runs/demo.gin"],
    "small": ["models/small.gin", "runs/paper.gin"],
}
BATCH = {
    "tiny": ["BATCH_SIZE = 8", "VOCABULARY_SIZE = 2048"],
    "small": [
        "BATCH_SIZE = 1",
        "DTYPE = 'float32'",
        "REMAT_POLICY = 'none'",
        "config.SimVLMConfig.scan_blocks = False",
    ],
}


def main() -> None:
    """Measures every size in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=sorted(GIN), default=sorted(GIN))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", choices=sorted(GIN), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    result = {}
    for size in args.sizes:
        command = [sys.executable, __file__, "--measure", size]
        runs = []
        for _ in range(args.repeats):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(size, runs[-1], file=sys.stderr)
        result[size] = {
            name: summary([run[f"{name}_estimate"] / run[f"{name}_measured"] for run in runs])
            for name in ("memory", "flops")
        }
    print(json.dumps(result))


def summary(ratios: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {name: round(value, 4) for name, value in found.items()}


def measure(size: str) -> dict[str, float]:
    """Plans a step, runs it, and counts."""
    from simvlm_jax import configuration
    from simvlm_jax.data.quiet import import_tensorflow
    from simvlm_jax.data.streams import GroupStream
    from simvlm_jax.planning import job, memory, topologies

    topologies.prepare("cpu:1")
    import_tensorflow()
    configuration.load(GIN[size], BATCH[size])
    parts = [configuration.value(f"loop.train.{n}") for n in ("model", "optimizer", "partitioner")]
    shapes = job.batch_shapes(configuration.bindings(GroupStream))
    planned = job.build("train", *parts, shapes, topologies.open_topology("cpu:1"))
    lowered = planned.function.lower(*planned.arguments)
    compiled = lowered.compile()
    estimate = memory.parts(planned, compiled)
    return {
        "memory_estimate": estimate["total"] - estimate["program"],
        "memory_measured": run(planned, compiled, parts[1], shapes),
        "flops_estimate": planned.model_flops,
        "flops_measured": unrolled_flops(planned, parts, shapes),
    }


def run(planned, compiled, optimizer, shapes) -> float:
    """Resident bytes that some steps take at their peak."""
    import jax
    import numpy as np

    from simvlm_jax.training.state import create_state

    first = create_state(planned.model, optimizer, shapes, planned.state, 0)
    jax.block_until_ready(first)
    random = np.random.default_rng(0)
    types = shapes.input_types
    batch = {
        name: random.integers(0, 200, shape).astype(types[name])
        for name, shape in shapes.input_shapes.items()
    }

    def steps(count: int) -> Any:
        # A copy, since to make a state is to compile, which takes memory of its own.
        state = jax.device_put(first, may_alias=False)
        for _ in range(count):
            state, loss, *_ = compiled(state, jax.device_put(batch, planned.layout.by_group))
            jax.block_until_ready(loss)
        return loss

    steps(1)  # threads and their working memory stay
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory would be used again, unseen
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    loss = steps(3)
    assert np.isfinite(float(loss))
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A size of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(re.search(rf"{name}:\s+(\d+) kB", status)[1])


def unrolled_flops(planned, parts, shapes) -> float:
    """XLA's count for the step without loops, which it would count once."""
    import copy
    import dataclasses

    from simvlm_jax.models.simvlm import SimVLM
    from simvlm_jax.planning import job, topologies

    model = copy.copy(parts[0])
    model.config = dataclasses.replace(model.config, scan_layers=False)
    model.network = SimVLM(model.config)
    one = topologies.open_topology("cpu:1")
    plain = job.build("train", model, *parts[1:], shapes, one)
    return plain.function.lower(*plain.arguments).cost_analysis()["flops"]


if __name__ == "__main__":
    main()
