"""`simvlm evaluate`: metrics, controls and a report of a trained run."""

import argparse
import json

from simvlm_jax.cli import options

HELP = "measure a trained run beside its controls; write metrics.json and a report"
EXAMPLE = "simvlm evaluate --gin_file=runs/demo_evaluate.gin --model_dir=runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_gin(parser)
    parser.add_argument("--model_dir", required=True, help="the folder of a trained run")
    which = parser.add_mutually_exclusive_group()
    options.add_step(which)
    which.add_argument(
        "--watch",
        metavar="SECTION/METRIC",
        help="evaluate every checkpoint as it appears, until the run's last, into "
        "MODEL_DIR/evaluations, and name the best by this metric in MODEL_DIR/best.json; for "
        "example dev/accuracy. --step=best then takes it here, in caption and in export",
    )
    options.add_processes(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints metrics.json, or best.json."""
    options.join_processes(args)
    options.load_configuration(args)
    from simvlm_jax import configuration, hosts
    from simvlm_jax.evaluation import runner, watching
    from simvlm_jax.training import fingerprint

    configuration.check("runner.evaluate")
    config = configuration.resolved()
    fingerprint.require_same(config, {})

    def evaluate(step: int | None, **more: str) -> dict:
        given = {"model_dir": args.model_dir, "config_text": config, "step": step, **more}
        return configuration.call(runner.evaluate, **given)

    if args.watch:
        result = watching.watch(
            args.model_dir, lambda step, output: evaluate(step, output=str(output)), args.watch
        )
    else:
        result = evaluate(options.step_of(args))
    if hosts.is_first():
        print(json.dumps(result, indent=2))
    return 0
