"""`simvlm compile`: a training plan for a machine that is not there."""

import argparse
import json
import sys

from simvlm_jax.cli import options

HELP = "compile a run's step for a TPU pod or GPUs, without any: does it fit, what limits it"
EXAMPLE = "simvlm compile --topology=v5e:16x16 --gin_file=models/huge.gin --gin_file=runs/paper.gin"

# As simvlm_jax.planning.job has them, which is too heavy to import for --help.
STEPS = ("train", "finetune", "evaluate", "decode")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    options.add_gin(parser)
    add = parser.add_argument
    add(
        "--topology",
        required=True,
        help="KIND:SHAPE in chips, such as v3:16x32, v4:8x8x8, v5e:16x16, v5p:8x8x8, v6e:16x16; "
        "h100:4x8 (hosts x GPUs); cpu:8",
    )
    add("--slices", type=options.count_from(1), default=1, help="TPU slices joined by DCN")
    add("--step", choices=STEPS, default="train", help="what to compile (default: train)")
    add("--pair_tokens", help="lengths of captions as TOKENS:WEIGHT,...; default: all are full")
    add("--document_tokens", help="lengths of documents likewise")
    add("--total_steps", type=options.count_from(1), help="of the whole run (default: the run's)")
    add("--json", action="store_true", help="print one JSON object")
    add("--text", help="write the compiled program to this file too")


def run(args: argparse.Namespace) -> int:
    """Compiles and reports."""
    from simvlm_jax.planning import lengths, topologies

    topologies.prepare(args.topology)
    histograms = {
        kind: lengths.parse(text)
        for kind, text in (("pairs", args.pair_tokens), ("documents", args.document_tokens))
        if text
    }
    job, topology, total_steps = _job(args)
    from simvlm_jax.planning.plan import make_plan, mesh_line
    from simvlm_jax.planning.report import report

    print(f"{mesh_line(job, topology)}; compiling takes minutes", file=sys.stderr)
    plan = make_plan(job, topology, args.total_steps or total_steps, histograms, args.text)
    print(json.dumps(plan) if args.json else report(plan))
    return 0


def _job(args: argparse.Namespace) -> tuple:
    options.load_configuration(args)
    from simvlm_jax import configuration
    from simvlm_jax.data.streams import GroupStream
    from simvlm_jax.planning import job, topologies

    configuration.check("loop.train")
    topology = topologies.open_topology(args.topology, args.slices)
    parts = [configuration.value(f"loop.train.{n}") for n in ("model", "optimizer", "partitioner")]
    shapes = job.batch_shapes(configuration.bindings(GroupStream))
    total_steps = configuration.value("loop.train.total_steps")
    return job.build(args.step, *parts, shapes, topology), topology, total_steps
