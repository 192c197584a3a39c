"""`simvlm prepare pairs`: people's own captioned images to shards, with a report."""

import argparse

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress
from simvlm_jax.errors import UserError

HELP = "your own captioned images to shards, with a report on what was kept and why"
EXAMPLE = "simvlm prepare pairs --input=photos.jsonl --name=photos --validation_share=0.01"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    count = options.count_from
    options.add_input(parser, "caption")
    options.add_output(parser)
    parser.add_argument("--keep", action="append", default=[], help="a further text field to keep")
    parser.add_argument("--min_size", type=count(1), default=1, help="shorter side, pixels")
    parser.add_argument("--max_aspect", type=float, default=20.0, help="longer by shorter side")
    parser.add_argument("--min_caption", type=count(1), default=1, help="characters")
    parser.add_argument("--max_caption", type=count(1), default=10_000, help="characters")
    parser.add_argument(
        "--duplicates",
        default="keep",
        choices=("keep", "image", "pair"),
        help="leave out equal images, or equal images with equal captions, but the first",
    )


def run(args: argparse.Namespace) -> int:
    """Prepares the pairs, or verifies what is there; returns the exit code 0."""
    folder = options.chosen_data_dir(args)
    options.import_tensorflow()
    from simvlm_jax.data import paths
    from simvlm_jax.data.preparing import pairs
    from simvlm_jax.data.preparing.data_sets import DataSet
    from simvlm_jax.data.preparing.examining import Filters

    if args.image_field == "":
        raise UserError("Pairs need images; prepare texts with `simvlm prepare documents`.")
    data_set = DataSet(folder, args.name, args.split)
    filters = Filters(args.min_size, args.max_aspect, args.min_caption, args.max_caption)
    settings = pairs.Settings(
        options.chosen_input(args, args.input),
        filters,
        duplicates=args.duplicates,
        **options.chosen_output(args),
    )
    vocabulary = folder / paths.VOCABULARY_NAME
    found, before = pairs.prepare_pairs(data_set, settings, vocabulary, args.workers, Progress())
    print(options.outcome(data_set, found, before))
    return 0
