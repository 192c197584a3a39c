"""`simvlm inspect data`: the first records of an input or a task, and statistics of a sample."""

import argparse
import dataclasses

from simvlm_jax.cli import options
from simvlm_jax.cli.progress import Progress
from simvlm_jax.errors import UserError

HELP = "the first records of any input or task, and statistics of a sample"
EXAMPLE = "simvlm inspect data --input=photos.tar --sample=1000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_input(parser, "", required=False)
    parser.add_argument("--task", help="a registered seqio task, instead of --input")
    parser.add_argument("--split", default="train", help="of the task")
    parser.add_argument("--data_dir", help="prepared data (default: $SIMVLM_DATA_DIR, else ./data)")
    parser.add_argument("--first", type=options.count_from(0), default=3, help="records to show")
    parser.add_argument(
        "--sample", type=options.count_from(1), default=1000, help="records to gather figures of"
    )


def run(args: argparse.Namespace) -> int:
    """Prints what is in the records; returns the exit code 0."""
    if bool(args.input) == bool(args.task):
        raise UserError("Give either --input or --task.")
    options.chosen_data_dir(args)
    options.import_tensorflow()
    from simvlm_jax.data.preparing import looking
    from simvlm_jax.data.preparing.inputs import CAPTION, IMAGE, NAMED, TEXT

    if args.task:
        records = task_records(args.task, args.split)
        names = args.image_field or IMAGE, args.text_field
    else:
        source = options.chosen_input(args, args.input)
        if not source.text_field and source.kind in NAMED:
            usual = TEXT if source.image_field == "" else CAPTION
            source = dataclasses.replace(source, text_field=usual)
        records, names = source.open(), (source.image_name, source.text_name)
    print(looking.describe(records, *names, args.first, args.sample, Progress()))
    return 0


def task_records(name: str, split: str):
    """Opens the records of a registered task.

    Raises:
      UserError: there is no such task, or its source cannot be read by index.
    """
    import seqio

    import simvlm_jax.tasks  # noqa: F401 - registers the tasks
    from simvlm_jax.data.sources import RecordSource

    known = sorted(seqio.TaskRegistry.names())
    if name not in known:
        raise UserError(f"There is no task {name!r}; there are {', '.join(known)}.")
    source = seqio.TaskRegistry.get(name).source
    if not isinstance(source, RecordSource):
        raise UserError(f"The records of the task {name} cannot be read by index.")
    return source.random_access(split)
