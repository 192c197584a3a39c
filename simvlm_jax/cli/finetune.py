"""`simvlm finetune`: train from what another run has learned."""

import argparse
import sys
from pathlib import Path

from simvlm_jax.cli import options, train

HELP = "train in a folder, from the parameters of another run"
EXAMPLE = (
    "simvlm finetune --gin_file=runs/demo_translation.gin --pretrained=runs/demo \\\n"
    "    --model_dir=runs/german"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    train.add_arguments(parser)
    parser.add_argument(
        "--pretrained", help="the folder of the run to start from (default: gin's PRETRAINED)"
    )
    parser.add_argument(
        "--step", type=options.count_from(0), help="which of its checkpoints (default: the newest)"
    )


def run(args: argparse.Namespace) -> int:
    """Trains as `simvlm train` does, after a line on where it starts."""
    if args.pretrained is not None:
        args.gin.append(f"PRETRAINED = {args.pretrained!r}")
    if args.step is not None:
        args.gin.append(f"PRETRAINED_STEP = {args.step}")
    train.prepare(args)
    from simvlm_jax import configuration, hosts

    line = _start(configuration.value("PRETRAINED"), args.model_dir)
    if hosts.is_first():
        print(line, file=sys.stderr)
    return train.train(args)


def _start(pretrained: str, model_dir: str) -> str:
    """Says where a run starts.

    Raises:
      UserError: the folder to start from holds no run.
    """
    from simvlm_jax.errors import UserError
    from simvlm_jax.training import folder, reading, t5x_format

    if own := reading.saved_steps(reading.checkpoints_folder(model_dir)):
        return f"{model_dir} goes on from step {own[-1]}; {pretrained} is not read again."
    folder.read_config(pretrained)
    if Path(pretrained).resolve() == Path(model_dir).resolve():
        raise UserError(f"{model_dir} cannot start from itself: give another --model_dir.")
    found = reading.saved_steps(reading.checkpoints_folder(pretrained))
    if not (found or t5x_format.steps(pretrained)):
        raise UserError(f"{pretrained} holds no checkpoint to start from: train there first.")
    return f"{model_dir} starts from the parameters of {pretrained}."
