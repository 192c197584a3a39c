"""JSON lines, with images in files of their own: what most people have who finetune."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from simvlm_jax.data.paths import data_dir
from simvlm_jax.data.sources.base import Features, Records, RecordSource
from simvlm_jax.data.sources.encoding import ABSENT, IMAGE, check_features, encode
from simvlm_jax.data.sources.lines import decode, first_line, line_starts, read_span
from simvlm_jax.data.sources.lists import Patterns, expand
from simvlm_jax.data.sources.local import BadRecord, FileShard, Folder, ShardRecords


class RowSource(RecordSource):
    """What JSON lines and tables have in common: named fields, one of which may name an image."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        features: Features,
        images: str | None = None,
        image_field: str = "image",
        fields: Mapping[str, str] | None = None,
    ):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: each split's files: paths or glob patterns, relative to the data folder.
          features: of the records. `image/encoded` is the content of an image file.
          images: the folder that image paths start from, relative to the data folder; by default
            the folder of the file that names them. None may leave it.
          image_field: the field that holds the image's path.
          fields: feature name -> name of its field; by default they are equal.

        Raises:
          UserError: a feature that a row cannot give.
        """
        super().__init__(name, list(splits), features)
        check_features(name, features)
        self._files, self._images = dict(splits), images
        self._fields = {key: key for key in features} | dict(fields or {})
        self._fields |= {IMAGE: image_field} if IMAGE in features else {}

    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's files, in order."""
        return expand(self._files[split])

    def _folder(self, path: str) -> Folder | None:
        if IMAGE not in self._features:
            return None
        return Folder(str(data_dir() / self._images) if self._images else os.path.dirname(path))


class JSONLinesSource(RowSource):
    """Records in files with one JSON object a line; blank lines do not count."""

    def open(self, shards: Sequence[str]) -> Records:
        """Opens files for reading by index, in one pass over each."""
        return ShardRecords(
            [JSONLines(path, self._features, self._fields, self._folder(path)) for path in shards]
        )


class JSONLines(FileShard):
    """One file of JSON lines."""

    def __init__(
        self,
        path: str,
        features: Features,
        fields: Mapping[str, str],
        folder: Folder | None = None,
        name: str | None = None,
    ):
        """Finds the lines.

        Args:
          path: the file.
          features: of the records.
          fields: feature name -> field of the objects.
          folder: where images are, if there are any.
          name: what the shard is called, if not as the file.

        Raises:
          UserError: the file cannot be read.
        """
        super().__init__(path, name)
        self._features, self._fields, self._folder = features, fields, folder
        self._labels = {key: f"the field {field}" for key, field in fields.items()}
        with self.opening() as file:
            self._starts = line_starts(file)

    def __len__(self) -> int:
        """Returns the number of lines that are not blank."""
        return len(self._starts)

    def record(self, file: BinaryIO, position: int) -> bytes:
        """Reads a line, and the image that it names."""
        line = first_line(read_span(file, self._starts, position, self.file.size))
        row = parse_object(decode(line, "line"))
        values = {key: row.get(field, ABSENT) for key, field in self._fields.items()}
        return encode(with_image(values, self._folder), self._features, self._labels)


def parse_object(line: str) -> dict[str, object]:
    """Parses one line.

    Raises:
      BadRecord: it is no JSON, or no object.
    """
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadRecord("the line is not JSON") from None
    if not isinstance(value, dict):
        raise BadRecord("the line is not a JSON object")
    return value


def with_image(values: Mapping[str, object], folder: Folder | None) -> dict[str, object]:
    """Puts the content of the image file in the place of its path.

    Raises:
      BadRecord: there is no path, or no such image in the folder.
    """
    if folder is None or values[IMAGE] is None or values[IMAGE] is ABSENT:
        return dict(values)
    return {**values, IMAGE: folder.read(values[IMAGE])}


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
