"""Made-up runs of an ablation, finished as far as a test wants."""

import json

from simvlm_jax.ablation import plan, running
from simvlm_jax.ablation.rows import chosen_rows

ROWS = chosen_rows(["no_pretraining", "two_blocks"])
COMPUTE = {
    "base": plan.Compute(100, 2e9, 40),
    "no_pretraining": plan.Compute(0, 2e9, 40),
    "two_blocks": plan.Compute(80, 2.5e9, 40),
}
SCORES = {
    "base": (0.65, 0.66, 0.67),
    "no_pretraining": (0.60, 0.62, 0.61),
    "two_blocks": (0.66, 0.65, 0.68),
}


def make_runs(folder, scores=SCORES, seeds=(0, 1, 2)):
    """Runs with the files of those whose score is a number; None leaves one unfinished."""
    runs = plan.runs_of(ROWS, seeds, COMPUTE, folder, plan.Downstream())
    for run in runs:
        score = scores[run.row.name][run.seed]
        for stage in run.stages:
            stage.folder.mkdir(parents=True, exist_ok=True)
            if stage.steps is not None:
                trained = {"steps": stage.steps, "seconds": 120.5}
                (stage.folder / "training.json").write_text(json.dumps(trained))
            elif score is not None:
                section = {"accuracy": score, "accuracy_shuffled": 0.3, "examples": 7}
                metrics = {"questions": section | {"accuracy_most_frequent": 0.25}}
                (stage.folder / "metrics.json").write_text(json.dumps(metrics))
            if stage.steps is not None or score is not None:
                noted = {"finished": True, "seconds": 130.0, "command": [*stage.command]}
                running.note_of(run, stage).write_text(json.dumps(noted))
    return runs
