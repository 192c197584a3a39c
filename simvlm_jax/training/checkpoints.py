"""Asynchronous checkpoints that are verified when they are read.

A checkpoint is the folder model_dir/checkpoints/<step> with three Orbax items: `params`,
`optimizer` (the step and the optimizer's state) and `manifest` (see digests.py). Whoever needs
only the parameters reads only them, and need not know the optimizer.

Where a run has several processes, each writes and reads its part of the arrays; what only one
should do, process 0 does while the others wait.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from simvlm_jax import hosts
from simvlm_jax.errors import LostError, UserError
from simvlm_jax.training import digests, guards, stack_traces
from simvlm_jax.training.keeping import THREE_NEWEST, KeepRules
from simvlm_jax.training.reading import (
    DamagedError,
    agree,
    checkpoints_folder,
    damage,
    read_manifest,
    require_described,
    saved_steps,
    verify,
)
from simvlm_jax.training.state import TrainState, items_of


class SaveError(UserError):
    """A checkpoint could not be written; a person has to make room for it."""


class ManifestHandler(ocp.JsonCheckpointHandler):
    """Writes a manifest in the background, where it also waits for the devices' digests."""

    async def _save_fn(self, x: Mapping[str, Callable[[], dict]], directory: Any) -> None:
        sealed = digests.seal({name: manifest() for name, manifest in x.items()})
        await super()._save_fn(sealed, directory)


