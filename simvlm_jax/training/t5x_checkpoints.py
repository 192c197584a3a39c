"""Resumes from T5X's checkpoints and writes them, without T5X."""

import functools
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from simvlm_jax import hosts
from simvlm_jax.errors import UserError
from simvlm_jax.training import digests, t5x_format, verifying
from simvlm_jax.training.checkpoints import ManifestSave
from simvlm_jax.training.reading import (
    DamagedError,
    agree,
    checkpoints_folder,
    read_arrays,
    read_t5x_arrays,
    saved_steps,
)
from simvlm_jax.training.state import ITEMS, TrainState, items_of


def restore_latest(model_dir: str | Path, abstract_state: TrainState) -> TrainState | None:
    """Restores the newest T5X checkpoint that is whole: parameters, optimizer and step.

    Newer ones that are damaged are named, and stay where they are. All processes must call it.

    Args:
        model_dir: T5X's folder.
        abstract_state: Shapes, dtypes and shardings of the state.

    Returns:
        The state, or None where there is no such checkpoint.

    Raises:
        UserError: If the checkpoint belongs to another model or optimizer, or if there are
            checkpoints and none of them is whole.
    """
    steps = hosts.first_says("T5X's checkpoints", t5x_format.steps(model_dir))
    for step in reversed(steps):
        read = functools.partial(read_t5x_arrays, model_dir, step, lambda path: True)
        try:
            arrays = agree("restore", read)
        except DamagedError as error:
            _tell(str(error))
            continue
        if step != steps[-1]:
            _tell(f"Going on from step {step} instead.")
        return _state(arrays, t5x_format.folder(model_dir, step), abstract_state)
    if steps:
        raise _none_is_whole(model_dir)
    return None


def set_damaged_aside(model_dir: str | Path) -> None:
    """Moves the checkpoints away that T5X should not resume from, to `damaged_checkpoints`.

    All processes must call it: each reads a part of the arrays. Checkpoints that are older than
    one that is whole, or has no digests, are not looked at.

    Args:
        model_dir: T5X's folder.

    Raises:
        UserError: If there are checkpoints and none of them is whole, or they cannot be moved.
    """
    steps = hosts.first_says("T5X's checkpoints", t5x_format.steps(model_dir))
    damaged = []
    for step in reversed(steps):
        folder = t5x_format.folder(model_dir, step).parent
        if not (trouble := _trouble(folder)):
            break
        _tell(f"The checkpoint {folder} is damaged: {trouble}.")
        damaged.append(folder)
    else:
        if steps:
            raise _none_is_whole(model_dir)
    if damaged:
        hosts.first_does("set damaged ones aside", lambda: _move(damaged))
        _tell(f"Going on from step {step} instead.")


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


def _trouble(folder: Path) -> str | None:
    """What a process finds wrong first in its part of a checkpoint's arrays; the same for all."""
    found = None
    if t5x_format.is_described(folder):
        found = verifying.first_trouble(folder, slice(hosts.index(), None, hosts.count()))
    return next(filter(None, hosts.gather("damage", found)), None)


def _move(folders: list[Path]) -> None:
    for folder in folders:
        target = folder.parent / "damaged_checkpoints" / folder.name
        try:
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            folder.rename(target)
        except OSError as error:
            raise UserError(
                f"The damaged checkpoint {folder} cannot be moved to {target.parent} "
                f"({error.strerror}): make the folder one that can be written, and start again."
            ) from error


def _none_is_whole(model_dir: str | Path) -> UserError:
    return UserError(
        f"None of the checkpoints in {model_dir} can be restored: train in another folder, or "
        "bring them back from a copy."
    )


def _tell(sentence: str) -> None:
    if hosts.is_first():
        print(sentence, file=sys.stderr)


def _state(arrays: Mapping[str, np.ndarray], where: Path, abstract_state: TrainState) -> TrainState:
    params, optimizer = t5x_format.to_own(arrays)
    wanted = items_of(abstract_state)
    restored = _fill(wanted["optimizer"], optimizer, where)
    return TrainState(params=_fill(wanted["params"], params, where), **restored)


def _fill(tree: Any, arrays: Mapping[str, np.ndarray], where: Path) -> Any:
    """Puts arrays into a tree of shapes, by path.

    Args:
        tree: Leaves are `jax.ShapeDtypeStruct` with a sharding.
        arrays: By path; they must be those of the tree, in shape and dtype too.
        where: The checkpoint, for the sentence.

    Raises:
        UserError: If they are not: the checkpoint is of another model or optimizer.
    """
    wanted = digests.layout(tree)
    # A run that T5X has resumed has its step and the optimizer's counts as float32.
    arrays = {
        path: array.astype(wanted[path]["dtype"])
        if array.dtype == np.float32 and wanted.get(path, {}).get("dtype") == "int32"
        else array
        for path, array in arrays.items()
    }
    difference = digests.first_difference(digests.layout(arrays), wanted)
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
    items = {
        t5x_format.STATE: ocp.args.PyTreeSave(tree),
        t5x_format.MANIFEST: ManifestSave({t5x_format.STATE: digests.begun_manifest(arrays)}),
    }
    with ocp.CheckpointManager(target.parent, options=options) as manager:
        manager.save(step, args=ocp.args.Composite(**items))
    return target
