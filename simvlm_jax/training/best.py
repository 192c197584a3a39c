"""Which of a run's checkpoints is the best, as `simvlm evaluate --watch` notes it."""

from pathlib import Path

from simvlm_jax.errors import UserError
from simvlm_jax.json_files import read_object

BEST = "best.json"


def read_best(model_dir: str | Path) -> int:
    """The step that `watch` found to be the best.

    Raises:
      UserError: it has not run in this folder.
    """
    path = Path(model_dir) / BEST
    if not path.is_file():
        raise UserError(
            f"{path} is not there, so nobody knows the best step: run simvlm evaluate --watch "
            "first, or give a number."
        )
    step = read_object(path).get("step")
    if not isinstance(step, int):
        raise UserError(f"{path} names no step: run simvlm evaluate --watch again.")
    return step
