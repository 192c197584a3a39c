"""`simvlm inspect checkpoint`: whether what is on disk is what was saved."""

import argparse

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress

HELP = "verify every array of a run's checkpoints, ours or T5X's; exit code 1 if any is damaged"
EXAMPLE = "simvlm inspect checkpoint --model_dir=runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--model_dir", required=True, help="the run's folder, or that of one checkpoint"
    )
    parser.add_argument("--step", type=options.count_from(0), help="only this one (default: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object for each, a line each")


def run(args: argparse.Namespace) -> int:
    """Prints a line for each checkpoint; returns 1 if any is damaged, else 0."""
    import dataclasses
    import json

    from simvlm_jax.training import verifying

    found, progress = verifying.find(args.model_dir, args.step), Progress()
    damaged = False
    for step, folder in found:
        verdict = verifying.verify(step, folder, progress)
        damaged |= verdict.state == verifying.DAMAGED
        print(json.dumps(dataclasses.asdict(verdict)) if args.json else _line(verdict), flush=True)
    return int(damaged)


def _line(verdict) -> str:
    about = {
        "verified": "verified",
        "damaged": "damaged: " + "; ".join(verdict.trouble),
        "no digests": "no digests; all arrays can be read and are finite",
    }
    size = f"{verdict.bytes / 1e6:.1f} MB"
    return f"step {verdict.step:<9}{size:>12}  {verdict.arrays} arrays  {about[verdict.state]}"
