"""`simvlm train`: pretrain or go on training in a folder."""

import argparse
import sys

from simvlm_jax.cli import options

HELP = "train a model in a folder, or resume the run that is there"
EXAMPLE = "simvlm train --gin_file=runs/demo.gin --model_dir=runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_gin(parser)
    parser.add_argument("--model_dir", required=True, help="the run's folder; resumed if it exists")
    options.add_processes(parser)
    parser.add_argument(
        "--profile",
        type=_step_range,
        metavar="START:STOP",
        help="trace the steps START to STOP - 1 into MODEL_DIR/profile, for TensorBoard with XProf "
        "(pip install xprof). Steps are numbered as in the progress line, from 1 on, where a "
        "resumed run goes on counting. The first step of a start compiles too: better skip it",
    )


def run(args: argparse.Namespace) -> int:
    """Trains to the configuration's total_steps."""
    prepare(args)
    return train(args)


def prepare(args: argparse.Namespace) -> None:
    """Meets the other processes and reads the configuration."""
    options.join_processes(args, saves=True)
    options.load_configuration(args)
    from simvlm_jax import configuration

    configuration.check("loop.train")


def train(args: argparse.Namespace) -> int:
    """Trains as the configuration says, once that is loaded."""
    from simvlm_jax import configuration, hosts
    from simvlm_jax.training import fingerprint, folder, loop

    model, config = configuration.value("loop.train.model"), configuration.resolved()
    files = folder.model_files(model) | {"config.gin": config.encode()}
    stream = configuration.value("loop.train.stream")
    same = fingerprint.require_same(config, stream.fingerprint())
    if hosts.is_first():
        print(same, file=sys.stderr)
    folder.require_shared(args.model_dir)
    stream.keep_ledger(args.model_dir)
    given = {"profile": args.profile} if args.profile else {}  # else gin may bind it
    given |= {"model": model, "stream": stream, "extra_files": files}
    with folder.locked(args.model_dir):
        state = configuration.call(loop.train, model_dir=args.model_dir, **given)
    if hosts.is_first():
        print(f"{args.model_dir} is trained to step {int(state.step)}.", file=sys.stderr)
    return 0


def _step_range(text: str) -> tuple[int, int]:
    """A type of argparse: START:STOP, as two numbers."""
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and 1 <= int(start) < int(stop)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not START:STOP, two whole numbers with 1 <= START < STOP"
        )
    return int(start), int(stop)
