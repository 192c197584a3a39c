"""Resumes from T5X's checkpoints and writes them, without T5X."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from simvlm_jax.errors import UserError
from simvlm_jax.training import digests, t5x_format
from simvlm_jax.training.reading import checkpoints_folder, read_arrays, read_tree, saved_steps
from simvlm_jax.training.state import ITEMS, TrainState, items_of


def restore_latest(model_dir: str | Path, abstract_state: TrainState) -> TrainState | None:
    """Restores the newest T5X checkpoint of a folder: parameters, optimizer and step.

    Args:
        model_dir: T5X's folder.
        abstract_state: Shapes, dtypes and shardings of the state.

    Returns:
        The state, or None where there is no such checkpoint.

    Raises:
        UserError: If the checkpoint is damaged, or belongs to another model or optimizer.
    """
    steps = t5x_format.steps(model_dir)
    if not steps:
        return None
    folder = t5x_format.folder(model_dir, steps[-1])
    params, optimizer = t5x_format.to_own(read_tree(folder, lambda path: True))
    wanted = items_of(abstract_state)
    restored = _fill(wanted["optimizer"], optimizer, folder)
    return TrainState(params=_fill(wanted["params"], params, folder), **restored)


def export(model_dir: str | Path, output: str | Path, step: int | None = None) -> Path:
    """Writes one of a run's checkpoints as T5X's: parameters, optimizer and step.

    Args:
        model_dir: The run's folder.
        output: The folder to put `checkpoint_<step>` into.
        step: Which checkpoint; None takes the newest.

    Returns:
        The T5X checkpoint's folder.

    Raises:
        UserError: If there is no such checkpoint, it is damaged, or the target is there already.
    """
    folder = checkpoints_folder(model_dir)
    steps = saved_steps(folder)
    if not steps or (step is not None and step not in steps):
        raise UserError(f"There is no such checkpoint in {folder}: it has those of steps {steps}.")
    step = steps[-1] if step is None else step
    items = (read_arrays(folder / str(step), n, lambda path: True) for n in ITEMS)
    return _write(output, step, t5x_format.from_own(*items))


def _fill(tree: Any, arrays: Mapping[str, np.ndarray], where: Path) -> Any:
    """Puts arrays into a tree of shapes, by path.

    Args:
        tree: Leaves are `jax.ShapeDtypeStruct` with a sharding.
        arrays: By path; they must be those of the tree, in shape and dtype too.
        where: The checkpoint, for the sentence.

    Raises:
        UserError: If they are not: the checkpoint is of another model or optimizer.
    """
    difference = digests.first_difference(digests.layout(arrays), digests.layout(tree))
    if difference:
        raise UserError(
            f"The T5X checkpoint {where} was written with another model or optimizer: "
            f"{difference}; use the configuration it was trained with."
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.device_put(arrays[digests.name(path)], leaf.sharding), tree
    )


def _write(model_dir: str | Path, step: int, arrays: Mapping[str, Any]) -> Path:
    """Writes a checkpoint that T5X restores by its path.

    Args:
        model_dir: The folder to put `checkpoint_<step>` into; it is made where missing.
        step: Its number.
        arrays: By T5X's paths, as `from_own` gives them.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: If that checkpoint is there already.
    """
    target = t5x_format.folder(model_dir, step).parent
    if target.exists():
        raise UserError(f"{target} is there already: give another folder.")
    tree = unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    options = ocp.CheckpointManagerOptions(step_prefix=t5x_format.STEP_PREFIX, create=True)
    with ocp.CheckpointManager(target.parent, options=options) as manager:
        manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(tree)))
    return target
