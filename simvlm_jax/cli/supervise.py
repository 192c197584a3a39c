"""`simvlm supervise`: keeps a run going on this machine."""

import argparse

from simvlm_jax.cli import options

HELP = "run a training, and start it again when a process of it is lost"
EXAMPLE = (
    "simvlm supervise --model_dir=runs/demo --processes=2 -- \\\n"
    "    simvlm train --gin_file=runs/demo.gin --model_dir=runs/demo"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add = parser.add_argument
    add("--model_dir", required=True, help="the run's folder, whose checkpoints tell progress")
    add(
        "--processes",
        type=options.count_from(1),
        help="start so many on this machine, and add the flags that let them meet: "
        "--coordinator_address, --process_count, --process_index (default: one, without flags)",
    )
    add(
        "--attempts",
        type=options.count_from(1),
        default=3,
        help="give up after so many starts in a row without a new checkpoint (default: 3)",
    )
    add(
        "--stopped_seconds",
        type=options.count_from(1),
        default=10,
        help="a process that is stopped (SIGSTOP) for so long is lost (default: 10)",
    )
    add("command", nargs="+", metavar="COMMAND", help="after --, the program and its arguments")


def run(args: argparse.Namespace) -> int:
    """Runs the command to the run's end."""
    from simvlm_jax import supervisor

    patience = supervisor.Patience(attempts=args.attempts, stopped_seconds=args.stopped_seconds)
    return supervisor.supervise(args.command, args.model_dir, args.processes, patience)
