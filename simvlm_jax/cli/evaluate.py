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
    options.add_processes(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints metrics.json."""
    options.join_processes(args)
    options.load_configuration(args)
    from simvlm_jax import configuration, hosts
    from simvlm_jax.evaluation import runner
    from simvlm_jax.training import fingerprint

    configuration.check("runner.evaluate")
    config = configuration.resolved()
    fingerprint.require_same(config, {})
    metrics = configuration.call(runner.evaluate, model_dir=args.model_dir, config_text=config)
    if hosts.is_first():
        print(json.dumps(metrics, indent=2))
    return 0
