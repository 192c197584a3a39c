"""Verifies checkpoints on disk, ours and T5X's, in memory for a few arrays at a time."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    tree_layout,
)
from simvlm_jax.training.state import ITEMS

MOST_BYTES = 2**28  # read together; an array that is larger is read alone
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
    t5x = (folder / t5x_format.STATE).is_dir()
    described = not t5x or t5x_format.is_described(folder)
    count, trouble = 0, []
    try:
        items = t5x_format.ITEMS if t5x else ITEMS
        state = folder / t5x_format.STATE
        for found in _described(folder, items) if described else _foreign(state):
            count, total, sentence = found
            progress(f"step {step}", count, total)
            trouble += [sentence] if sentence else []
    except DamagedError as error:
        trouble.append(str(error))
    state = DAMAGED if trouble else VERIFIED if described else NO_DIGESTS
    return Verdict(str(folder), step, size, count, state, tuple(trouble))


def first_trouble(folder: Path, part: slice) -> str | None:
    """Says what is damaged first in a part of a T5X checkpoint's arrays, and reads no further.

    Args:
        folder: Of the checkpoint; it must have a manifest.
        part: Of its arrays; another process may read another.
    """
    try:
        looked_at = _described(folder, t5x_format.ITEMS, part)
        return next((sentence for *_, sentence in looked_at if sentence), None)
    except DamagedError as error:
        return str(error)


def _described(
    folder: Path, items: Sequence[str], part: slice = slice(None)
) -> Iterator[tuple[int, int, str | None]]:
    """Yields (which array, how many there are, what is wrong with it)."""
    whole = read_manifest(folder, items)
    manifest = {item: dict([*whole[item].items()][part]) for item in items}
    count, total = 0, sum(map(len, manifest.values()))
    for item in items:
        for path, array, sentence in _arrays(folder / item, manifest[item]):
            count += 1
            if sentence is None:
                found = digests.manifest({path: jnp.asarray(array)})
                wanted = {path: manifest[item][path]}
                difference = digests.first_difference(found, wanted)
                sentence = difference and f"{item}/{difference}"
            yield count, total, sentence


def _foreign(folder: Path) -> Iterator[tuple[int, int, str | None]]:
    layout = tree_layout(folder)
    for count, (path, array, sentence) in enumerate(_arrays(folder, layout), 1):
        if sentence is None and not np.all(np.isfinite(np.asarray(array, np.float32))):
            sentence = f"{path} is not finite"
        yield count, len(layout), sentence


def _arrays(
    folder: Path, layout: Mapping[str, dict]
) -> Iterator[tuple[str, np.ndarray | None, str | None]]:
    """Yields the arrays of an item: (path, array, what is wrong with it).

    Orbax reads all descriptions for any array, so arrays are read in groups.
    """
    group, size = [], 0
    for path, entry in layout.items():
        bytes_of = math.prod(entry["shape"]) * jnp.dtype(entry["dtype"]).itemsize
        if group and size + bytes_of > MOST_BYTES:
            yield from _read(folder, group)
            group, size = [], 0
        group.append(path)
        size += bytes_of
    yield from _read(folder, group)


def _read(
    folder: Path, paths: Sequence[str]
) -> Iterator[tuple[str, np.ndarray | None, str | None]]:
    """Reads a group; where that fails, its halves, down to the arrays that are damaged."""
    try:
        found = read_tree(folder, set(paths).__contains__)
    except DamagedError as error:
        if len(paths) == 1:
            yield paths[0], None, f"{folder.name}/{paths[0]}: {error}"
            return
        middle = len(paths) // 2
        yield from _read(folder, paths[:middle])
        yield from _read(folder, paths[middle:])
        return
    for path in paths:
        missing = None if path in found else f"{folder.name}/{path} is not in it"
        yield path, found.pop(path, None), missing
