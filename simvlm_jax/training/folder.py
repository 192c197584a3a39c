"""The plain files of a run's folder, written so that a kill leaves the old or the new, whole."""

import os
from collections.abc import Mapping
from pathlib import Path

from simvlm_jax.errors import UserError

# What the parameters mean depends on these: a run cannot go on with others.
FIXED_FILES = ("model_config.json", "vocabulary.model")


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file under another name and renames it, so that nobody ever reads half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def require_same_files(model_dir: Path, files: Mapping[str, bytes]) -> None:
    """Compares the files that must not change while a folder holds checkpoints.

    Raises:
        UserError: If one of `FIXED_FILES` is missing in the folder or has other content.
    """
    for name in FIXED_FILES:
        path = model_dir / name
        if name in files and not (path.is_file() and path.read_bytes() == files[name]):
            raise UserError(
                f"{name} does not match the checkpoints in {model_dir}: use the one they were "
                "trained with, or another model_dir."
            )


def write_files(model_dir: Path, files: Mapping[str, bytes]) -> None:
    """Writes files, named relative to the folder, where their content is not there yet."""
    for name, content in files.items():
        path = model_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (path.is_file() and path.read_bytes() == content):
            write_atomic(path, content)


def read_file(model_dir: str | Path, name: str) -> bytes:
    """Reads a file of a trained run's folder.

    Raises:
        UserError: If there is no such folder, or it does not hold the file.
    """
    path = Path(model_dir) / name
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {model_dir}: give the model_dir of a trained model.")
    if not path.is_file():
        raise UserError(f"{model_dir} holds no {name}: give the model_dir of a trained model.")
    return path.read_bytes()
