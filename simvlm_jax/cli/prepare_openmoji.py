"""`simvlm prepare openmoji`: the demo's data, drawn and named by packages."""

import argparse
import sys
from pathlib import Path

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress
from simvlm_jax.errors import UserError

HELP = "drawings named in English and German, with English prose, from packages"
EXAMPLE = "simvlm prepare openmoji --data_dir=data"
LEAST = {"size": 8, "seed": 0, "vocabulary_size": 200, "document_tokens": 8, "limit": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_data_dir(parser)
    parser.add_argument("--size", type=int, default=96, help="image width and height in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    parser.add_argument("--vocabulary_size", type=int, default=2000, help="pieces")
    parser.add_argument(
        "--document_tokens",
        type=int,
        default=31,
        help="longest chunk of prose; 31 leaves room for the end of sequence in 16+16 tokens",
    )
    parser.add_argument("--limit", type=int, help="take only about so many emoji (default: all)")


def run(args: argparse.Namespace) -> int:
    """Prepares the data, or verifies what an earlier run with the same settings has left.

    Returns:
      The exit code 0.

    Raises:
      UserError: a package is missing, a setting is wrong, or the folder holds something else.
    """
    from simvlm_jax.data import summary

    folder = options.chosen_data_dir(args)
    names = ("size", "seed", "vocabulary_size", "document_tokens", "limit")
    settings = {name: getattr(args, name) for name in names}
    _check(settings)
    found = summary.read_summary(folder)
    if found:
        summary.check_settings(folder, found, settings)
        damaged = summary.damaged_files(folder, found)
        if not damaged:
            print(f"{folder} was prepared before with these settings; all digests agree.")
            if changed := summary.changed_packages(found):
                print(f"Other versions since: {', '.join(changed)}; delete it to use them.")
            print(_table(folder, found))
            return 0
        print(f"Damaged: {', '.join(damaged)}; preparing {folder} again.", file=sys.stderr)
    found = _prepare(folder, settings)
    print(_table(folder, found))
    return 0


def _check(settings: dict[str, int | None]) -> None:
    for name, least in LEAST.items():
        value = settings[name]
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, not {value}.")


def _prepare(folder: Path, settings: dict[str, int | None]) -> dict:
    from simvlm_jax.data import openmoji, summary

    progress = Progress()
    emoji = openmoji.limited(openmoji.catalogue(), settings["limit"], settings["seed"])
    with summary.staging(folder) as stage:
        images = openmoji.draw(
            emoji, settings["size"], lambda done: progress("drawing", done, len(emoji))
        )
        options.import_tensorflow()  # late, because it takes seconds
        from simvlm_jax.data import preparation

        found = preparation.write_openmoji(stage, settings, emoji, images, progress)
        found = summary.seal(stage, found)
        summary.install(stage, folder)
    return found


def _table(folder: Path, found: dict) -> str:
    lines = [
        f"  {kind + '/' + split:<24}{count:>6}"
        for kind, splits in found["counts"].items()
        for split, count in splits.items()
    ]
    lines.append(
        f"  {found['same_drawing_left_out']} more names are left out: their drawings have another."
    )
    return "\n".join([f"Records in {folder}:", *lines])
