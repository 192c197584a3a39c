"""What an ablation runs: for each row and seed the same verbs that a person would use.

Equal compute: a row takes as many steps as cost what the base row's steps cost, counted by
`model.train_flops` of the row's own shapes. The downstream task takes the same number of steps in
every row.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simvlm_jax import configuration
from simvlm_jax.ablation.rows import Row
from simvlm_jax.errors import UserError

COMMON = "ablations/pretraining.gin"
PRETRAINING, FINETUNING, EVALUATION = "pretraining", "questions", "evaluation"
METRICS = "metrics.json"


@dataclasses.dataclass(frozen=True)
class Downstream:
    """What a pretrained run is judged by.

    Attributes:
      verb: trains it.
      gin_files: read after the row's.
      evaluation: the gin file of `simvlm evaluate`.
      section: of metrics.json.
      metric: in that section; its controls have the same name and a suffix.
    """

    verb: str = "train"
    gin_files: tuple[str, ...] = ("ablations/questions.gin",)
    evaluation: str = "ablations/evaluate.gin"
    section: str = "questions"
    metric: str = "accuracy"


@dataclasses.dataclass(frozen=True)
class Compute:
    """How much a row trains.

    Attributes:
      steps: of pretraining; 0 where there is none.
      flops_per_step: operations of one of them, forward and backward.
      question_steps: of the downstream task.
      configuration: SHA-256 of the row's resolved gin.
    """

    steps: int
    flops_per_step: float
    question_steps: int
    configuration: str = ""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command of a run.

    Attributes:
      name: of its folder and its log.
      command: program and arguments.
      folder: what the command writes into.
      steps: that a finished training has taken; None for an evaluation.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    steps: int | None


@dataclasses.dataclass(frozen=True)
class Run:
    """One row with one seed."""

    row: Row
    seed: int
    folder: Path
    stages: tuple[Stage, ...]

    @property
    def title(self) -> str:
        """For progress and sentences."""
        return f"{self.row.name}, seed {self.seed}"


def compute_of(rows: Sequence[Row], base_steps: int, question_steps: int) -> dict[str, Compute]:
    """Counts each row's steps at equal compute, by the row's own gin files.

    Args:
      rows: of the table; the first is the base row.
      base_steps: pretraining steps of the base row, which set the budget.
      question_steps: of the downstream task.

    Returns:
      By the rows' names.

    Raises:
      UserError: a row's configuration is not valid.
    """
    costs = {row.name: cost_of_step(row) for row in rows}
    budget = base_steps * costs[rows[0].name][0]
    return {
        row.name: Compute(
            max(1, round(budget / costs[row.name][0])) if row.pretrains else 0,
            costs[row.name][0],
            question_steps,
            costs[row.name][1],
        )
        for row in rows
    }


def cost_of_step(row: Row) -> tuple[float, str]:
    """Operations of one pretraining step of a row, and its configuration's SHA-256."""
    from simvlm_jax.data import streams
    from simvlm_jax.planning.job import batch_shapes

    configuration.load([COMMON, *row.gin_files])
    configuration.check("loop.train")
    model = configuration.value("loop.train.model")
    shapes = batch_shapes(configuration.bindings(streams.GroupStream))
    digest = hashlib.sha256(configuration.resolved().encode()).hexdigest()
    return model.train_flops(shapes.input_shapes), digest


def runs_of(
    rows: Sequence[Row],
    seeds: Sequence[int],
    compute: Mapping[str, Compute],
    output_dir: Path,
    downstream: Downstream,
) -> list[Run]:
    """All runs, seed by seed, so that an early end leaves whole pairs."""
    return [
        Run(row, seed, folder, tuple(_stages(row, seed, compute[row.name], folder, downstream)))
        for seed in seeds
        for row in rows
        for folder in [output_dir / row.name / f"seed{seed}"]
    ]


def _stages(row: Row, seed: int, compute: Compute, folder: Path, downstream: Downstream):
    """The commands of a run; files given later override those before."""
    before, finetuned = folder / PRETRAINING, folder / FINETUNING
    files, bindings = [COMMON, *row.gin_files], [f"SEED = {seed}"]
    if row.pretrains:
        given = [*bindings, f"TOTAL_STEPS = {compute.steps}"]
        yield Stage(PRETRAINING, _command("train", files, given, before), before, compute.steps)
    files += downstream.gin_files
    bindings.append(f"TOTAL_STEPS = {compute.question_steps}")
    if row.pretrains:
        files.append("ablations/from_pretraining.gin")
        bindings.append(f"PRETRAINED = {str(before)!r}")
    command = _command(downstream.verb, files, bindings, finetuned)
    yield Stage(FINETUNING, command, finetuned, compute.question_steps)
    command = _command("evaluate", [downstream.evaluation], [], finetuned)
    yield Stage(EVALUATION, command, finetuned, None)


def _command(
    verb: str, files: Sequence[str], bindings: Sequence[str], model_dir: Path
) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "simvlm_jax.cli.main", verb),
        *(f"--gin_file={file}" for file in files),
        *(f"--gin={binding}" for binding in bindings),
        f"--model_dir={model_dir}",
    )


def settings(compute: Mapping[str, Compute], downstream: Downstream, data: Path) -> dict[str, Any]:
    """What must not change while the runs of a folder go on.

    Args:
      compute: of every row of the table, asked for or not.
      downstream: the task.
      data: the summary of the ablation's data.

    Raises:
      UserError: the data is not prepared.
    """
    if not data.is_file():
        raise UserError(f"There is no {data}: run `simvlm prepare ablation` first.")
    files = [configuration.path_of(name) for name in (*downstream.gin_files, downstream.evaluation)]
    return {
        "compute": {name: dataclasses.asdict(value) for name, value in compute.items()},
        "downstream": dataclasses.asdict(downstream) | {"gin_files": list(downstream.gin_files)},
        "downstream_sha256": [hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files],
        "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
    }
