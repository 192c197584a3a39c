"""One prepared split of a data set: where its files lie, and whether they are whole.

`<data_dir>/<name>/` holds the shards and, for each --split that was asked for, a summary, a report
and a list of refused records. What is not finished lies in a hidden folder beside them.
"""

import contextlib
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from simvlm_jax.data.preparing.work import alone, file_digest, write_whole
from simvlm_jax.data.summary import (
    SUMMARY_PATTERN,
    WORKING_PREFIX,
    files_of,
    package_versions,
)
from simvlm_jax.errors import UserError
from simvlm_jax.json_files import read_object

DIGEST = "input_digest"  # among the settings: of the input's files
PACKAGES = ("pillow", "sentencepiece", "array_record", "tensorflow")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.\w+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class DataSet:
    """A split of a data set, prepared or to be prepared.

    Attributes:
      folder: where its files lie.
      split: its name.
    """

    def __init__(self, data_dir: Path, name: str, split: str):
        """Names the split.

        Raises:
          UserError: a name is none that a file can safely have.
        """
        for flag, value in (("name", name), ("split", split)):
            if not NAME.fullmatch(value) or ".." in value:
                raise UserError(
                    f"--{flag}={value!r} is no name: use letters, digits, '_', '-' and '.', "
                    "beginning with a letter or a digit."
                )
        self.folder, self.split = data_dir / name, split

    @property
    def summary_path(self) -> Path:
        """Where the summary is; it is written last, so a split that has it is complete."""
        return self.folder / SUMMARY_PATTERN.replace("*", self.split)

    def file(self, name: str) -> Path:
        """Returns the path of a file beside the shards: `report.html` gives report-train.html."""
        stem, _, suffix = name.partition(".")
        return self.folder / f"{stem}-{self.split}.{suffix}"

    def finished(self, settings: Mapping, splits: tuple[str, ...]) -> dict | None:
        """Looks for an earlier run.

        Args:
          settings: what the data depends on.
          splits: the splits that this preparation writes.

        Returns:
          Its summary, or None where there is none or its files are damaged.

        Raises:
          UserError: the earlier run had other settings, or the files come from elsewhere.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; choose another --name.")
        self._check_owners(splits)
        try:
            found = read_object(self.summary_path)
        except UserError:
            return None
        before, files = found.get("settings"), files_of(found)
        if not isinstance(before, dict) or not files:
            return None
        asked = json.loads(json.dumps(settings))  # tuples become lists, as in the summary
        self._check_settings(_flat(before), _flat(asked))
        damaged = [
            name
            for name, digest in files.items()
            if not (self.folder / name).is_file() or file_digest(self.folder / name) != digest
        ]
        if damaged:
            print(f"Damaged: {', '.join(damaged)}; preparing again.", file=sys.stderr)
        return None if damaged else found

    @contextlib.contextmanager
    def working(self, key: Mapping) -> Iterator[Path]:
        """Gives the folder in which an unfinished preparation keeps what is done.

        Args:
          key: all that the work depends on; what was done under another key is thrown away.

        Raises:
          UserError: another process works there, or it cannot be written.
        """
        root = self.folder / f"{WORKING_PREFIX}{self.split}"
        with alone(root):
            digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
            for other in root.iterdir():
                if other.is_dir() and other.name != digest:
                    print(
                        "An unfinished run had other settings or another input; it is thrown away.",
                        file=sys.stderr,
                    )
                    shutil.rmtree(other)
            stage = root / digest
            stage.mkdir(exist_ok=True)
            yield stage
        if self.summary_path.exists():
            shutil.rmtree(root)

    def install(self, shards: Path, facts: list[dict], summary: Mapping) -> dict:
        """Moves finished shards to their places and writes the summary.

        Args:
          shards: the folder in which they are.
          facts: `name`, `records`, `bytes` and `sha256` of each.
          summary: what else to say of the data.

        Returns:
          The complete summary.
        """
        self.summary_path.unlink(missing_ok=True)
        splits = {SHARD.fullmatch(fact["name"])[1] for fact in facts}
        for name, split in self._shards().items():  # of a run that was killed here
            if split in splits:
                (self.folder / name).unlink()
        for fact in facts:
            (shards / fact["name"]).replace(self.folder / fact["name"])
        files = {fact.pop("name"): fact for fact in facts}
        complete = {**summary, "packages": package_versions(PACKAGES), "files": files}
        text = json.dumps(complete, indent=2, ensure_ascii=False)
        write_whole(self.summary_path, f"{text}\n".encode())
        return json.loads(text)

    def _shards(self) -> dict[str, str]:
        names = (path.name for path in self.folder.iterdir())
        return {name: found[1] for name in names if (found := SHARD.fullmatch(name))}

    def _check_settings(self, before: Mapping, settings: Mapping) -> None:
        where = f"The split {self.split} in {self.folder}"
        for name in sorted({*before, *settings} - {DIGEST}):
            if before.get(name) != settings.get(name):
                raise UserError(
                    f"{where} was prepared with {name}={before.get(name)}, not "
                    f"{name}={settings.get(name)}; choose another --name, or delete the folder."
                )
        if before.get(DIGEST) != settings.get(DIGEST):
            raise UserError(
                f"{where} was prepared before its input changed; choose another --name, or delete "
                "the folder."
            )

    def _check_owners(self, splits: tuple[str, ...]) -> None:
        """Refuses a folder whose shards no summary names: another tool's, or another split's."""
        if not self.folder.is_dir():
            return
        owned: dict[str, str] = {}
        for path in self.folder.glob(SUMMARY_PATTERN):
            with contextlib.suppress(UserError):
                owned |= dict.fromkeys(files_of(read_object(path)), path.name)
        for name, split in self._shards().items():
            owner = owned.get(name)
            if owner is None and not any(self.folder.glob(f"{WORKING_PREFIX}*")):
                raise UserError(
                    f"{self.folder / name} was not prepared by this command; choose another --name."
                )
            if owner not in (None, self.summary_path.name) and split in splits:
                raise UserError(
                    f"The split {split} is in {self.folder} already, by {owner}; choose "
                    "another --name or --split."
                )


def _flat(settings: Mapping) -> dict:
    flat = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat
