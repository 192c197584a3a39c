"""`simvlm export`: a checkpoint in another format."""

import argparse

from simvlm_jax.cli import options

HELP = "write a checkpoint of a run in another format"
EXAMPLE = "simvlm export --format=t5x --model_dir=runs/demo --output=runs/demo_t5x"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--format",
        choices=("t5x",),
        required=True,
        help="t5x: OUTPUT/checkpoint_N with parameters, optimizer and step, as T5X restores it",
    )
    parser.add_argument("--model_dir", required=True, help="the folder of a trained run")
    parser.add_argument("--output", required=True, help="the folder to write into")
    options.add_step(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint, and beside it the files that `simvlm caption` needs."""
    from pathlib import Path

    from simvlm_jax.training import folder, t5x_checkpoints

    files = {name: folder.read_file(args.model_dir, name) for name in folder.FIXED_FILES}
    written = t5x_checkpoints.export(args.model_dir, args.output, options.step_of(args))
    folder.write_files(Path(args.output), files)
    print(written)
    return 0
