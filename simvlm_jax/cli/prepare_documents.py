"""`simvlm prepare documents`: people's own texts to chunks of as many tokens as fit."""

import argparse
from pathlib import Path

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress

HELP = "your own texts to chunks of as many tokens as fit"
EXAMPLE = "simvlm prepare documents --input=texts.jsonl --name=documents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_input(parser, "text")
    options.add_output(parser)
    parser.add_argument(
        "--document_tokens",
        type=options.count_from(8),
        default=511,
        help="longest chunk; 511 leaves room for the end of sequence in 256+256 tokens",
    )
    parser.add_argument(
        "--keep_documents_apart",
        action="store_true",
        help="begin a chunk with every document; short ones then leave padding",
    )
    parser.add_argument("--vocabulary", help="SentencePiece model (default: the data folder's)")


def run(args: argparse.Namespace) -> int:
    """Prepares the documents, or verifies what is there; returns the exit code 0."""
    folder = options.chosen_data_dir(args)
    options.import_tensorflow()
    from simvlm_jax.data import paths
    from simvlm_jax.data.preparing import texts
    from simvlm_jax.data.preparing.chunking import Settings
    from simvlm_jax.data.preparing.data_sets import DataSet

    data_set = DataSet(folder, args.name, args.split)
    settings = Settings(
        options.chosen_input(args, args.input),
        args.document_tokens,
        not args.keep_documents_apart,
        **options.chosen_output(args),
    )
    vocabulary = Path(args.vocabulary or folder / paths.VOCABULARY_NAME)
    found, before = texts.prepare_documents(
        data_set, settings, vocabulary, args.workers, Progress()
    )
    print(options.outcome(data_set, found, before))
    for name, share in found["pad_share"].items():
        print(f"  padding, {name}: {100 * share:.2f} % of the tokens")
    return 0
