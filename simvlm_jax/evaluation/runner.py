"""Runs evaluations over a trained run and writes metrics.json and the report."""

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simvlm_jax import hosts
from simvlm_jax.data.paths import SUMMARY_NAME, data_dir
from simvlm_jax.errors import UserError, writing
from simvlm_jax.evaluation.evaluations import Evaluation, Result
from simvlm_jax.evaluation.provenance import made_with
from simvlm_jax.evaluation.report import write_report
from simvlm_jax.json_files import LARGEST, object_lines, read_bounded, read_object
from simvlm_jax.pages.attention import attention_page
from simvlm_jax.pages.charts import Points
from simvlm_jax.training import t5x_format
from simvlm_jax.training.fingerprint import code_digest
from simvlm_jax.training.folder import write_atomic
from simvlm_jax.training.pretrained import require_same_vocabulary
from simvlm_jax.training.reading import checkpoints_folder, saved_steps

BEGAN = time.monotonic()
REPORT, ATTENTION = Path("report", "index.html"), Path("report", "attention.html")
NOT_SHOWN = ("fingerprint", "made_with")


def evaluate(
    model_dir: str,
    config_text: str,
    evaluations: Sequence[Evaluation],
    step: int | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """Evaluates, unless this very checkpoint was evaluated with these settings before.

    Of several processes all call it; the first one writes: metrics.json, report/index.html,
    report/attention.html where the model wrote texts about images, and answers/SECTION.jsonl with
    a line for each example.

    Args:
      model_dir: the run's folder.
      config_text: the resolved configuration of the evaluation.
      evaluations: what to measure, in the order of the report.
      step: which checkpoint; None takes the newest.
      output: where to write; by default into the run's folder.

    Returns:
      What metrics.json holds: a section for each evaluation, and "made_with" (see provenance.py).

    Raises:
      UserError: the folder holds no trained model, or one of another vocabulary.
    """
    folder = Path(model_dir)
    output_folder = folder if output is None else Path(output)
    require_same_vocabulary(folder)
    fingerprint = _fingerprint(folder, config_text, step)
    shared = "give a --model_dir on a disk that all hosts share, and the same data"
    hosts.require_same("checkpoints or data", fingerprint, shared)
    metrics_file, report_file = output_folder / "metrics.json", output_folder / REPORT
    metrics = _known(metrics_file, fingerprint) if report_file.is_file() else None
    if metrics := hosts.first_says("metrics", metrics):
        _tell(f"{metrics_file} is up to date.")
        return metrics
    results = {}
    for number, evaluation in enumerate(evaluations, 1):
        _tell(f"evaluating {evaluation.name} ({number}/{len(evaluations)})")
        found = evaluation.run(folder, step)
        for name, value in found.metrics.items():
            if name.startswith("warning"):
                _tell(f"{evaluation.name}: {value}")
        results[evaluation.name] = found
    metrics = _training(folder) | {name: result.metrics for name, result in results.items()}
    made = made_with(config_text, {n: (r.model_dir, r.step) for n, r in results.items()})
    metrics |= {"made_with": made, "fingerprint": fingerprint}
    if hosts.is_first():
        with writing(output_folder):
            _write(output_folder, folder, metrics, results)
    return metrics


def _write(
    output: Path, model_dir: Path, metrics: dict[str, Any], results: Mapping[str, Result]
) -> None:
    """The report, the answers and, as the last, the metrics, which say that all is there."""
    shown = {name: value for name, value in metrics.items() if name not in NOT_SHOWN}
    samples = [sample for result in results.values() for sample in result.samples]
    write_report(output / REPORT, "SimVLM", shown, _curves(model_dir), samples)
    if looked := [one for result in results.values() for one in result.looked]:
        page = attention_page("Where the decoder looked", looked, len(looked))
        write_atomic(output / ATTENTION, page.encode())
    (output / "answers").mkdir(exist_ok=True)
    for name, result in results.items():
        lines = [
            json.dumps({**record, "answer": answer}, ensure_ascii=False)
            for record, answer in zip(result.records, result.answers, strict=True)
        ]
        write_atomic(output / "answers" / f"{name}.jsonl", "\n".join([*lines, ""]).encode())
        if result.submit:
            (output / "submissions").mkdir(exist_ok=True)
            path = output / "submissions" / f"{name}.json"
            result.submit(path, result.answers, result.records)
    write_atomic(output / "metrics.json", json.dumps(metrics, indent=2).encode())


def _known(metrics_file: Path, fingerprint: str) -> dict[str, Any] | None:
    """What an evaluation with this fingerprint wrote, if there was one."""
    metrics = read_object(metrics_file) if metrics_file.is_file() else {}
    return metrics if metrics.get("fingerprint") == fingerprint else None


def _tell(line: str) -> None:
    if hosts.is_first():
        print(line, file=sys.stderr)


def _fingerprint(folder: Path, config_text: str, step: int | None) -> str:
    """Changes with the settings, the data, and any checkpoint of the run or below it."""
    files = [data_dir() / SUMMARY_NAME, *sorted(folder.glob("**/checkpoints/*/manifest/**/*"))]
    # T5X keeps no digests: when its checkpoint was written has to do.
    files_of_t5x = sorted(folder.glob("**/checkpoint_*/_CHECKPOINT_METADATA"))
    parts = [config_text.encode(), str(step).encode(), code_digest().encode()]
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
