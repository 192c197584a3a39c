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


def run(args: argparse.Namespace) -> int:
    """Trains to the configuration's total_steps."""
    options.load_configuration(args)
    from simvlm_jax import configuration
    from simvlm_jax.training import folder, loop

    configuration.check("loop.train")
    model = configuration.value("loop.train.model")
    files = folder.model_files(model) | {"config.gin": configuration.resolved().encode()}
    stream = configuration.value("loop.train.stream")
    stream.keep_ledger(args.model_dir)
    state = configuration.call(
        loop.train, model=model, stream=stream, model_dir=args.model_dir, extra_files=files
    )
    print(f"{args.model_dir} is trained to step {int(state.step)}.", file=sys.stderr)
    return 0
