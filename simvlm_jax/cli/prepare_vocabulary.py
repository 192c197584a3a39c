"""`simvlm prepare vocabulary`: a SentencePiece model from captions and texts."""

import argparse
from pathlib import Path

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress

HELP = "a SentencePiece vocabulary from captions and texts"
EXAMPLE = "simvlm prepare vocabulary --input=data/photos --input=texts.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_input(parser, "", many=True)
    options.add_data_dir(parser)
    parser.add_argument(
        "--vocabulary_size",
        type=options.count_from(200),
        default=31_952,
        help="pieces; with 48 sentinels the default makes the VOCABULARY_SIZE = 32000 of base",
    )
    parser.add_argument(
        "--sample",
        type=options.count_from(1),
        default=1_000_000,
        help="sentences at most, drawn from all inputs",
    )
    parser.add_argument("--seed", type=options.count_from(0), default=0, help="of the sample")
    parser.add_argument("--output", help="model file (default: the data folder's)")


def run(args: argparse.Namespace) -> int:
    """Trains the vocabulary and returns the exit code 0."""
    folder = options.chosen_data_dir(args)
    options.import_tensorflow()
    from simvlm_jax.data import paths
    from simvlm_jax.data.preparing import sentences

    output = Path(args.output or folder / paths.VOCABULARY_NAME)
    args.image_field = ""  # images would only be read in vain
    sources = [options.chosen_input(args, path) for path in args.input]
    before = sentences.make_vocabulary(
        sources, output, args.vocabulary_size, args.sample, args.seed, Progress()
    )
    print(f"{output} {'is the same already' if before else 'is written'}.")
    return 0
