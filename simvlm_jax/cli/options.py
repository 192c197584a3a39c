"""Options that several verbs share."""

import argparse
import os
import sys
from collections.abc import Callable


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


def count_from(least: int) -> Callable[[str], int]:
    """A type of argparse: a whole number that is not below `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return parse


def load_configuration(args: argparse.Namespace) -> None:
    """Reads the gin options, and lets every seqio task know the data folder."""
    from simvlm_jax import configuration

    if args.data_dir:
        os.environ["SIMVLM_DATA_DIR"] = args.data_dir
    import_tensorflow()
    import simvlm_jax.tasks  # noqa: F401 - registers the tasks

    configuration.load(args.gin_file, args.gin)


def import_tensorflow() -> None:
    """Imports TensorFlow without its C++ libraries' remarks on how they were built.

    They are printed before TensorFlow reads its log level, and would be all a terminal shows.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
