"""Benchmarks' own annotation files, unchanged: turned into rows once, then read by index.

Each benchmark has a format of its own, and most hold a whole split in one JSON value. So each has
a function that reads the official files in one pass and yields a row for every example, in the
official order. The rows go into the cache as JSON lines and are read there like any others, in
eight bytes of memory each. The cache knows the files by their sizes and times: what changes is
read again.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from simvlm_jax.data.paths import DATA_DIR_VARIABLE, data_dir
from simvlm_jax.data.sources.base import BadRecord, Features, Records, RecordSource, Unreadable
from simvlm_jax.data.sources.cached_text import cached_text
from simvlm_jax.data.sources.encoding import ABSENT, check_features, encode
from simvlm_jax.data.sources.files import (
    CACHE_DIR_VARIABLE,
    cache_path,
    reason,
    written_atomically,
)
from simvlm_jax.data.sources.json_lines import parse_object
from simvlm_jax.data.sources.lines import decode, first_line, line_starts, read_span
from simvlm_jax.data.sources.named_files import Folder, open_folder
from simvlm_jax.data.sources.shards import FileShard, KnownFile, ShardRecords
from simvlm_jax.errors import UserError

Row = dict[str, Any]
FAULT = "fault"  # of a row that stands in the place of an example that cannot be used: why
KIND, VERSION = "rows", 1  # the version changes with what any function makes of the same files
IMAGE_SUFFIX = "/encoded"  # of features that hold the content of a file that the row names
PACKED = ".gz"


@dataclasses.dataclass(frozen=True)
class OfficialSplit:
    """One split of a benchmark.

    Attributes:
      files: official annotation files, relative to the data folder; each may lie there packed,
        with .gz behind its name.
      rows: called with their paths (unpacked) and the options; yields a row for every example. A
        row {FAULT: cause} keeps the place of one that cannot be used.
      options: of `rows`.
      folders: whether `files` are folders of files.
    """

    files: tuple[str, ...]
    rows: Callable[..., Iterator[Row]]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folders: bool = False


class OfficialSource(RecordSource):
    """Records of a benchmark's own files, with images in folders of their own."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, OfficialSplit],
        features: Features,
        image_folders: Sequence[str] = (),
        fields: Mapping[str, str] | None = None,
    ):
        """Describes the source; nothing is read yet.

        Args:
          name: what sentences call it; the benchmark's folder in the data folder.
          splits: by name.
          features: of the records. One that ends with `/encoded` is the content of the image file
            that the field without the ending names, as FOLDER/PATH.
          image_folders: where images lie, relative to the data folder; FOLDER is the last part.
            Each may be a link to a folder elsewhere, but no path may lead out of it.
          fields: feature name -> field of the rows; by default they are equal.

        Raises:
          UserError: a feature that a row cannot give.
        """
        super().__init__(name, tuple(splits), features)
        check_features(name, features)
        self._splits, self._image_folders = dict(splits), tuple(image_folders)
        self._fields = {key: key.removesuffix(IMAGE_SUFFIX) for key in features}
        self._fields |= dict(fields or {})

    def shards(self, split: str) -> list[str]:
        """Returns one name: a split is read from its files together."""
        return [f"{data_dir() / self._splits[split].files[0]}#{split}"]

    def open(self, shards: Sequence[str]) -> Records:
        """Opens splits by the names that `shards` gave."""
        return self._open([shard.rpartition("#")[2] for shard in shards])

    def in_order(self, split: str) -> Records:
        """Opens a split for evaluation: an image that is not there is empty, its texts stay."""
        self._check_split(split)
        return self._open([split], keep_texts=True)

    def _open(self, splits: Sequence[str], keep_texts: bool = False) -> Records:
        folders = {
            os.path.basename(folder): str(data_dir() / folder) for folder in self._image_folders
        }
        parts = []
        for split in splits:
            rows = cached_rows(self._name, split, self._splits[split])
            name = self.shards(split)[0]
            parts.append(
                OfficialRows(rows, name, self._features, self._fields, folders, keep_texts)
            )
        return ShardRecords(parts)