@ocp.args.register_with_handler(ManifestHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class ManifestSave(ocp.args.CheckpointArgs):
    """The manifests by item, as `digests.begun_manifest` gives them."""

    item: Mapping[str, Callable[[], dict]]


class Checkpoints:
    """The checkpoints of one run, as a context that never leaves before its last save is done."""

    def __init__(
        self,
        model_dir: str | Path,
        keep: KeepRules = THREE_NEWEST,
        every_steps: int = 1000,
        every_minutes: float | None = None,
    ) -> None:
        """Opens a run's folder, and removes what a killed save left in it.

        Args:
            model_dir: The run's folder; it is made where missing.
            keep: Which checkpoints stay.
            every_steps: Steps between checkpoints.
            every_minutes: One is due too once so much time went by since the last one.

        Raises:
            UserError: If the folder cannot be made, or a number is out of range.
        """
        if every_minutes is not None:
            guards.require_amount("checkpoint_minutes", every_minutes)
        self._folder = checkpoints_folder(model_dir)
        self._keep, self._every_steps, self._every_minutes = keep, every_steps, every_minutes
        self._saved_at = time.monotonic()
        self._failure: SaveError | None = None
        hosts.first_does("open the checkpoints", self._prepare)
        self._manager = _open_manager(self._folder, keep)

    def __enter__(self) -> "Checkpoints":
        """Returns itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Waits for the last save; without this it would be lost without a word.

        Raises:
            SaveError: If it failed.
        """
        if not self._failure:  # else it is said already, and other processes would not come along
            with self._told():
                self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first; all processes must ask."""
        return hosts.first_says("checkpoints", saved_steps(self._folder))

    def last_good(self) -> str:
        """Says where the newest checkpoint is, once pending saves are done."""
        with contextlib.suppress(SaveError):
            self._wait()
        return self._newest()

    def due(self, step: int) -> bool:
        """Whether a step is one of those that have a checkpoint."""
        return step % self._every_steps == 0

    def due_by_time(self) -> bool:
        """Whether the last save was long ago, as process 0 sees it; all processes must ask.

        Raises:
            SaveError: If a save in the background has failed meanwhile.
        """
        if not self._manager.is_saving_in_progress():
            self._wait()
        if self._every_minutes is None:
            return False
        passed = time.monotonic() - self._saved_at
        return hosts.first_says("save is due", passed >= 60 * self._every_minutes)

    def save(self, state: TrainState, metrics: Mapping[str, float] | None = None) -> None:
        """Copies a state off the devices and writes it in the background.

        Args:
            state: What to save.
            metrics: The run's last report, for the rule that keeps the best.

        Raises:
            SaveError: If this save or the one before failed.
            UserError: If the rule's metric is not among them.
        """
        self._keep.require_metric(metrics or {})
        items = items_of(state)
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        begun = {name: digests.begun_manifest(tree) for name, tree in items.items()}
        with self._told():
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(manifest=ManifestSave(begun), **arguments),
                metrics=dict(metrics or {}),
                force=True,
            )
        self._saved_at = time.monotonic()

    def restore_latest(self, abstract_state: TrainState) -> TrainState | None:
        """Restores the newest checkpoint that is whole; says so if it is not the newest one.

        Newer ones that are damaged are moved to model_dir/damaged_checkpoints. All processes take
        the same one: what one of them cannot read, none uses.

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
                _tell(str(error))
                damaged.append(step)
                continue
            if damaged:
                hosts.first_does("set damaged ones aside", lambda: self._set_aside(damaged))
                self._manager.reload()
                _tell(f"Going on from step {step} instead.")
            return state
        if damaged:
            raise UserError(
                f"None of the checkpoints in {self._folder} can be restored: train in another "
                "folder, or bring them back from a copy."
            )
        return None

    def _prepare(self) -> None:
        """Makes the folder, clears it, and sets aside what Orbax would fall over as it opens it."""
        with self._writing_folder():
            self._folder.mkdir(parents=True, exist_ok=True)
        # Orbax would do so in a thread, whose trouble is that of a later save.
        for leftover in self._folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for step in saved_steps(self._folder):
            try:
                require_described(self._folder, step)
            except DamagedError as error:
                _tell(str(error))
                self._set_aside([step])

    def _set_aside(self, steps: list[int]) -> None:
        with self._writing_folder():
            for step in steps:
                target = self._folder.parent / "damaged_checkpoints" / str(step)
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(target)

    @contextlib.contextmanager
    def _writing_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"The folder {self._folder} cannot be made or written to ({error.strerror}): "
                "give another model_dir."
            ) from error

    def _wait(self) -> None:
        with self._told():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns whatever hinders a save into a `SaveError`; after one nothing else is tried."""
        if self._failure:
            raise self._failure
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            if hosts.count() > 1 and not _of_disk(error):
                raise LostError(
                    f"A save was given up, as another process did not come along: "
                    f"{_reason(error)}; start them all again; {self._newest()}."
                ) from error
            self._failure = SaveError(
                f"A checkpoint cannot be written into {self._folder}: {_reason(error)}; make room "
                f"there, or make it a folder that can be written, and start again; "
                f"{self._newest()}."
            )
            raise self._failure from error

    def _newest(self) -> str:
        steps = saved_steps(self._folder)
        where = f"the last good checkpoint is {self._folder / str(steps[-1])}" if steps else ""
        return where or "there is no checkpoint yet"


def _open_manager(folder: Path, keep: KeepRules) -> ocp.CheckpointManager:
    stack_traces.mute()
    return ocp.CheckpointManager(
        folder,
        options=ocp.CheckpointManagerOptions(
            # In the background, the writers of arrays would wait for minutes for a folder that
            # cannot be made.
            async_options=ocp.options.AsyncOptions(
                create_directories_asynchronously=False, barrier_sync_fn=_barrier()
            ),
            **keep.options(),
        ),
    )


def _barrier() -> Callable:
    """Orbax's own, where a process whose save has failed does not wait for the others.

    They stand at another one: Orbax's background threads would wait for each other for 20 minutes.
    """
    meet = ocp.multihost.get_barrier_sync_fn()

    def wait(*, key: str, timeout_ms: int) -> None:
        if sys.exception() is None:
            meet(key=key, timeout_ms=timeout_ms)

    return wait


def _of_disk(error: Exception) -> bool:
    """Whether the operating system refused to write, and not another process or a device."""
    # These are kinds of OSError, too: a process that starts again clears what others still write.
    others = (ConnectionError, TimeoutError, FileNotFoundError)
    refused = isinstance(error, OSError) and not isinstance(error, others)
    return refused or "os_error_code" in str(error)


def _reason(error: Exception) -> str:
    """What the operating system says, where an error holds it, and else all of it, shortened."""
    number = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's
    if number:
        return os.strerror(int(number[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return textwrap.shorten(str(error) or type(error).__name__, 300).rstrip(".")


def _tell(sentence: str) -> None:
    if hosts.is_first():
        print(sentence, file=sys.stderr)


def _restore_state(folder: Path, abstract_state: TrainState) -> TrainState:
    """Reads a state on all processes together, and verifies it once all have read their part."""
    wanted = items_of(abstract_state)
    manifest, restored = agree("restore", lambda: _read_items(folder, wanted))
    # A digest is computed by all processes together: none could finish it alone.
    agree("verify", lambda: [verify(folder, restored[item], manifest[item]) for item in wanted])
    return TrainState(params=restored["params"], **restored["optimizer"])


def _read_items(folder: Path, wanted: Mapping[str, Any]) -> tuple[dict, dict]:
    manifest = read_manifest(folder)
    for item, tree in wanted.items():
        difference = digests.first_difference(manifest[item], digests.layout(tree))
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
    return manifest, restored
