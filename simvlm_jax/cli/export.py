"""`simvlm export`: a checkpoint in another format."""

import argparse

from simvlm_jax.cli import options
from simvlm_jax.errors import UserError

HELP = "write a checkpoint of a run in another format"
EXAMPLE = "simvlm export --format=safetensors --model_dir=runs/demo --output=runs/demo_weights"
FORMATS = {
    "t5x": "OUTPUT/checkpoint_N with parameters, optimizer and step, as T5X restores it",
    "safetensors": "weights, config.json and vocabulary, for any library; docs/read_weights.py "
    "computes logits from them in NumPy",
    "stablehlo": "a greedy captioner that runs without this package: docs/run_captioner.py",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    positive = options.count_from(1)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="; ".join(f"{name}: {text}" for name, text in FORMATS.items()),
    )
    parser.add_argument("--model_dir", required=True, help="the folder of a trained run")
    parser.add_argument("--output", required=True, help="the folder to write into")
    options.add_step(parser)
    parser.add_argument(
        "--batch_size", type=positive, help="stablehlo: images at once (default: any number)"
    )
    parser.add_argument("--max_length", type=positive, help="stablehlo: most tokens of a caption")


def run(args: argparse.Namespace) -> int:
    """Writes the files, and prints their names."""
    for name in ("batch_size", "max_length"):
        if getattr(args, name) is not None and args.format != "stablehlo":
            raise UserError(f"--{name} is for --format=stablehlo; leave it out.")
    if args.format == "t5x":
        return _t5x(args)
    from simvlm_jax import exports

    if args.format == "safetensors":
        written = exports.export_weights(args.model_dir, args.output, options.step_of(args))
    else:
        written = exports.export_captioner(
            args.model_dir, args.output, options.step_of(args), args.batch_size, args.max_length
        )
    for path, size in written.items():
        print(f"{path}: {size:,} bytes")
    return 0


def _t5x(args: argparse.Namespace) -> int:
    """Writes the checkpoint, and beside it the files that `simvlm caption` needs."""
    from pathlib import Path

    from simvlm_jax.training import folder, t5x_checkpoints

    files = {name: folder.read_file(args.model_dir, name) for name in folder.FIXED_FILES}
    written = t5x_checkpoints.export(args.model_dir, args.output, options.step_of(args))
    folder.write_files(Path(args.output), files)
    print(written)
    return 0
