"""Evaluates the checkpoints of a run as they appear, and keeps track of the best by one metric."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simvlm_jax import hosts
from simvlm_jax.errors import UserError, writing
from simvlm_jax.json_files import read_object
from simvlm_jax.training import t5x_format
from simvlm_jax.training.best import BEST
from simvlm_jax.training.folder import write_atomic
from simvlm_jax.training.reading import checkpoints_folder, saved_steps

FOLDER = "evaluations"
WAIT_SECONDS = 10.0


def watch(
    model_dir: str | Path,
    evaluate: Callable[[int, Path], dict[str, Any]],
    best: str,
    wait_seconds: float = WAIT_SECONDS,
) -> dict[str, Any]:
    """Evaluates every checkpoint of a run that trains, until its last one, the oldest first.

    Results stand in MODEL_DIR/evaluations/STEP. Of several processes all call it. The run has to
    keep its checkpoints (`keeping.KeepRules.newest`), as finetune/common.gin lets it.

    Args:
      model_dir: the run's folder.
      evaluate: makes the metrics of a step in a folder.
      best: SECTION/METRIC by which checkpoints are compared; of a loss the lowest is the best.
      wait_seconds: between two looks into the folder.

    Returns:
      What best.json in the run's folder says: "step", "metric", "value", and "values" by step.

    Raises:
      UserError: there is no such metric, no run in the folder, or a checkpoint was deleted.
    """
    folder, values, told = Path(model_dir), {}, False
    while True:
        steps, total = hosts.first_says("watched steps", (steps_of(folder), total_steps(folder)))
        for step in steps:
            if step in values:
                continue
            found = metric(evaluate(step, folder / FOLDER / str(step)), best)
            values[step] = found
            chosen = best_step(values, best)
            result = {
                "step": chosen,
                "metric": best,
                "value": values[chosen],
                "values": {str(step): value for step, value in values.items()},
            }
            if hosts.is_first():
                with writing(folder / BEST):
                    write_atomic(folder / BEST, json.dumps(result, indent=2).encode())
                print(
                    f"step {step}: {best} {found:.4g}; the best is {values[chosen]:.4g} of step "
                    f"{chosen}",
                    file=sys.stderr,
                )
            told = False
        if total is not None and total in values:
            return result
        if not told and hosts.is_first():
            print(f"waiting for the next checkpoint in {folder}", file=sys.stderr)
        told = True
        time.sleep(wait_seconds)


def steps_of(folder: Path) -> list[int]:
    """The checkpoints of a run, ours or T5X's."""
    return saved_steps(checkpoints_folder(folder)) or t5x_format.steps(folder)


def total_steps(folder: Path) -> int | None:
    """The last step of a run, as far as it has said so."""
    noted = folder / "training.json"
    total = read_object(noted).get("total_steps") if noted.is_file() else None
    return total if isinstance(total, int) else None


def metric(metrics: dict[str, Any], name: str) -> float:
    """The number SECTION/METRIC.

    Raises:
      UserError: there is none of this name.
    """
    section, _, key = name.partition("/")
    value = metrics.get(section, {}).get(key) if isinstance(metrics.get(section), dict) else None
    if not isinstance(value, int | float):
        known = [
            f"{section}/{key}"
            for section, found in metrics.items()
            if isinstance(found, dict) and section not in ("seconds", "made_with")
            for key, value in found.items()
            if isinstance(value, int | float)
        ]
        raise UserError(f"There is no metric {name!r}; use one of {', '.join(known)}.")
    return float(value)


def best_step(values: dict[int, float], name: str) -> int:
    """The step of the best value, the earliest of equals; of a loss the lowest is the best.

    Example: {100: 0.5, 200: 0.7, 300: 0.7} and "dev/accuracy" give 200, and "dev/loss" gives 100.
    """
    sign = 1 if name.rsplit("/", 1)[-1].startswith("loss") else -1
    return min(values, key=lambda step: (sign * values[step], step))
