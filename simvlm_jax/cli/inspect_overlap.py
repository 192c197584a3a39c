"""`simvlm inspect overlap`: images and texts that stand both in training and in evaluation."""

import argparse

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress

HELP = "images and texts that stand both in training and in evaluation"
EXAMPLE = "simvlm inspect overlap --train=coco_captions --evaluate=nocaps:val"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--train",
        action="append",
        required=True,
        metavar="TASK[:SPLIT]",
        help="what is trained on (default of the split: train); may be repeated",
    )
    parser.add_argument(
        "--evaluate",
        action="append",
        required=True,
        metavar="TASK:SPLIT",
        help="what is evaluated; may be repeated",
    )
    parser.add_argument(
        "--looks",
        action="store_true",
        help="compare images by their look too, not only byte by byte: each is decoded",
    )
    parser.add_argument(
        "--examples", type=options.count_from(0), default=3, help="pairs to name of each kind"
    )
    parser.add_argument("--data_dir", help="the data (default: $SIMVLM_DATA_DIR, else ./data)")


def run(args: argparse.Namespace) -> int:
    """Prints what is shared; returns the exit code 0, whatever was found."""
    options.chosen_data_dir(args)
    options.import_tensorflow()
    import simvlm_jax.tasks  # noqa: F401 - registers the tasks
    from simvlm_jax.data import overlap

    training = [overlap.Split.parse(text, "train") for text in args.train]
    evaluation = [overlap.Split.parse(text) for text in args.evaluate]
    found = overlap.find_overlaps(training, evaluation, args.looks, args.examples, Progress())
    print(overlap.describe(found))
    return 0
