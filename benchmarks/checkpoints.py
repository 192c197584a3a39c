"""What digests cost: as a share of a save, of the time training waits for it, and of a restore.

    python benchmarks/checkpoints.py

For the demo's model and for small (84.6 million parameters), each with AdamW's state, in a process
of its own. Saves with digests and without take turns, so that a busy machine hits both. Each
repeat gives the seconds of the digests alone, of the save until training goes on, of the whole
save, and of restoring with and without verification. The last line is a JSON object: medians of the
repeats with their lowest and highest, in seconds, and as shares.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
GIN = {
    "demo": (["runs/demo.gin"], []),
    "small": (["models/small.gin", "runs/paper.gin"], ["BATCH_SIZE = 1"]),
}
SHARES = {  # of the seconds with digests, those that went to them
    "alone, of the save": lambda run: run["digests"] / run["whole"],
    "added to the save": lambda run: 1 - run["whole without"] / run["whole"],
    "added to the wait, of the save": lambda run: (
        (run["blocked"] - run["blocked without"]) / run["whole"]
    ),
    "alone, of the restore": lambda run: run["digests"] / run["restore"],
}


def main() -> None:
    """Measures every size in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=sorted(GIN), default=sorted(GIN))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--measure", choices=sorted(GIN), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print(json.dumps(measure(args.measure, args.repeats, Path(folder))))
        return
    result = {}
    for size in args.sizes:
        command = [sys.executable, __file__, f"--measure={size}", f"--repeats={args.repeats}"]
        command += [f"--folder={args.folder}"] if args.folder else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result[size] = json.loads(done.stdout.splitlines()[-1])
        print(table(size, result[size]))
    print(json.dumps(result))


def table(size: str, measured: dict[str, Any]) -> str:
    """The medians in words, with the lowest and the highest."""
    lines = [f"{size}: {measured['arrays']} arrays, {measured['bytes'] / 1e6:.1f} MB"]
    for name, figures in measured["seconds"].items():
        lines.append(f"  {name:<38}" + "{:.4f} s ({:.4f} to {:.4f})".format(*figures.values()))
    for name, figures in measured["shares"].items():
        lines.append(
            f"  digests {name:<30}" + "{:.1%} ({:.1%} to {:.1%})".format(*figures.values())
        )
    return "\n".join(lines)


def measure(size: str, repeats: int, folder: Path) -> dict[str, Any]:
    """Saves and restores one model's state again and again."""
    import jax

    from simvlm_jax.training import digests
    from simvlm_jax.training.state import items_of

    state, target = state_of(size)
    update = jax.jit(refreshed, donate_argnums=0)
    runs = []
    for number in range(repeats + 1):
        state = jax.block_until_ready(update(state, number))
        seconds = {}
        with clock(seconds, "digests"):
            for tree in items_of(state).values():
                digests.manifest(tree)
        ways = [("", contextlib.nullcontext), (" without", without_digests)]
        for way, context in ways[:: 1 - 2 * (number % 2)]:  # neither always comes first
            saved = folder / f"{number}{way}"
            with context():
                seconds |= {name + way: took for name, took in save(state, saved).items()}
                with clock(seconds, "restore" + way):
                    restore(target, saved)
            shutil.rmtree(saved)
        print(size, number, seconds, file=sys.stderr)
        runs.append(seconds)
    runs = runs[1:]  # the first one compiles
    leaves = jax.tree.leaves(state)
    return {
        "arrays": len(leaves),
        "bytes": sum(leaf.nbytes for leaf in leaves),
        "seconds": {name: summary([run[name] for run in runs]) for name in runs[0]},
        "shares": {name: summary([share(run) for run in runs]) for name, share in SHARES.items()},
    }


def refreshed(state: Any, number: int) -> Any:
    """The state with other numbers, which cannot be compressed, as those of a trained one."""
    import jax
    import jax.numpy as jnp

    key = jax.random.key(number)

    def noise(leaf: jax.Array) -> jax.Array:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.random.normal(key, leaf.shape, leaf.dtype) if real else leaf + 1

    return jax.tree.map(noise, state)


def state_of(size: str) -> tuple[Any, Any]:
    """A training state of a size on this machine's device, and its description."""
    from simvlm_jax import configuration
    from simvlm_jax.data.quiet import import_tensorflow
    from simvlm_jax.data.streams import GroupStream
    from simvlm_jax.partitioning import Partitioner
    from simvlm_jax.planning import job
    from simvlm_jax.training.state import abstract_state, create_state, lay_out

    import_tensorflow()
    configuration.load(*GIN[size])
    model, optimizer = (configuration.value(f"loop.train.{n}") for n in ("model", "optimizer"))
    shapes = job.batch_shapes(configuration.bindings(GroupStream))
    target = abstract_state(model, optimizer, shapes, lay_out(model, shapes, Partitioner()))
    return create_state(model, optimizer, shapes, target, 0), target


def save(state: Any, folder: Path) -> dict[str, float]:
    """Seconds until training could go on, and until all is written."""
    from simvlm_jax.training.checkpoints import Checkpoints

    seconds: dict[str, float] = {}
    saved = Checkpoints(folder)
    with clock(seconds, "whole"), saved:
        with clock(seconds, "blocked"):
            saved.save(state)
    return seconds


def restore(target: Any, folder: Path) -> None:
    """Restores what was saved."""
    import jax

    from simvlm_jax.training.checkpoints import Checkpoints

    with Checkpoints(folder) as saved:
        jax.block_until_ready(saved.restore_latest(target))


@contextlib.contextmanager
def without_digests() -> Iterator[None]:
    """Lets a manifest hold shapes only, and compares no digests."""
    from simvlm_jax.training import checkpoints, digests

    real = digests.begun_manifest, checkpoints.verify
    digests.begun_manifest = lambda tree: lambda: digests.layout(tree)
    checkpoints.verify = lambda *_: None
    try:
        yield
    finally:
        digests.begun_manifest, checkpoints.verify = real


@contextlib.contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Notes how long something takes."""
    begin = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begin


def summary(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
