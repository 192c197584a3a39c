"""Runs evaluations over a trained run and writes metrics.json and the report."""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simvlm_jax import hosts
from simvlm_jax.data.paths import SUMMARY_NAME, data_dir
from simvlm_jax.errors import UserError, writing
from simvlm_jax.evaluation.evaluations import Evaluation
from simvlm_jax.evaluation.report import write_report
from simvlm_jax.json_files import LARGEST, object_lines, read_bounded, read_object
from simvlm_jax.pages.charts import Points
from simvlm_jax.training import t5x_format
from simvlm_jax.training.folder import write_atomic
from simvlm_jax.training.pretrained import require_same_vocabulary
from simvlm_jax.training.reading import checkpoints_folder, saved_steps

BEGAN = time.monotonic()


def evaluate(model_dir: str, config_text: str, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Evaluates, unless this very run was evaluated with these settings before.

    Of several processes all call it; the first one writes.

    Args:
      model_dir: the run's folder; metrics.json and report/index.html are written into it.
      config_text: the resolved configuration of the evaluation.
      evaluations: what to measure, in the order of the report.

    Returns:
      What metrics.json holds.

    Raises:
      UserError: the folder holds no trained model, or one of another vocabulary.
    """
    folder = Path(model_dir)
    require_same_vocabulary(folder)
    fingerprint = _fingerprint(folder, config_text)
    shared = "give a --model_dir on a disk that all hosts share, and the same data"
    hosts.require_same("checkpoints or data", fingerprint, shared)
    metrics_file, report_file = folder / "metrics.json", folder / "report" / "index.html"
    metrics = _known(metrics_file, fingerprint) if report_file.is_file() else None
    if metrics := hosts.first_says("metrics", metrics):
        _tell(f"{metrics_file} is up to date.")
        return metrics
    sections, samples = {}, []
    for number, evaluation in enumerate(evaluations, 1):
        _tell(f"evaluating {evaluation.name} ({number}/{len(evaluations)})")
        sections[evaluation.name], shown = evaluation.run(folder)
        samples.extend(shown)
    metrics = {
        **_training(folder),
        **sections,
        "fingerprint": fingerprint,
    }
    if hosts.is_first():
        shown_metrics = {name: value for name, value in metrics.items() if name != "fingerprint"}
        curves = _curves(folder)
        with writing(folder):
            write_report(report_file, "SimVLM", shown_metrics, curves, samples)
            write_atomic(metrics_file, json.dumps(metrics, indent=2).encode())
    return metrics


def _known(metrics_file: Path, fingerprint: str) -> dict[str, Any] | None:
    """What an evaluation with this fingerprint wrote, if there was one."""
    metrics = read_object(metrics_file) if metrics_file.is_file() else {}
    return metrics if metrics.get("fingerprint") == fingerprint else None


def _tell(line: str) -> None:
    if hosts.is_first():
        print(line, file=sys.stderr)


def _fingerprint(folder: Path, config_text: str) -> str:
    """Changes with the settings, the data, and any checkpoint of the run or below it."""
    files = [data_dir() / SUMMARY_NAME, *sorted(folder.glob("**/checkpoints/*/manifest/**/*"))]
    # T5X keeps no digests: when its checkpoint was written has to do.
    files_of_t5x = sorted(folder.glob("**/checkpoint_*/_CHECKPOINT_METADATA"))
    parts = [config_text.encode()]
    parts += [path.read_bytes() for path in (*files, *files_of_t5x) if path.is_file()]
    parts += [str(saved_steps(checkpoints_folder(folder))).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _training(folder: Path) -> dict[str, Any]:
    """Steps and seconds of the run; T5X notes no seconds."""
    noted = folder / "training.json"
    if not noted.is_file():
        return {"steps": t5x_format.steps(folder)[-1], "seconds": {}}
    training = read_object(noted)
    numbers = [training.get(name) for name in ("steps", "seconds")]
    if not all(isinstance(number, int | float) for number in numbers):
        raise UserError(f"{noted} does not say steps and seconds: bring back the run's own.")
    return {
        "steps": numbers[0],
        "seconds": {"pretraining": numbers[1], "total": _total_seconds(folder)},
    }


def _total_seconds(folder: Path) -> float:
    """Seconds of all noted stages so far, this process's own included.

    A launch script notes each stage it has finished as 'name<TAB>seconds' in stages.tsv.
    """
    stages = folder / "stages.tsv"
    content = read_bounded(stages, LARGEST) if stages.is_file() else b""
    try:
        spent = sum(float(line.split(b"\t")[1]) for line in content.splitlines())
    except (ValueError, IndexError):
        raise UserError(f"{stages} has a line that is not 'name<TAB>seconds'.") from None
    return spent + time.monotonic() - BEGAN


def _curves(folder: Path) -> dict[str, Points]:
    """Loss and accuracy over the steps, of the run and of runs finetuned below it."""
    curves: dict[str, Points] = {}
    for path in sorted(folder.glob("**/losses.jsonl")):
        run = "pretraining" if path.parent == folder else path.parent.name
        points = [point for _, point in object_lines(path) if point]
        for name in ("loss", "accuracy"):
            pairs = [(point.get("step"), point.get(name)) for point in points]
            if not all(isinstance(n, int | float) for pair in pairs for n in pair):
                raise UserError(f"{path} has a line without step, loss and accuracy; delete it.")
            curves[f"{run}/{name}"] = pairs
    return curves
