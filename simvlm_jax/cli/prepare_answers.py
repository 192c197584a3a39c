"""`simvlm prepare answers`: the answers that are classes, of VQA v2 or of one's own questions."""

import argparse
from pathlib import Path

from simvlm_jax.cli import options

HELP = "the answers that are classes, of VQA v2's annotations or your own questions"
EXAMPLE = "simvlm prepare answers --data_dir=data"
PARTS = ("train2014", "val2014")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_data_dir(parser)
    parser.add_argument(
        "--input",
        action="append",
        help="VQA v2 annotations (.json) or JSON lines with an answer or answers (.jsonl); may be "
        "repeated (default: vqa_v2's official annotations of train and val in the data folder)",
    )
    parser.add_argument(
        "--least",
        type=options.count_from(1),
        help="questions that an answer has (default: 9; of JSON lines 1)",
    )
    parser.add_argument("--output", help="file to write (default: answers.txt beside the input)")


def run(args: argparse.Namespace) -> int:
    """Writes one answer a line, the most frequent first, and returns the exit code 0.

    See `simvlm_jax.data.vqa_answers.frequent_answers` for what is counted.
    """
    folder = options.chosen_data_dir(args) / "vqa_v2"
    options.import_tensorflow()
    from simvlm_jax.data.benchmarks.vqa import most_frequent_answers, own_answers
    from simvlm_jax.data.sources.files import written_atomically
    from simvlm_jax.data.vqa_answers import LEAST, frequent_answers
    from simvlm_jax.errors import UserError, writing

    official = [folder / f"v2_mscoco_{part}_annotations.json" for part in PARTS]
    files = [Path(path) for path in args.input or official]
    for path in files:
        if not path.is_file():
            raise UserError(f"There is no file {path}; put the annotations there.")
    lines = {path.suffix == ".jsonl" for path in files}
    if len(lines) > 1:
        raise UserError("Give --input either VQA v2's .json files or .jsonl files, not both.")
    read, usual = (own_answers, 1) if lines.pop() else (most_frequent_answers, LEAST)
    least = args.least or usual
    answers = frequent_answers(read([str(path) for path in files]), least)
    if not answers:
        raise UserError(f"No answer has {least} questions or more; give a lower --least.")
    output = Path(args.output or files[0].parent / "answers.txt")
    with writing(output.parent), written_atomically(output) as file:
        file.write("".join(f"{answer}\n" for answer in answers).encode())
    print(f"{output} has {len(answers)} answers, each of {least} questions or more.")
    return 0
