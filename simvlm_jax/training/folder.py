"""The plain files of a run's folder, written so that a kill leaves the old or the new, whole."""

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simvlm_jax import hosts
from simvlm_jax.data import pieces
from simvlm_jax.errors import UserError, writing
from simvlm_jax.json_files import parse_object, read_bounded

# What the parameters mean depends on these: a run cannot go on with others.
FIXED_FILES = ("model_config.json", "vocabulary.model")
LARGEST = {FIXED_FILES[0]: 1 << 20, FIXED_FILES[1]: pieces.LARGEST}  # bytes
LOCK, LOCK_SECONDS = ".lock", 100
VOCABULARY_DIGEST = "vocabulary_sha256"  # in the first of them, of the second


def model_files(model: Any) -> dict[str, bytes]:
    """The `FIXED_FILES` of a run on the prepared data: all that captioning needs but arrays.

    Args:
        model: Offers `to_json` and `config.vocabulary_size`.

    Returns:
        File names and contents.

    Raises:
        UserError: If the vocabulary has ids that the model has no row for.
    """
    from simvlm_jax.data.vocabulary import default_vocabulary  # brings TensorFlow

    vocabulary = default_vocabulary()
    ids, rows = vocabulary.vocab_size, model.config.vocabulary_size
    if ids > rows:
        raise UserError(
            f"The prepared vocabulary has {ids} ids, sentinels included, and the model only "
            f"{rows} rows: set VOCABULARY_SIZE to {ids} or more."
        )
    values = model.to_json() | {VOCABULARY_DIGEST: digest_of(vocabulary.sp_model)}
    contents = json.dumps(values, indent=2).encode(), vocabulary.sp_model
    return dict(zip(FIXED_FILES, contents, strict=True))


def digest_of(content: bytes) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file under another name and renames it, so that nobody ever reads half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def require_shared(model_dir: str | Path) -> Path:
    """Makes a run's folder, and checks that all processes have the same one; all must call it.

    Raises:
        UserError: If it cannot be made, is in a bucket, or is another folder for some process.
    """
    if "://" in str(model_dir):
        raise UserError(
            f"model_dir={model_dir} is not a folder: mount a disk that all hosts share (NFS), and "
            "give the path that all have it under."
        )
    folder, token = Path(model_dir), f".shared-{secrets.token_hex(8)}"
    hosts.first_does("make the run's folder", lambda: _put_token(folder / token))
    token = hosts.first_says("the token", token)
    seen = hosts.gather("the shared folder", (socket.gethostname(), (folder / token).is_file()))
    if hosts.is_first():
        (folder / token).unlink()
    if blind := next((host for host, sees in seen if not sees), None):
        raise UserError(
            f"The folder {model_dir} on {blind} is not that of {seen[0][0]}: give one on a disk "
            "that all hosts share."
        )
    return folder


@contextlib.contextmanager
def locked(model_dir: str | Path) -> Iterator[None]:
    """Lets nobody else train in a folder meanwhile; all processes of a run must enter it.

    Raises:
        UserError: If somebody does, also after `LOCK_SECONDS`: a file server frees what a dead
            host held only after a while.
    """
    with contextlib.ExitStack() as stack:
        hosts.first_does("lock the folder", lambda: stack.enter_context(_lock(Path(model_dir))))
        yield


@contextlib.contextmanager
def _lock(model_dir: Path) -> Iterator[None]:
    deadline, busy = time.monotonic() + LOCK_SECONDS, f"Another process trains in {model_dir}"
    with (model_dir / LOCK).open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{busy}: let it end, or give another model_dir.") from None
                print(f"{busy}; waiting for its end.", file=sys.stderr)
            except OSError as error:  # not every file system knows locks
                print(f"{model_dir} cannot be locked ({error.strerror}).", file=sys.stderr)
                break
            time.sleep(LOCK_SECONDS / 10)
        yield


def _put_token(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(
            f"The folder {path.parent} cannot be made or written to ({error.strerror}): give "
            "another model_dir."
        ) from error


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
    """Writes files, named relative to the folder, and tells where one of them was another.

    Raises:
        UserError: If the folder cannot be written.
    """
    for name, content in files.items():
        path = model_dir / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_bytes() if path.is_file() else None
            if before not in (None, content):
                print(f"{name} changes: {_changes(before, content)}", file=sys.stderr)
            if before != content:
                write_atomic(path, content)


def _changes(before: bytes, after: bytes) -> str:
    """The first lines that differ: "- old, + new, ..."."""
    texts = (text.decode("utf-8", "replace").splitlines() for text in (before, after))
    lines = [line for line in difflib.ndiff(*texts) if line[0] in "+-" and line[1:].strip()]
    return ", ".join(" ".join(line.split()) for line in lines[:6]) + ", ..." * (len(lines) > 6)


def read_file(model_dir: str | Path, name: str) -> bytes:
    """Reads a file of a trained run's folder.

    Raises:
        UserError: If there is no such folder, or it does not hold the file, or one that is larger
            than such a file can be.
    """
    path = Path(model_dir) / name
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {model_dir}: give the model_dir of a trained model.")
    if not path.is_file():
        raise UserError(f"{model_dir} holds no {name}: give the model_dir of a trained model.")
    try:
        return read_bounded(path, LARGEST[name])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def read_config(model_dir: str | Path) -> dict[str, Any]:
    """Reads a trained run's model_config.json, of which `kinds.open_model` makes a model.

    Raises:
        UserError: If it is missing or no JSON object.
    """
    name = FIXED_FILES[0]
    return parse_object(read_file(model_dir, name), Path(model_dir) / name)
