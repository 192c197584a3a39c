"""What a user points at: files of a known format, opened as records that are read by index."""

import dataclasses
import functools
import glob
import hashlib
import importlib
import json
import os

import numpy as np

from simvlm_jax.data.sources import ArrayRecordSource, Records, RecordSource
from simvlm_jax.errors import UserError

SUFFIXES = {
    "array_record": (".array_record", ".arrayrecord"),
    "tfrecord": (".tfrecord", ".tfrecords"),
    "webdataset": (".tar",),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".json.gz", ".jsonl.zst"),
    "csv": (".csv", ".tsv"),
    "text": (".txt", ".txt.gz", ".txt.zst"),
    "folder": (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
}
NAMED = ("jsonl", "csv", "parquet")  # their fields may have any name, and are read by name
EXAMPLES = ("array_record", "tfrecord")  # records are what the files hold, with all their fields
IMAGE, CAPTION, TEXT = "image/encoded", "caption", "text"
SPLIT = "train"  # a source wants one; an input has just one


@dataclasses.dataclass(frozen=True)
class Input:
    """A path and how to read it; small and picklable, so that every process opens its own.

    Attributes:
      path: a file, a folder or a pattern such as `data/*.tar`.
      format: one of SUFFIXES, or "auto" to go by the files' names.
      image_field: the feature, the column or the field with the image's path; None for the usual
        name, "" if there are only texts.
      text_field: the feature, column or field of the caption or the document.
      keep: further text fields.
      separator: of documents in plain text: "line" or "blank" (lines).
    """

    path: str
    format: str = "auto"
    image_field: str | None = None
    text_field: str = CAPTION
    keep: tuple[str, ...] = ()
    separator: str = "line"

    @functools.cached_property
    def kind(self) -> str:
        """The format, found by the files' names if it is not given.

        Raises:
          UserError: it is none that is known.
        """
        if self.format not in ("auto", *SUFFIXES):
            raise UserError(
                f"There is no format {self.format!r}; use one of auto, {', '.join(SUFFIXES)}."
            )
        return self.format if self.format != "auto" else _guess(self.path)

    @property
    def image_name(self) -> str:
        """The feature of the records that holds the image."""
        return self.image_field or IMAGE if self.kind in EXAMPLES else IMAGE

    @property
    def text_name(self) -> str:
        """The feature of the records that holds the text."""
        if self.kind == "folder" or (self.kind == "webdataset" and not self.text_field):
            return CAPTION
        only_text = self.kind == "jsonl" and self.image_field == ""
        return TEXT if only_text or self.kind == "text" else self.text_field

    def open(self) -> Records:
        """Opens the records.

        Raises:
          UserError: there is nothing, or nothing of a known format, at the path.
        """
        if "://" in self.path:
            return make_source(self).random_access(SPLIT)
        if self.kind == "folder":
            files = [os.path.abspath(name) for name in _there(self.path)]
        else:
            files = _files(self.path, self.kind)
        return make_source(self).open(files)


def make_source(wanted: Input) -> RecordSource:
    """Makes the source of an input's format; its records have `image_name` and `text_name`."""
    import tensorflow as tf

    path, kind = wanted.path, wanted.kind
    names = [] if wanted.image_field == "" else [IMAGE]
    features = dict.fromkeys(
        [*names, wanted.text_name, *wanted.keep], tf.io.FixedLenFeature([], tf.string)
    )
    place, image = {SPLIT: path}, wanted.image_field or "image"
    if kind == "array_record":
        return ArrayRecordSource(path, [SPLIT], {})
    if kind == "tfrecord":
        return _source("tfrecord", "TFRecordSource")(path, place, {})
    if kind == "webdataset":
        json = [name for name in features if name not in (IMAGE, CAPTION)]
        return _source("webdataset", "WebDatasetSource")(path, place, features, json=json)
    if kind == "parquet":
        return _source("parquet", "ParquetSource")(path, place, features, {IMAGE: image})
    if kind == "folder":
        # Its metadata, if there are any, call the caption `text` unless told otherwise.
        fields = {} if wanted.text_field in ("", CAPTION) else {CAPTION: wanted.text_field}
        return _source("folder", "FolderSource")(path, place, features, fields)
    if wanted.text_name == TEXT and (kind == "text" or wanted.image_field == ""):
        field = None if kind == "text" else wanted.text_field
        return _source("text", "TextSource")(path, place, field, wanted.separator)
    if kind == "jsonl":
        return _source("json_lines", "JSONLinesSource")(path, place, features, None, image)
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    return _source("csv_rows", "CSVSource")(path, place, features, None, image, delimiter=delimiter)


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


def spread(count: int, sample: int) -> np.ndarray:
    """Returns at most `sample` distinct indices that are spread evenly over `count` records."""
    return np.arange(min(count, sample)) * count // min(count, sample)


def record_id(shard: str, key: str) -> int:
    """Returns a record's number: 63 bits of a hash of its name.

    By its name and not its place, so that it stays when files are added or filters change.
    """
    digest = hashlib.blake2b(f"{shard}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _source(module: str, name: str):
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
    found = [path] if "://" in path else _there(path)
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
