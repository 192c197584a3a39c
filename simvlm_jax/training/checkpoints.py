"""Asynchronous checkpoints that are verified when they are read.

A checkpoint is the folder model_dir/checkpoints/<step> with three Orbax items: `params`,
`optimizer` (the step and the optimizer's state) and `manifest` (see digests.py). Whoever needs
only the parameters reads only them, and need not know the optimizer.
"""

import contextlib
import logging
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from simvlm_jax.errors import UserError
from simvlm_jax.training import digests
from simvlm_jax.training.state import TrainState


class DamagedError(UserError):
    """A checkpoint cannot be read, or what was read is not what was written."""


class Checkpoints:
    """The checkpoints of one run, as a context that never leaves before its last save is done."""

    def __init__(self, model_dir: str | Path, keep: int = 3) -> None:
        """Opens a run's folder, and removes what a killed save left in it.

        Args:
            model_dir: The run's folder; it is made where missing.
            keep: How many of the newest checkpoints stay.
        """
        self._folder = checkpoints_folder(model_dir)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
        )

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Waits for the last save; without this it would be lost without a word."""
        self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first."""
        return saved_steps(self._folder)

    def last_good(self) -> str:
        """Says where the newest checkpoint is, once pending saves are done."""
        self._manager.wait_until_finished()
        steps = self.steps()
        where = f"the last good checkpoint is {self._folder / str(steps[-1])}" if steps else ""
        return where or "there is no checkpoint yet"

    def save(self, state: TrainState) -> None:
        """Copies a state off the devices and writes it in the background."""
        items = _items(state)
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        manifest = {name: digests.manifest(tree) for name, tree in items.items()}
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(manifest=ocp.args.JsonSave(manifest), **arguments),
            force=True,
        )

    def restore_latest(self, abstract_state: TrainState) -> TrainState | None:
        """Restores the newest checkpoint that is whole; says so if it is not the newest one.

        Newer ones that are damaged are moved to model_dir/damaged_checkpoints.

        Args:
            abstract_state: Shapes, dtypes and shardings of the state.

        Returns:
            The state, or None where there is no checkpoint.

        Raises:
            UserError: If the checkpoint belongs to another model or optimizer, or if there are
                checkpoints and none of them is whole.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                state = _restore_state(self._folder / str(step), abstract_state)
            except DamagedError as error:
                print(error, file=sys.stderr)
                damaged.append(step)
                continue
            self._set_aside(damaged)
            if damaged:
                print(f"Going on from step {step} instead.", file=sys.stderr)
            return state
        if damaged:
            raise UserError(
                f"None of the checkpoints in {self._folder} can be restored: train in another "
                "folder, or bring them back from a copy."
            )
        return None

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            target = self._folder.parent / "damaged_checkpoints" / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(target)
        if steps:
            self._manager.reload()


def checkpoints_folder(model_dir: str | Path) -> Path:
    """Returns the absolute folder of a run's checkpoints (Orbax takes no relative one)."""
    return Path(model_dir).absolute() / "checkpoints"


def saved_steps(folder: Path) -> list[int]:
    """Lists the finished checkpoints of a folder, oldest first; an unfinished one has a suffix."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def restore_params(model_dir: str | Path, step: int | None = None, ema: bool = False) -> Any:
    """Reads the parameters of a run, knowing neither its model nor its optimizer.

    Args:
        model_dir: The run's folder.
        step: Which checkpoint; None takes the newest that is whole, and says so where that is not
            the newest one.
        ema: Read the moving average of the parameters instead.

    Returns:
        A nested dictionary of arrays on the default device.

    Raises:
        UserError: If there is no such checkpoint, or it is damaged, or it holds no average.
    """
    folder = checkpoints_folder(model_dir)
    steps = saved_steps(folder)
    if not steps:
        raise UserError(f"There is no checkpoint in {folder}: train first, or check the folder.")
    if step is not None and step not in steps:
        raise UserError(f"There is no checkpoint of step {step} in {folder}, only of {steps}.")
    read = _read_average if ema else _read_params
    for candidate in reversed(steps) if step is None else [step]:
        try:
            return read(folder / str(candidate))
        except DamagedError as error:
            if candidate == steps[0] or step is not None:
                raise
            print(error, file=sys.stderr)


def _items(state: TrainState) -> dict[str, Any]:
    optimizer = {"step": state.step, "opt_state": state.opt_state}
    return {"params": state.params, "optimizer": optimizer}


def _restore_state(folder: Path, abstract_state: TrainState) -> TrainState:
    manifest, wanted = _manifest(folder), _items(abstract_state)
    for item, tree in wanted.items():
        difference = digests.first_difference(manifest.get(item, {}), digests.layout(tree))
        if difference:
            part = "model" if item == "params" else "optimizer"
            raise UserError(
                f"The checkpoint {folder} was written with another {part}: {difference}; use the "
                "configuration it was trained with, or another model_dir."
            )
    handler, restored = ocp.StandardCheckpointHandler(), {}
    for item, tree in wanted.items():
        with _damage(folder):
            restored[item] = handler.restore(folder / item, args=ocp.args.StandardRestore(tree))
        _verify(folder, restored[item], manifest[item])
    return TrainState(params=restored["params"], **restored["optimizer"])


def _read_params(folder: Path) -> Any:
    arrays = _read_arrays(folder, "params", lambda path: True)
    return unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})


def _read_average(folder: Path) -> Any:
    # "ema" is the field of optax.EmaState, wherever the optimizer's chain put it.
    arrays = _read_arrays(folder, "optimizer", lambda path: "/ema/" in path)
    if not arrays:
        raise UserError(
            f"The checkpoint {folder} holds no moving average of the parameters: ask for the "
            "parameters themselves, or train with adamw.ema_decay set."
        )
    names = {tuple(path.split("/ema/", 1)[1].split("/")): path for path in arrays}
    return unflatten_dict({name: arrays[path] for name, path in names.items()})


def _read_arrays(folder: Path, name: str, wanted: Callable[[str], bool]) -> dict[str, jax.Array]:
    """Reads and verifies the arrays of one item whose path is wanted, without their shardings."""
    manifest = {path: entry for path, entry in _manifest(folder)[name].items() if wanted(path)}
    handler = ocp.PyTreeCheckpointHandler()
    with _damage(folder):
        structure = handler.metadata(folder / name).tree
        item = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if digests.name(path) in manifest else ocp.PLACEHOLDER,
            structure,
        )
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        tree = handler.restore(folder / name, args=ocp.args.PyTreeRestore(item, as_numpy))
    arrays = digests.paths(tree)
    arrays = {path: jnp.asarray(arrays[path]) for path in manifest if path in arrays}
    _verify(folder, arrays, manifest)
    return arrays


def _manifest(folder: Path) -> dict[str, dict]:
    with _damage(folder):
        return ocp.JsonCheckpointHandler().restore(folder / "manifest")


def _verify(folder: Path, tree: Any, manifest: Mapping[str, dict]) -> None:
    difference = digests.first_difference(digests.manifest(tree), manifest)
    if difference:
        raise DamagedError(f"The checkpoint {folder} is damaged: {difference}.")


@contextlib.contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Turns whatever goes wrong inside into a `DamagedError`."""
    try:
        yield
    except Exception as error:  # Orbax raises plain ones, and many kinds, for unreadable files
        # Its abandoned tasks would print their stack traces after our sentence.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        reason = textwrap.shorten(str(error) or type(error).__name__, 200)
        raise DamagedError(f"The checkpoint {folder} cannot be read: {reason}") from error
