"""`simvlm prepare`: turns images and texts into records for training."""

import argparse

from simvlm_jax.cli import (
    options,
    prepare_ablation,
    prepare_answers,
    prepare_documents,
    prepare_openmoji,
    prepare_pairs,
    prepare_vocabulary,
)

HELP = "prepare data: images and texts to records, splits and a vocabulary"
EXAMPLE = "simvlm prepare pairs --input=photos.jsonl --name=photos"
KINDS = {
    "openmoji": prepare_openmoji,
    "ablation": prepare_ablation,
    "pairs": prepare_pairs,
    "documents": prepare_documents,
    "vocabulary": prepare_vocabulary,
    "answers": prepare_answers,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what can be prepared, each with its options."""
    options.add_kinds(parser, "dataset", KINDS)


def run(args: argparse.Namespace) -> int:
    """Prepares what was asked for, and returns the exit code."""
    return KINDS[args.dataset].run(args)
