"""JSON lines, with images in files of their own: what most people have who finetune."""

import json
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from simvlm_jax.data.sources.base import BadRecord, Features, Records
from simvlm_jax.data.sources.cached_text import LARGEST
from simvlm_jax.data.sources.encoding import ABSENT
from simvlm_jax.data.sources.lines import decode, first_line, line_starts, read_span
from simvlm_jax.data.sources.rows import RowShard, RowSource
from simvlm_jax.data.sources.shards import open_shards


class JSONLinesSource(RowSource):
    """Records in files with one JSON object a line; blank lines do not count."""

    def open(self, shards: Sequence[str]) -> Records:
        """Opens files for reading by index, in one pass over each."""
        return open_shards(
            lambda path: JSONLines(path, self._features, self._fields, self.folder(path)), shards
        )


class JSONLines(RowShard):
    """One file of JSON lines."""

    def __init__(
        self,
        path: str,
        features: Features,
        fields: Mapping[str, str],
        folder: str | None = None,
        largest: int = LARGEST,
    ):
        """Finds the lines.

        Args:
          path: the file, as `cached_text` takes it.
          features: of the records.
          fields: feature name -> field of the objects.
          folder: path of the folder of the images, if the features have one.
          largest: most bytes of the file, unpacked.

        Raises:
          UserError: the file cannot be read.
        """
        labels = {key: f"the field {field}" for key, field in fields.items()}
        super().__init__(path, features, labels, folder, largest)
        self._fields = fields
        with self.opening() as file:
            self._starts = line_starts(file)

    def __len__(self) -> int:
        """Returns the number of lines that are not blank."""
        return len(self._starts)

    def record(self, file: BinaryIO, position: int) -> dict[str, object]:
        """Reads the values of a line."""
        line = first_line(read_span(file, self._starts, position, self.file.size))
        row = parse_object(decode(line, "line"))
        return {key: row.get(field, ABSENT) for key, field in self._fields.items()}


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


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
