"""Gathers what the runs of an ablation have left into one dictionary, results.json."""

import dataclasses
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from simvlm_jax.ablation.plan import EVALUATION, METRICS, PRETRAINING, Compute, Downstream, Run
from simvlm_jax.ablation.rows import BASE, Row
from simvlm_jax.ablation.running import seconds_of
from simvlm_jax.ablation.statistics import (
    CONFIDENCE,
    Difference,
    all_orders,
    difference,
    verdict,
)
from simvlm_jax.data.summary import package_versions
from simvlm_jax.errors import UserError
from simvlm_jax.json_files import read_object

PACKAGES = ("jax", "flax", "optax", "tensorflow", "numpy", "scipy")


def gather(
    rows: Sequence[Row],
    runs: Sequence[Run],
    compute: Mapping[str, Compute],
    downstream: Downstream,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Reads every finished run and computes the table.

    Returns:
      `settings`, `machine`, `controls` (of the base row), `orders` (verdicts over all pairs of
      rows), and `rows`: for each its title, the paper's score and difference, steps, operations,
      each seed's score, seconds and metrics, mean, difference with interval, verdict.

    Raises:
      UserError: a finished run's files say something else than they should.
    """
    seeds = {row.name: [_seed(run, downstream) for run in runs if run.row == row] for row in rows}
    scores = {
        row.name: {s["seed"]: s["score"] for s in seeds[row.name] if s["score"] is not None}
        for row in rows
    }
    paper = {row.name: row.paper for row in rows}
    made = [
        _row(row, compute[row.name], seeds[row.name], scores[row.name], scores[BASE], paper[BASE])
        for row in rows
    ]
    return {
        "metric": f"{downstream.section}.{downstream.metric}",
        "confidence": CONFIDENCE,
        "rows": made,
        "orders": all_orders(scores, paper),
        "controls": _controls(seeds[BASE], downstream),
        "settings": dict(settings),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor() or platform.machine(),
            "versions": package_versions(PACKAGES),
        },
    }


def missing(results: Mapping[str, Any]) -> list[str]:
    """Names "row, seed N" of every run that has no score."""
    return [
        f"{row['name']}, seed {seed['seed']}"
        for row in results["rows"]
        for seed in row["seeds"]
        if seed["score"] is None
    ]


def _seed(run: Run, downstream: Downstream) -> dict[str, Any]:
    """What one run has left; its score is None where it is not finished."""
    stages = {stage.name: stage for stage in run.stages}
    seconds = {name: seconds_of(run, stage) for name, stage in stages.items()}
    found = {"seed": run.seed, "score": None, "stage_seconds": seconds, "metrics": {}}
    if PRETRAINING in stages and seconds[PRETRAINING] is not None:
        trained = read_object(stages[PRETRAINING].folder / "training.json")
        found["pretraining_seconds"] = trained.get("seconds")
    if seconds[EVALUATION] is None:
        return found
    path = stages[EVALUATION].folder / METRICS
    section = read_object(path).get(downstream.section)
    score = section.get(downstream.metric) if isinstance(section, dict) else None
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise UserError(
            f"{path} has no number {downstream.section}.{downstream.metric}: delete "
            f"{run.folder / EVALUATION}.json to evaluate again."
        )
    return found | {"score": float(score), "metrics": section}


def _row(
    row: Row,
    compute: Compute,
    seeds: Sequence[Mapping[str, Any]],
    scores: Mapping[int, float],
    base: Mapping[int, float],
    paper_base: float,
) -> dict[str, Any]:
    found: Difference | None = None if row.name == BASE else difference(scores, base)
    expected = row.paper - paper_base
    return {
        "name": row.name,
        "title": row.title,
        "differs": row.differs,
        "paper": row.paper,
        "paper_difference": None if row.name == BASE else round(expected, 2),
        "steps": compute.steps,
        "flops": compute.steps * compute.flops_per_step,
        "question_steps": compute.question_steps,
        "mean": sum(scores.values()) / len(scores) if scores else None,
        "difference": dataclasses.asdict(found) if found else None,
        "verdict": None if row.name == BASE else verdict(found, expected),
        "seeds": list(seeds),
    }


def _controls(seeds: Sequence[Mapping[str, Any]], downstream: Downstream) -> dict[str, float]:
    """Means over the base row's seeds of what stands beside the metric as a control."""
    wanted = downstream.metric + "_"
    values: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in seed["metrics"].items():
            if name.startswith(wanted) and isinstance(value, int | float):
                values.setdefault(name.removeprefix(wanted), []).append(float(value))
    return {name: sum(found) / len(found) for name, found in values.items()}
