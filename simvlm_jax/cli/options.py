"""Options that several verbs share."""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from simvlm_jax.data.quiet import import_tensorflow
from simvlm_jax.errors import UserError

# As simvlm_jax.data.preparing.inputs has them, which is too heavy to import for --help.
FORMATS = (
    "array_record", "tfrecord", "webdataset", "parquet", "jsonl", "csv", "text", "folder",
)  # fmt: skip
BEST = "best"
MOST = 1_000_000  # processes of a run, and seconds of a heartbeat: JAX counts in 32 bits


def add_gin(parser: argparse.ArgumentParser) -> None:
    """Adds --gin_file, --gin and --data_dir."""
    parser.add_argument(
        "--gin_file",
        action="append",
        required=True,
        help="a gin file, or one of the package's own such as runs/demo.gin; may be repeated. What "
        "it imports is run: read a stranger's file before you use it",
    )
    parser.add_argument(
        "--gin",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="one gin binding, read after the files; may be repeated",
    )
    parser.add_argument("--data_dir", help="prepared data (default: $SIMVLM_DATA_DIR, else ./data)")


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds what a process of several has to know of the others; T5X calls it the same."""
    add = parser.add_argument
    add(
        "--distributed",
        action="store_true",
        help="this is one of several processes; Cloud TPU, GKE, SLURM or MPI say which, as "
        "jax.distributed.initialize finds out",
    )
    add(
        "--coordinator_address",
        type=_address,
        metavar="HOST:PORT",
        help="or say it here: where process 0 is",
    )
    add("--process_count", type=count_from(1, MOST), help="how many processes there are")
    add("--process_index", type=count_from(0, MOST), help="which one this is")
    add(
        "--heartbeat_seconds",
        type=count_from(1, MOST),
        default=30,
        help="a process that is silent for so long is lost, and the others end (default: 30)",
    )


def add_step(parser: argparse._ActionsContainer) -> None:
    """Adds --step, a checkpoint; `step_of` reads it."""
    parser.add_argument(
        "--step",
        type=_step,
        help="which checkpoint (default: the newest); best is what simvlm evaluate --watch found",
    )


def step_of(args: argparse.Namespace) -> int | None:
    """The checkpoint that --step names, or None.

    Raises:
      UserError: it is the best one, and nobody knows that.
    """
    if args.step != BEST:
        return args.step
    from simvlm_jax.training.best import read_best

    return read_best(args.model_dir)


def join_processes(args: argparse.Namespace, saves: bool = False) -> None:
    """Meets the other processes, where `add_processes`'s options say that there are any.

    Args:
      args: with those options.
      saves: the verb saves after SIGTERM, on all of them; where it does not, SIGTERM ends it.

    Raises:
      UserError: they did not meet, or an option is missing.
    """
    named = (args.coordinator_address, args.process_count, args.process_index)
    if not args.distributed and any(value is not None for value in named):
        if None in named:
            raise UserError(
                "--coordinator_address, --process_count and --process_index belong together: give "
                "all three, or --distributed alone."
            )
        if args.process_index >= args.process_count:
            raise UserError(
                f"There is no process {args.process_index} among {args.process_count}: they count "
                "from 0."
            )
    elif not args.distributed:
        return
    from simvlm_jax import hosts  # brings JAX, seconds to import

    hosts.join(*named, args.heartbeat_seconds, share_sigterm=saves)


def add_kinds(parser: argparse.ArgumentParser, name: str, kinds: Mapping[str, ModuleType]) -> None:
    """Adds the kinds of a verb.

    Args:
      parser: the verb's.
      name: of the argument that holds the chosen kind.
      kinds: modules with HELP, EXAMPLE, add_arguments(parser) and run(args).
    """
    chosen = parser.add_subparsers(dest=name, required=True, metavar=name.upper())
    for kind, module in kinds.items():
        module.add_arguments(
            chosen.add_parser(
                kind,
                help=module.HELP,
                description=module.HELP,
                epilog=f"example:\n  {module.EXAMPLE}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
        )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data_dir for a verb that writes there."""
    parser.add_argument(
        "--data_dir", help="where to write (default: $SIMVLM_DATA_DIR, or the folder data)"
    )


def chosen_data_dir(args: argparse.Namespace) -> Path:
    """Lets every source know the data folder of --data_dir, and returns it."""
    from simvlm_jax.data import paths

    if args.data_dir:
        os.environ[paths.DATA_DIR_VARIABLE] = args.data_dir
    return paths.data_dir()


