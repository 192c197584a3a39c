"""Tables as text, CSV or TSV, with a header, as Python's csv module reads them."""

import array
import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from simvlm_jax.data.sources.base import BadRecord, Features, Records
from simvlm_jax.data.sources.encoding import parse_number
from simvlm_jax.data.sources.lines import BLOCK, LONGEST, decode, read_span, skip_bom
from simvlm_jax.data.sources.patterns import Patterns
from simvlm_jax.data.sources.rows import RowShard, RowSource
from simvlm_jax.data.sources.shards import open_shards
from simvlm_jax.errors import UserError


class CSVSource(RowSource):
    """Records in tables with a header; blank lines do not count."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        features: Features,
        images: str | None = None,
        image_field: str = "image",
        fields: Mapping[str, str] | None = None,
        delimiter: str = ",",
        quoting: bool = True,
    ):
        r"""Describes the source.

        Args:
          name: what sentences call it.
          splits: of each split, its files as `find_shards` takes them.
          features: of the records, one value each. `image/encoded` is the content of an image file.
          images: the folder that image paths start from, relative to the data folder or a URL; by
            default the folder of the table. None may leave it.
          image_field: the column that holds the image's path.
          fields: feature name -> column of the header; by default they are equal.
          delimiter: between columns, one ASCII character; for TSV "\t".
          quoting: double quotes enclose a value; without, they are characters as others (GLUE's
            TSV files).

        Raises:
          UserError: a feature that a row cannot give, or another delimiter.
        """
        super().__init__(name, splits, features, images, image_field, fields)
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
            raise UserError(f"The delimiter {delimiter!r} of {name} is not one ASCII character.")
        self._form = Form(delimiter, quoting)

    def open(self, shards: Sequence[str]) -> Records:
        """Opens tables for reading by index, in one pass over each."""
        return open_shards(
            lambda path: Table(path, self._features, self._fields, self.folder(path), self._form),
            shards,
        )


@dataclasses.dataclass(frozen=True)
class Form:
    """How a table is written."""

    delimiter: str = ","
    quoting: bool = True

    def values(self, row: bytes) -> list[str]:
        """Splits one row.

        Raises:
          BadRecord: it is too long, or is not UTF-8.
        """
        if len(row) > LONGEST:
            raise BadRecord(f"the row is longer than {LONGEST >> 20} MiB")
        quoting = csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE
        try:
            return next(csv.reader([decode(row, "row")], delimiter=self.delimiter, quoting=quoting))
        except csv.Error:
            raise BadRecord(
                f"a value of the row is longer than {csv.field_size_limit()} characters"
            ) from None


class Table(RowShard):
    """One table."""

    def __init__(
        self,
        path: str,
        features: Features,
        fields: Mapping[str, str],
        folder: str | None = None,
        form: Form | None = None,
    ):
        """Reads the header and finds the rows.

        Args:
          path: the file, as `cached_text` takes it.
          features: of the records.
          fields: feature name -> column.
          folder: path of the folder of the images, if the features have one.
          form: how it is written; by default CSV.

        Raises:
          UserError: the file cannot be read, or its header lacks a column or has it twice.
        """
        labels = {key: f"the column {fields[key]}" for key in features}
        super().__init__(path, features, labels, folder)
        self._form = form or Form()
        with self.opening() as file:
            self._starts = row_starts(file, self._form)
            if not len(self._starts):
                raise UserError(f"{path} has no header; its first line must name its columns.")
            header = self._form.values(self._row(file, 0))
        for key in features:
            if header.count(fields[key]) != 1:
                raise UserError(
                    f"The header of {path} has {header.count(fields[key])} columns named "
                    f"{fields[key]!r}; it has {header}."
                )
        self._columns, self._width = (
            {key: header.index(fields[key]) for key in features},
            len(header),
        )

    def __len__(self) -> int:
        """Returns the number of rows that are not blank, without the header."""
        return len(self._starts) - 1

    def record(self, file: BinaryIO, position: int) -> dict[str, object]:
        """Reads the values of a row."""
        row = self._form.values(self._row(file, position + 1))
        if len(row) != self._width:
            raise BadRecord("the row has another number of columns than the header")
        values = {key: row[column] for key, column in self._columns.items()}
        for key, feature in self._features.items():
            if feature.dtype != tf.string:
                values[key] = parse_number(values[key], feature.dtype, self._labels[key])
        return values

    def _row(self, file: BinaryIO, position: int) -> bytes:
        return read_span(file, self._starts, position, self.file.size).rstrip(b"\r\n")


_AT_START, _PLAIN, _QUOTED, _AFTER_QUOTE = range(4)  # where the scanner stands in a value


def row_starts(file: BinaryIO, form: Form) -> np.ndarray:
    r"""Finds every row of a table that is not empty, by the rules of Python's csv module.

    A quote opens a quoted value only where the value begins; within, two stand for one, and ends
    of lines are characters. Rows end with \r or \n; of \r\n, the \n is an empty row.

    Args:
      file: opened for binary reading.
      form: of the table.

    Returns:
      uint64 [n], offsets in bytes, ascending; the first is the header's.
    """
    start = base = skip_bom(file)
    stop = re.compile(b"[%s\r\n]" % (re.escape(form.delimiter.encode()) if form.quoting else b""))
    state, found = _AT_START if form.quoting else _PLAIN, array.array("Q")
    while block := file.read(BLOCK):
        place = 0
        while place < len(block):
            if state == _QUOTED:
                quote = block.find(b'"', place)
                place, state = (quote + 1, _AFTER_QUOTE) if quote >= 0 else (len(block), _QUOTED)
            elif state != _PLAIN:
                opens = block[place] == ord('"')  # or stands for one, right after another
                place, state = (place + 1, _QUOTED) if opens else (place, _PLAIN)
            elif not (match := stop.search(block, place)):
                place = len(block)
            else:
                place = match.end()
                state = _AT_START if form.quoting else _PLAIN
                if match[0] in b"\r\n":
                    if base + place - 1 > start:
                        found.append(start)
                    start = base + place
        base += len(block)
    if base > start:
        found.append(start)
    return np.array(found, np.uint64)
