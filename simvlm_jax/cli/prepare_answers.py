"""`simvlm prepare answers`: the classes of VQA v2 from its annotations."""

import argparse
from pathlib import Path

from simvlm_jax.cli import options

HELP = "the answers of VQA v2 that are classes, from its annotations"
EXAMPLE = "simvlm prepare answers --data_dir=data"
PARTS = ("train2014", "val2014")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_data_dir(parser)
    parser.add_argument(
        "--annotations",
        action="append",
        help="an annotation file; may be repeated (default: the official ones of train and val)",
    )
    parser.add_argument(
        "--least", type=options.count_from(1), default=9, help="questions that an answer has"
    )
    parser.add_argument("--output", help="file to write (default: vqa_v2/answers.txt of the data)")


def run(args: argparse.Namespace) -> int:
    """Writes one answer a line, the most frequent first, and returns the exit code 0.

    See `simvlm_jax.data.vqa_answers.frequent_answers` for what is counted.
    """
    folder = options.chosen_data_dir(args) / "vqa_v2"
    options.import_tensorflow()
    from simvlm_jax.data.benchmarks.vqa import most_frequent_answers
    from simvlm_jax.data.sources.files import written_atomically
    from simvlm_jax.data.vqa_answers import frequent_answers
    from simvlm_jax.errors import UserError, writing

    files = args.annotations or [folder / f"v2_mscoco_{part}_annotations.json" for part in PARTS]
    for path in map(Path, files):
        if not path.is_file():
            raise UserError(f"There is no file {path}; put VQA v2's annotations there.")
    answers = frequent_answers(most_frequent_answers([str(path) for path in files]), args.least)
    if not answers:
        raise UserError(f"No answer has {args.least} questions or more; give a lower --least.")
    output = Path(args.output or folder / "answers.txt")
    with writing(output.parent), written_atomically(output) as file:
        file.write("".join(f"{answer}\n" for answer in answers).encode())
    print(f"{output} has {len(answers)} answers, each of {args.least} questions or more.")
    return 0
