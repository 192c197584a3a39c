"""The paper's eight GLUE tasks by GLUE's own metrics (Wang et al. 2019; the paper's table 8)."""

from collections.abc import Callable, Mapping, Sequence

from simvlm_jax.errors import UserError
from simvlm_jax.evaluation.classification import accuracy, f1, matthews

Metric = Callable[[Sequence[int], Sequence[int]], float]
ACCURACY: Mapping[str, Metric] = {"accuracy": accuracy}
METRICS: Mapping[str, Mapping[str, Metric]] = {
    "cola": {"matthews": matthews},
    "sst2": ACCURACY,
    "rte": ACCURACY,
    "mrpc": {"accuracy": accuracy, "f1": f1},
    "qqp": {"accuracy": accuracy, "f1": f1},
    "mnli": ACCURACY,
    "qnli": ACCURACY,
    "wnli": ACCURACY,
}


def score_glue(task: str, predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """The metrics of one GLUE task.

    Example: ("mrpc", [1, 1, 0], [1, 0, 0]) gives accuracy 2/3 and f1 2/3. Class 1 is "acceptable"
    in CoLA, "equivalent" in MRPC and "duplicate" in QQP, as in GLUE's files.

    Args:
      task: A name in `METRICS`, however written: "SST-2" is "sst2".
      predictions: N class ids.
      labels: N class ids.

    Returns:
      `matthews` in [-1, 1] for CoLA; `accuracy` in [0, 1] for others, and `f1` for MRPC and QQP.

    Raises:
      UserError: There is no such task; see also `classification.require_paired`.
    """
    name = task.lower().replace("-", "").replace("_", "")
    if name not in METRICS:
        raise UserError(f"GLUE task {task!r} is none of {', '.join(METRICS)}; give one of them.")
    return {metric: measure(predictions, labels) for metric, measure in METRICS[name].items()}
