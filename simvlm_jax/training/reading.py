"""Reads checkpoints from disk: which there are, their manifests, and arrays that are verified."""

import contextlib
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from simvlm_jax import hosts
from simvlm_jax.errors import UserError
from simvlm_jax.training import digests, sizes, stack_traces, t5x_format
from simvlm_jax.training.state import ITEMS

METRICS = "metrics"  # Orbax's name of the item and of the file in it


class DamagedError(UserError):
    """A checkpoint cannot be read, or what was read is not what was written."""


def checkpoints_folder(model_dir: str | Path) -> Path:
    """Returns the absolute folder of a run's checkpoints (Orbax takes no relative one)."""
    return Path(model_dir).absolute() / "checkpoints"


def saved_steps(folder: Path) -> list[int]:
    """Lists the finished checkpoints of a folder, oldest first; an unfinished one has a suffix."""
    names = (path.name for path in folder.glob("*"))
    numbers = (int(name) for name in names if name.isascii() and name.isdecimal())
    return sorted(number for number in numbers if (folder / str(number)).exists())  # no "007"


def restore_params(model_dir: str | Path, step: int | None = None, ema: bool = False) -> Any:
    """Reads the parameters of a run as `restore_step` does, and says nothing of the step."""
    return restore_step(model_dir, step, ema)[1]


def restore_step(
    model_dir: str | Path, step: int | None = None, ema: bool = False
) -> tuple[int, Any]:
    """Reads the parameters of a run, knowing neither its model nor its optimizer.

    Of several processes all call it, and all get the same checkpoint: what one of them cannot
    read, none uses.

    Args:
        model_dir: The run's folder, ours or T5X's; where it holds both kinds, ours count.
        step: Which checkpoint; None takes the newest that is whole, and says so where that is not
            the newest one.
        ema: Read the moving average of the parameters instead.

    Returns:
        The checkpoint's step, and a nested dictionary of arrays on the default device.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged, or it holds no average.
    """
    folder = checkpoints_folder(model_dir)
    steps, t5x_steps = hosts.first_says(
        "checkpoints", (saved_steps(folder), t5x_format.steps(model_dir))
    )
    read = _read_average if ema else _read_params
    if t5x_steps and not steps:
        steps, folder = t5x_steps, Path(model_dir)
        read = _read_t5x_average if ema else _read_t5x_params
    if not steps:
        raise UserError(f"There is no checkpoint in {folder}: train first, or check the folder.")
    if step is not None and step not in steps:
        raise UserError(f"There is no checkpoint of step {step} in {folder}, only of {steps}.")
    for candidate in reversed(steps) if step is None else [step]:
        try:
            return candidate, agree("read", lambda: read(folder, candidate))  # noqa: B023 - at once
        except DamagedError as error:
            if candidate == steps[0] or step is not None:
                raise
            if hosts.is_first():
                print(error, file=sys.stderr)


def read_arrays(folder: Path, name: str, wanted: Callable[[str], bool]) -> dict[str, jax.Array]:
    """Reads and verifies the arrays of one item whose path is wanted, without their shardings."""
    manifest = {path: entry for path, entry in read_manifest(folder)[name].items() if wanted(path)}
    found = read_tree(folder / name, manifest.__contains__)
    arrays = {path: jnp.asarray(found[path]) for path in manifest if path in found}
    verify(folder, arrays, manifest)
    return arrays