class OfficialRows(FileShard):
    """The rows of one split."""

    def __init__(
        self,
        path: str,
        name: str,
        features: Features,
        fields: Mapping[str, str],
        folders: Mapping[str, str],
        keep_texts: bool = False,
    ):
        """Finds the rows.

        Args:
          path: of the rows as JSON lines.
          name: what the split is called.
          features: of the records.
          fields: feature name -> field of the rows.
          folders: of images, name -> path.
          keep_texts: give a record with an empty image where there is no such image.

        Raises:
          UserError: there is none of the folders of images that the records need.
        """
        super().__init__(path, name)
        self._features, self._fields, self._paths = features, fields, folders
        self._images = [key for key in features if key.endswith(IMAGE_SUFFIX)]
        self._labels = {key: f"the field {fields[key]}" for key in features}
        self._keep_texts = keep_texts
        self._folders: dict[str, Folder] = {}
        with self.opening() as file:
            self._starts = line_starts(file)
        if self._images and not any(os.path.isdir(folder) for folder in folders.values()):
            raise UserError(
                f"{name} has its images in {' and '.join(folders.values())}, and there is no such "
                "folder; put the images, or a link to their folder, there."
            )

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self._starts)

    def key(self, position: int) -> str:
        """Returns the example's place and, where it has one, the official name of its image."""
        (row,) = super().read([position])
        named = [] if isinstance(row, Unreadable) else [str(row[key]) for key in self._images]
        return " ".join([str(position), *named])

    def record(self, file: BinaryIO, position: int) -> Row:
        """Reads the values of a row."""
        line = first_line(read_span(file, self._starts, position, self.file.size))
        row = parse_object(decode(line, "line"))
        if FAULT in row:
            raise BadRecord(str(row[FAULT]))
        return {key: row.get(field, ABSENT) for key, field in self._fields.items()}

    def read(self, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records, and the images that they name."""
        return [self._finished(row) for row in super().read(positions)]

    def _finished(self, row: Row | Unreadable) -> bytes | Unreadable:
        if isinstance(row, Unreadable):
            return row
        for key in self._images:
            content = self._image(row[key])
            if isinstance(content, Unreadable) and not self._keep_texts:
                return content
            row[key] = b"" if isinstance(content, Unreadable) else content
        try:
            return encode(row, self._features, self._labels)
        except BadRecord as bad:
            return Unreadable(str(bad))

    def _image(self, name: object) -> bytes | Unreadable:
        folder, _, path = str(name).partition("/")
        if folder not in self._paths:
            return Unreadable("the image's path leaves the folder")
        try:
            return self._folder(folder).read([path])[0]
        except UserError:
            return Unreadable(f"there is no folder {folder} of images")

    def _folder(self, name: str) -> Folder:
        if name not in self._folders:
            self._folders[name] = open_folder(self._paths[name])
        return self._folders[name]


def cached_rows(owner: str, split: str, described: OfficialSplit) -> str:
    """Makes the rows of a split, if the cache does not have them.

    Args:
      owner: the benchmark.
      split: the split's name.
      described: its files, and how they are read.

    Returns:
      The path of a local file of JSON lines.

    Raises:
      UserError: an official file is missing or is not what it should be, or the cache has no room.
    """
    found = official_files(described, f"The split {split!r} of {owner}")
    states = [described.rows.__qualname__, sorted(described.options.items()), VERSION]
    for path in found:
        known = KnownFile.of(path) if not described.folders else _folder_state(path)
        states.append((path, known.size, known.version))
    target = cache_path(found[0], KIND, ".jsonl", f"{split} {states!r}")
    if not os.path.exists(target):
        paths = [cached_text(p) if p.endswith(PACKED) else p for p in found]
        try:
            with written_atomically(target) as output:
                for row in described.rows(paths, **described.options):
                    output.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise UserError(
                f"{os.path.dirname(target)} cannot take the rows of {found[0]} ({reason(error)}); "
                f"make room or set {CACHE_DIR_VARIABLE} to another folder."
            ) from error
    return target


def official_files(described: OfficialSplit, owner: str) -> list[str]:
    """Returns the paths of a split's official files, packed where only that is there.

    Raises:
      UserError: one is missing.
    """
    exists = os.path.isdir if described.folders else os.path.isfile
    found = []
    for name in described.files:
        path = str(data_dir() / name)
        packed = path + PACKED
        if not exists(path) and not os.path.isfile(packed):
            raise UserError(
                f"{owner} is read from {path}, which is not there; put the official file there, or "
                f"set {DATA_DIR_VARIABLE} to the folder that has {name}."
            )
        found.append(path if exists(path) else packed)
    return found


def _folder_state(path: str) -> KnownFile:
    """Of a folder of folders: which there are, and when each of them changed last."""
    with os.scandir(path) as entries:
        times = sorted((e.name, e.stat().st_mtime_ns) for e in entries if e.is_dir())
    return KnownFile(path, len(times), hashlib.sha256(repr(times).encode()).hexdigest())
