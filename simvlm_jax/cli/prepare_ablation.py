"""`simvlm prepare ablation`: noisy pairs and questions for `simvlm ablate`."""

import argparse

from simvlm_jax.cli import options

HELP = "noisy pairs, a small clean set and questions, from the prepared drawings"
EXAMPLE = "simvlm prepare ablation --data_dir=data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_data_dir(parser)
    parser.add_argument("--seed", type=options.count_from(0), default=0, help="of every choice")


def run(args: argparse.Namespace) -> int:
    """Writes the data and returns the exit code 0."""
    folder = options.chosen_data_dir(args)
    options.import_tensorflow()
    from simvlm_jax.data import ablation
    from simvlm_jax.errors import writing

    with writing(folder / ablation.FOLDER):
        summary = ablation.write_ablation(args.seed)
    lines = [f"  {name:<24}{count:>6}" for name, count in summary["counts"].items()]
    print("\n".join([f"Records in {folder / ablation.FOLDER}:", *lines]))
    return 0
