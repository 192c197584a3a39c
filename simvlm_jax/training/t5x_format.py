"""How T5X lays out its checkpoints, and how its names and ours belong together.

T5X keeps `model_dir/checkpoint_<step>/state`, one Orbax tree {"target": params, "state": {"step",
"param_states": optimizer}}. Beside it stands our `manifest` (see digests.py), unless T5X ran
without us. The optimizer's state is a nested dictionary there and an optax tree here, but the
paths of their arrays are the same: `opt_state/0/mu/kernel` here is `state/param_states/0/mu/kernel`
there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

STEP_PREFIX = "checkpoint"
STATE, MANIFEST = "state", "manifest"
ITEMS = (STATE,)  # those that a manifest describes
PARAMS, OPTIMIZER, STEP = "target/", "state/param_states/", "state/step"
OWN_OPTIMIZER, OWN_STEP = "opt_state/", "step"


def steps(model_dir: str | Path) -> list[int]:
    """Lists the finished T5X checkpoints of a folder, oldest first."""
    found = Path(model_dir).glob(f"{STEP_PREFIX}_*/state")
    numbers = (path.parent.name.removeprefix(f"{STEP_PREFIX}_") for path in found)
    return sorted(int(number) for number in numbers if number.isascii() and number.isdecimal())


def folder(model_dir: str | Path, step: int) -> Path:
    """The folder of one T5X checkpoint's tree."""
    return Path(model_dir).absolute() / f"{STEP_PREFIX}_{step}" / "state"


def is_described(checkpoint: Path) -> bool:
    """Whether a checkpoint has a manifest; one that T5X wrote without us has none."""
    return (checkpoint / MANIFEST).exists()


def to_own(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Renames a T5X checkpoint's arrays as those of our items, by path.

    Returns:
        (those of `params`, those of `optimizer`).
    """
    params, optimizer = {}, {}
    for path, array in arrays.items():
        if path.startswith(PARAMS):
            params[path.removeprefix(PARAMS)] = array
        elif path.startswith(OPTIMIZER):
            optimizer[OWN_OPTIMIZER + path.removeprefix(OPTIMIZER)] = array
        elif path == STEP:
            optimizer[OWN_STEP] = array
    return params, optimizer


def from_own(params: Mapping[str, Any], optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `to_own`."""
    arrays = {PARAMS + path: array for path, array in params.items()}
    for path, array in optimizer.items():
        own = path.startswith(OWN_OPTIMIZER)
        arrays[OPTIMIZER + path.removeprefix(OWN_OPTIMIZER) if own else STEP] = array
    return arrays