def read_t5x_arrays(
    model_dir: str | Path, step: int, wanted: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """Reads a T5X checkpoint's arrays whose path is wanted, and verifies them if it can."""
    tree = t5x_format.folder(model_dir, step)
    found = read_tree(tree, wanted)
    if t5x_format.is_described(tree.parent):
        entries = read_manifest(tree.parent, t5x_format.ITEMS)[t5x_format.STATE].items()
        verify(tree.parent, found, {path: entry for path, entry in entries if wanted(path)})
    return found


def read_tree(folder: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Reads the arrays of an Orbax tree whose path is wanted, by path.

    Raises:
        UserError: If they are damaged, or do not fit into memory.
    """
    handler = ocp.PyTreeCheckpointHandler()
    sizes.require_small_metadata(folder)
    with damage(folder.parent):
        item = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if wanted(digests.name(path)) else ocp.PLACEHOLDER,
            handler.metadata(folder).tree,
        )
    sizes.require_room(item, folder.parent)
    with damage(folder.parent):
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        tree = handler.restore(folder, args=ocp.args.PyTreeRestore(item, as_numpy))
    return {path: leaf for path, leaf in digests.paths(tree).items() if wanted(path)}


def tree_layout(folder: Path) -> dict[str, dict]:
    """Describes the arrays of an Orbax tree, without reading them: {path: {"shape", "dtype"}}."""
    with damage(folder.parent):
        return digests.layout(ocp.PyTreeCheckpointHandler().metadata(folder).tree)


def read_manifest(folder: Path, items: Collection[str] = ITEMS) -> dict[str, dict]:
    """Reads what a checkpoint should hold: {item: {path: {"shape", "dtype", "digest"}}}.

    Args:
        folder: Of the checkpoint.
        items: Those that it has.

    Raises:
        DamagedError: If it cannot be read, or is not what was written.
    """
    sizes.require_small_metadata(folder)
    with damage(folder):
        return digests.unseal(ocp.JsonCheckpointHandler().restore(folder / "manifest"), items)


def require_described(folder: Path, step: int) -> None:
    """Checks what Orbax reads of every checkpoint when it opens their folder.

    Raises:
        DamagedError: If the time of a checkpoint or its metrics cannot be read.
    """
    checkpoint = folder / str(step)
    with damage(checkpoint):
        _ = ocp.path.step.standard_name_format().find_step(folder, step).commit_timestamp
        if (checkpoint / METRICS / METRICS).exists():
            dict(ocp.JsonCheckpointHandler(METRICS).restore(checkpoint / METRICS))


def agree(what: str, action: Callable[[], Any]) -> Any:
    """Does something on every process; what one of them finds wrong, all raise.

    Args:
        what: Names it, as in `hosts.gather`.
        action: Does its part, and meets no other process.

    Returns:
        What it returned.

    Raises:
        DamagedError: If it did so on a process.
        UserError: If it did so on a process.
    """
    result = trouble = None
    try:
        result = action()
    except UserError as error:
        trouble = [isinstance(error, DamagedError), str(error)]
    troubles = [one for one in hosts.gather(what, trouble) if one]
    if troubles:
        damaged, sentence = min(troubles)
        raise (DamagedError if damaged else UserError)(sentence)
    return result


def verify(folder: Path, tree: Any, manifest: Mapping[str, dict]) -> None:
    """Raises `DamagedError` unless the arrays are those of the manifest, bit for bit."""
    difference = digests.first_difference(digests.manifest(tree), manifest)
    if difference:
        raise DamagedError(f"The checkpoint {folder} is damaged: {difference}.")


@contextlib.contextmanager
def damage(folder: Path) -> Iterator[None]:
    """Turns whatever goes wrong inside into a `DamagedError`."""
    stack_traces.mute()
    try:
        yield
    except Exception as error:  # Orbax raises plain ones, and many kinds, for unreadable files
        reason = textwrap.shorten(str(error) or type(error).__name__, 200)
        raise DamagedError(f"The checkpoint {folder} cannot be read: {reason}") from error


def _read_params(folder: Path, step: int) -> Any:
    return _nested(read_arrays(folder / str(step), "params", lambda path: True))


def _read_average(folder: Path, step: int) -> Any:
    checkpoint = folder / str(step)
    average = _average(read_arrays(checkpoint, "optimizer", _is_average), checkpoint)
    frozen = read_arrays(checkpoint, "params", lambda path: path not in average)
    return _nested(average | frozen)  # a frozen parameter is its own average


def _read_t5x_params(folder: Path, step: int) -> Any:
    arrays = read_t5x_arrays(folder, step, lambda path: path.startswith(t5x_format.PARAMS))
    return jax.tree.map(jnp.asarray, _nested(t5x_format.to_own(arrays)[0]))


def _read_t5x_average(folder: Path, step: int) -> Any:
    arrays = read_t5x_arrays(folder, step, _is_average)
    average = _average(arrays, t5x_format.folder(folder, step))
    prefix = t5x_format.PARAMS
    is_frozen = lambda path: path.removeprefix(prefix) not in average  # noqa: E731
    frozen = read_t5x_arrays(folder, step, lambda path: path.startswith(prefix) and is_frozen(path))
    return jax.tree.map(jnp.asarray, _nested(average | t5x_format.to_own(frozen)[0]))


def _nested(arrays: Mapping[str, Any]) -> Any:
    return unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})


def _is_average(path: str) -> bool:
    return "/ema/" in path  # the field of optax.EmaState, wherever the optimizer's chain put it


def _average(arrays: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The averages by their parameters' paths."""
    if not arrays:
        raise UserError(
            f"The checkpoint {folder} holds no moving average of the parameters: ask for the "
            "parameters themselves, or train with adamw.ema_decay set."
        )
    return {path.split("/ema/", 1)[1]: array for path, array in arrays.items()}