def add_input(
    parser: argparse.ArgumentParser, text_field: str, many: bool = False, required: bool = True
) -> None:
    """Adds --input, --format and the names of fields.

    Args:
      parser: to add to.
      text_field: the default name of the text: "caption", "text", or "" to go by the records.
      many: --input may be repeated.
      required: --input must be given.
    """
    parser.add_argument(
        "--input",
        required=required,
        action="append" if many else "store",
        help="a file, a folder or a pattern" + (", may be repeated" if many else ""),
    )
    parser.add_argument(
        "--format",
        default="auto",
        choices=("auto", *FORMATS),
        help="of the input (default: by the files' names)",
    )
    if text_field != "text" and not many:
        help_ = "feature or column of the image, or field with its path; empty if there is none"
        parser.add_argument("--image_field", help=help_)
    if text_field != "caption":
        help_ = "what stands between documents in plain text: the end of a line, or a blank one"
        parser.add_argument("--separator", choices=("line", "blank"), default="line", help=help_)
    name = "--caption_field" if text_field == "caption" else "--field"
    parser.add_argument(name, dest="text_field", default=text_field, help="where the text is")


def chosen_input(args: argparse.Namespace, path: str):
    """Returns the `Input` at a path of `add_input`'s options; the path becomes absolute."""
    from simvlm_jax.data.preparing.inputs import Input
    from simvlm_jax.data.sources.files import refuse_password

    refuse_password(path, "--input")
    return Input(
        path if "://" in path else os.path.abspath(path),
        args.format,
        getattr(args, "image_field", ""),
        args.text_field,
        tuple(getattr(args, "keep", ())),
        getattr(args, "separator", "line"),
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Adds what a prepared data set is called and how it is cut into files."""
    add_data_dir(parser)
    parser.add_argument("--name", required=True, help="of the data set, a folder in the data's")
    parser.add_argument("--split", default="train", help="what the records are for")
    parser.add_argument(
        "--validation_share", type=float, default=0.0, help="held out as the split validation"
    )
    parser.add_argument("--seed", type=count_from(0), default=0, help="of what is held out")
    parser.add_argument(
        "--output_format", default="array_record", choices=("array_record", "tfrecord")
    )
    parser.add_argument("--shards", type=count_from(1), help="files of the split")
    parser.add_argument("--records_per_shard", type=count_from(1), help="default 10000")
    parser.add_argument("--workers", type=count_from(1), default=2, help="processes")


def chosen_output(args: argparse.Namespace) -> dict:
    """Returns the settings of `add_output`'s options that the files' bytes depend on."""
    names = ("validation_share", "seed", "output_format", "shards", "records_per_shard")
    return {name: getattr(args, name) for name in names}


def outcome(data_set, found: dict, before: bool) -> str:
    """Says what a preparation has left.

    Args:
      data_set: a `simvlm_jax.data.preparing.data_sets.DataSet`.
      found: its summary.
      before: an earlier run had made it.
    """
    lines = []
    if before:
        lines.append(
            f"{data_set.folder} was prepared before with these settings; all digests agree."
        )
    lines.append(f"Records in {data_set.folder}:")
    lines += [f"  {split:<24}{count:>10}" for split, count in found["records"].items()]
    lines.append("Read: " + ", ".join(f"{n} {name}" for name, n in found["outcomes"].items()))
    lines += [f"  {count:>10}  {cause}" for cause, count in found["causes"].items()]
    lines.append(f"Report: {data_set.file('report.html')}")
    return "\n".join(lines)


def count_from(least: int, most: float = float("inf")) -> Callable[[str], int]:
    """A type of argparse: a whole number that is not below `least` and not above `most`."""
    end = "on" if most == float("inf") else f"to {most}"

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} {end}")
        return int(text)

    return parse


def _step(text: str) -> int | str:
    """A type of argparse: a step, or the word best."""
    return BEST if text == BEST else count_from(0)(text)


def _address(text: str) -> str:
    """A type of argparse: HOST:PORT. JAX ends with a segmentation fault where it is something else.

    An IPv6 address stands in brackets: [::1]:1234.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 10.0.0.2:1234")
    return text


def load_configuration(args: argparse.Namespace) -> None:
    """Reads the gin options, and lets every seqio task know the data folder."""
    from simvlm_jax import configuration

    if args.data_dir:
        os.environ["SIMVLM_DATA_DIR"] = args.data_dir
    import_tensorflow()
    import simvlm_jax.tasks  # noqa: F401 - registers the tasks

    configuration.load(args.gin_file, args.gin)
