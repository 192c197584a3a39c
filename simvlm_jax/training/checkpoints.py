"""Asynchronous checkpoints that are verified when they are read.

A checkpoint is the folder model_dir/checkpoints/<step> with three Orbax items: `params`,
`optimizer` (the step and the optimizer's state) and `manifest` (see digests.py). Whoever needs
only the parameters reads only them, and need not know the optimizer.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from simvlm_jax.errors import UserError
from simvlm_jax.training import digests
from simvlm_jax.training.reading import (
    DamagedError,
    checkpoints_folder,
    damage,
    read_manifest,
    saved_steps,
    verify,
)
from simvlm_jax.training.state import TrainState, items_of


class Checkpoints:
    """The checkpoints of one run, as a context that never leaves before its last save is done."""

    def __init__(self, model_dir: str | Path, keep: int = 3) -> None:
        """Opens a run's folder, and removes what a killed save left in it.

        Args:
            model_dir: The run's folder; it is made where missing.
            keep: How many of the newest checkpoints stay.

        Raises:
            UserError: If the folder cannot be made.
        """
        self._folder = checkpoints_folder(model_dir)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The folder {self._folder} cannot be made ({error.strerror}): give another "
                "model_dir."
            ) from error
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
        items = items_of(state)
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


def _restore_state(folder: Path, abstract_state: TrainState) -> TrainState:
    manifest, wanted = read_manifest(folder), items_of(abstract_state)
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
        with damage(folder):
            restored[item] = handler.restore(folder / item, args=ocp.args.StandardRestore(tree))
        verify(folder, restored[item], manifest[item])
    return TrainState(params=restored["params"], **restored["optimizer"])
