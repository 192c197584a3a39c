"""What a user points at: files of a known format, opened as records that are read by index."""

import dataclasses
import glob
import hashlib
import json
import os
from pathlib import Path

from simvlm_jax.data.sources import ArrayRecordSource, Records, RecordSource
from simvlm_jax.errors import UserError

SUFFIXES = {
    "array_record": (".array_record", ".arrayrecord"),
    "tfrecord": (".tfrecord", ".tfrecords"),
    "webdataset": (".tar",),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv", ".tsv"),
    "text": (".txt",),
    "folder": (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
}
IMAGE, CAPTION = "image/encoded", "caption"


@dataclasses.dataclass(frozen=True)
class Input:
    """A path and how to read it; small and picklable, so that every process opens its own.

    Attributes:
      path: a file, a folder or a pattern such as `data/*.tar`.
      format: one of SUFFIXES, or "auto" to go by the files' names.
      image_field: where the image is: a feature, a column, or the column of its path.
      text_field: where the caption or the document is.
    """

    path: str
    format: str = "auto"
    image_field: str = IMAGE
    text_field: str = CAPTION

    def open(self) -> Records:
        """Opens the records.

        Raises:
          UserError: there is nothing, or nothing of a known format, at the path.
        """
        if self.format not in ("auto", *SUFFIXES):
            raise UserError(
                f"There is no format {self.format!r}; use one of auto, {', '.join(SUFFIXES)}."
            )
        kind = self.format if self.format != "auto" else _guess(self.path)
        return open_input(self.path, kind, self.image_field, self.text_field)


def open_input(path: str, kind: str, image_field: str, text_field: str) -> Records:
    """Opens what lies at a path by the source of its format.

    Args:
      path: a file, a folder or a pattern.
      kind: one of SUFFIXES.
      image_field: as in `Input`.
      text_field: as in `Input`.

    Returns:
      Its records. Formats that name their columns give the image and the text these very names.
    """
    splits, fields = ("train",), [text_field]
    if kind == "folder":
        _there(path)
        return _source("folder", "FolderSource")(path, splits).open([path])
    files = _files(path, kind)
    folder = str(Path(files[0]).parent)
    if kind == "array_record":
        source: RecordSource = ArrayRecordSource(path, splits, {})
    elif kind == "tfrecord":
        source = _source("tfrecord", "TFRecordSource")(path, splits, {})
    elif kind == "webdataset":
        source = _source("webdataset", "WebDatasetSource")(path, splits, text=text_field, json={})
    elif kind == "parquet":
        columns = {image_field: image_field, text_field: text_field}
        source = _source("parquet", "ParquetSource")(path, splits, {}, columns)
    elif kind == "text":
        source = _source("text", "TextSource")(path, splits, text_field, "\n\n")
    else:
        maker = _source("tables", "JSONLinesSource" if kind == "jsonl" else "CSVSource")
        source = maker(path, splits, {}, folder, image_field, fields)
    return source.open(files)


def fingerprint(records: Records) -> str:
    """Returns a digest that changes when files are added, removed, moved or written again."""
    facts: list = [list(records.ends)]
    for shard in records.shards:
        try:
            status = os.stat(shard)
            facts.append([shard, status.st_size, status.st_mtime_ns])
        except OSError:  # a shard need not be a local file
            facts.append([shard])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def relative_shards(records: Records) -> list[str]:
    """Returns the shards' names as seen from their common folder, so that moving it is allowed."""
    if len(records.shards) == 1:
        return [os.path.basename(records.shards[0].rstrip("/"))]
    common = os.path.commonpath([os.path.dirname(shard) for shard in records.shards])
    return [os.path.relpath(shard, common or ".") for shard in records.shards]


def record_id(shard: str, key: str) -> int:
    """Returns a record's number: 63 bits of a hash of its name.

    By its name and not its place, so that it stays when files are added or filters change.
    """
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _source(module: str, name: str):
    import importlib

    try:
        return getattr(importlib.import_module(f"simvlm_jax.data.sources.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != f"simvlm_jax.data.sources.{module}":
            raise
        raise UserError(f"This installation has no {name} to read the format.") from error


def _there(path: str) -> list[str]:
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not found and os.path.exists(path):
        found = [path]
    if not found:
        raise UserError(f"There is nothing at --input={path}; give a file, a folder or a pattern.")
    return found


def _inside(folder: str) -> list[str]:
    return sorted(
        os.path.join(where, name)
        for where, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )


def _files(path: str, kind: str) -> list[str]:
    found = _there(path)
    if len(found) == 1 and os.path.isdir(found[0]):
        inside = _inside(found[0])
        found = [name for name in inside if name.lower().endswith(SUFFIXES[kind])]
        if not found:
            raise UserError(f"The folder {path} has no {kind} file (*{SUFFIXES[kind][0]}).")
    return [os.path.abspath(name) for name in found]


def _guess(path: str) -> str:
    found = _there(path)
    is_folder = len(found) == 1 and os.path.isdir(found[0])
    names = [name.lower() for name in (_inside(found[0]) if is_folder else found)]
    for kind, suffixes in SUFFIXES.items():
        # A folder of images may hold texts beside them; a list of its images comes first.
        if kind == "text" and is_folder and any(n.endswith(SUFFIXES["folder"]) for n in names):
            continue
        if any(name.endswith(suffixes) for name in names):
            return kind
    raise UserError(
        f"No file of a known format is at --input={path}; name it with --format, one of "
        f"{', '.join(SUFFIXES)}."
    )
