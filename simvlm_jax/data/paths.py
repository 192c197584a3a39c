"""Where prepared data lies, and how its shards are named."""

import os
import re
from pathlib import Path

from simvlm_jax.errors import UserError

DATA_DIR_VARIABLE = "SIMVLM_DATA_DIR"
DEFAULT_DATA_DIR = "data"
VOCABULARY_NAME = "vocabulary.model"
SUMMARY_NAME = "dataset.json"
PREPARE_COMMAND = "simvlm prepare openmoji"


def data_dir() -> Path:
    """Returns the folder of prepared data: $SIMVLM_DATA_DIR, or `data` where it is not set.

    It is read at every call, so that importing a task never fixes the place.
    """
    return Path(os.environ.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR)


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the file name of one shard: `train-00002-of-00004.array_record`."""
    return f"{split}-{index:05d}-of-{count:05d}.array_record"


def shard_paths(folder: Path, split: str) -> list[Path]:
    """Lists the shards of a split in their order.

    Args:
      folder: the folder that holds the shards.
      split: the split's name, the part before the first shard number.

    Returns:
      All shards, ordered by number.

    Raises:
      UserError: the folder is missing, has no such split, or lacks one of the split's shards.
    """
    if not folder.is_dir():
        raise UserError(
            f"There is no data folder {folder}; run `{PREPARE_COMMAND}` or set "
            f"{DATA_DIR_VARIABLE} to the folder that has the data."
        )
    pattern = re.compile(re.escape(split) + r"-(\d{5})-of-(\d{5})\.array_record")
    found = sorted((match, path) for path in folder.iterdir() if (match := _numbers(pattern, path)))
    if not found:
        raise UserError(
            f"The data folder {folder} has no split named {split!r}: expected files like "
            f"{shard_name(split, 0, 1)}; run `{PREPARE_COMMAND}`."
        )
    count = found[0][0][1]
    if [numbers for numbers, _ in found] != [(index, count) for index in range(count)]:
        raise UserError(
            f"The split {split!r} in {folder} should have {count} shards and has "
            f"{[path.name for _, path in found]}; delete the folder and run `{PREPARE_COMMAND}`."
        )
    return [path for _, path in found]


def _numbers(pattern: re.Pattern[str], path: Path) -> tuple[int, int] | None:
    match = pattern.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else None
