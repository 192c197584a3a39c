"""Options that several verbs share."""

import argparse
import os


def add_gin(parser: argparse.ArgumentParser) -> None:
    """Adds --gin_file, --gin and --data_dir."""
    parser.add_argument(
        "--gin_file",
        action="append",
        required=True,
        help="a gin file, or one of the package's own such as runs/demo.gin; may be repeated",
    )
    parser.add_argument(
        "--gin",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="one gin binding, read after the files; may be repeated",
    )
    parser.add_argument("--data_dir", help="prepared data (default: $SIMVLM_DATA_DIR, else ./data)")


def load_configuration(args: argparse.Namespace) -> None:
    """Reads the gin options, and lets every seqio task know the data folder."""
    from simvlm_jax import configuration

    if args.data_dir:
        os.environ["SIMVLM_DATA_DIR"] = args.data_dir
    import simvlm_jax.tasks  # noqa: F401 - registers the tasks

    configuration.load(args.gin_file, args.gin)
