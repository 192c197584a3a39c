"""Verifies checkpoints on disk, ours and T5X's, one array at a time."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from simvlm_jax.errors import UserError
from simvlm_jax.training import digests, t5x_format
from simvlm_jax.training.reading import (
    DamagedError,
    checkpoints_folder,
    read_manifest,
    read_tree,
    saved_steps,
    tree_paths,
)
from simvlm_jax.training.state import ITEMS

VERIFIED, DAMAGED, NO_DIGESTS = "verified", "damaged", "no digests"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found in one checkpoint.

    Attributes:
        folder: Where it is.
        step: Its step.
        bytes: Of all its files.
        arrays: How many it should hold, as far as that is known.
        state: `VERIFIED`; `DAMAGED`; or `NO_DIGESTS`: all arrays can be read and are finite, and
            nothing says what they were.
        trouble: What is damaged, one sentence each.
    """

    folder: str
    step: int
    bytes: int
    arrays: int
    state: str
    trouble: tuple[str, ...] = ()


def find(where: str | Path, step: int | None = None) -> list[tuple[int, Path]]:
    """Finds checkpoints, oldest first.

    Args:
        where: A run's folder, ours or T5X's, or the folder of one checkpoint.
        step: Only this one.

    Returns:
        Their steps and folders.

    Raises:
        UserError: If there is none.
    """
    where = Path(where).absolute()
    number = where.name.removeprefix(f"{t5x_format.STEP_PREFIX}_")
    holds_one = any((where / item).exists() for item in (*ITEMS, "manifest", "state"))
    if holds_one and number.isdecimal():
        found = [(int(number), where)]
    else:
        own = checkpoints_folder(where)
        found = [(one, own / str(one)) for one in saved_steps(own)]
        found += [(one, t5x_format.folder(where, one).parent) for one in t5x_format.steps(where)]
    chosen = [one for one in found if step in (None, one[0])]
    if not chosen:
        which = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        steps = f", only of {[one for one, _ in found]}" if found else ""
        raise UserError(f"There is {which} in {where}{steps}: give the model_dir of a run.")
    return chosen


def verify(step: int, folder: Path, progress: Callable[[str, int, int], None]) -> Verdict:
    """Reads a checkpoint's arrays one after the other and compares what they hold.

    Args:
        step: Its step.
        folder: Where it is.
        progress: Is told (what, done, total).
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    own = not (folder / "state").is_dir()
    count, trouble = 0, []
    try:
        for found in _own(folder) if own else _t5x(folder / "state"):
            count, total, sentence = found
            progress(f"step {step}", count, total)
            trouble += [sentence] if sentence else []
    except DamagedError as error:
        trouble.append(str(error))
    state = DAMAGED if trouble else VERIFIED if own else NO_DIGESTS
    return Verdict(str(folder), step, size, count, state, tuple(trouble))


def _own(folder: Path) -> Iterator[tuple[int, int, str | None]]:
    """Yields (which array, how many there are, what is wrong with it)."""
    manifest = read_manifest(folder)
    wanted = [(item, path, manifest[item][path]) for item in ITEMS for path in manifest[item]]
    for count, (item, path, entry) in enumerate(wanted, 1):
        array, sentence = _read(folder / item, path)
        if array is None:
            yield count, len(wanted), sentence or f"{item}/{path} is not in it"
            continue
        found = digests.manifest({path: jnp.asarray(array)})
        difference = digests.first_difference({path: next(iter(found.values()))}, {path: entry})
        yield count, len(wanted), f"{item}/{difference}" if difference else None


def _t5x(folder: Path) -> Iterator[tuple[int, int, str | None]]:
    wanted = tree_paths(folder)
    for count, path in enumerate(wanted, 1):
        array, sentence = _read(folder, path)
        if array is not None and not np.all(np.isfinite(np.asarray(array, np.float32))):
            sentence = f"{path} is not finite"
        yield count, len(wanted), sentence


def _read(folder: Path, path: str) -> tuple[np.ndarray | None, str | None]:
    """An array, or what is wrong with it."""
    try:
        return read_tree(folder, lambda name: name == path).get(path), None
    except DamagedError as error:
        return None, f"{folder.name}/{path}: {error}"
