"""Text-only corpora: plain text or JSON lines, also packed with gzip or zstd."""

from collections.abc import Mapping, Sequence
from typing import BinaryIO

import tensorflow as tf

from simvlm_jax.data.sources.base import Features, Records, RecordSource
from simvlm_jax.data.sources.encoding import encode
from simvlm_jax.data.sources.json_lines import JSONLines
from simvlm_jax.data.sources.lines import (
    BLANKS,
    LONGEST,
    decode,
    first_line,
    line_starts,
    read_span,
)
from simvlm_jax.data.sources.lists import Patterns, expand
from simvlm_jax.data.sources.local import BadRecord, FileShard, Shard, ShardRecords
from simvlm_jax.data.sources.unpacking import LARGEST, unpacked
from simvlm_jax.errors import UserError

TEXT = "text"
FEATURES: Features = {TEXT: tf.io.FixedLenFeature([], tf.string)}
SEPARATORS = ("line", "blank")


class TextSource(RecordSource):
    """Documents: the one feature `text`."""

    def __init__(
        self,
        name: str,
        splits: Mapping[str, Patterns],
        field: str | None = None,
        separator: str = "line",
        largest_unpacked: int = LARGEST,
    ):
        """Describes the source.

        Args:
          name: what sentences call it.
          splits: each split's files: paths or glob patterns, relative to the data folder. Those
            that end with .gz or .zst are unpacked into `unpacking.cache_dir()`.
          field: the field of JSON lines that holds the text; None for plain text.
          separator: of plain text: "line", every line that is not blank is a document, or "blank",
            blank lines stand between documents.
          largest_unpacked: most bytes that one packed file may unpack to.

        Raises:
          UserError: an unknown separator.
        """
        super().__init__(name, list(splits), FEATURES)
        if separator not in SEPARATORS:
            raise UserError(
                f"The separator of {name} is {separator!r}; use one of {', '.join(SEPARATORS)}."
            )
        self._files, self._field = dict(splits), field
        self._paragraphs, self._largest = separator == "blank", largest_unpacked

    def shards(self, split: str) -> list[str]:
        """Returns the paths of a split's files, in order."""
        return expand(self._files[split])

    def open(self, shards: Sequence[str]) -> Records:
        """Opens files for reading by index, in one pass over each, unpacked where they must be."""
        return ShardRecords([self._open(path) for path in shards])

    def _open(self, path: str) -> Shard:
        place = unpacked(path, self._largest)
        if self._field is not None:
            return JSONLines(place, FEATURES, {TEXT: self._field}, name=path)
        return Documents(place, self._paragraphs, path)


class Documents(FileShard):
    """One file of plain text."""

    def __init__(self, path: str, paragraphs: bool, name: str | None = None):
        """Finds the documents.

        Args:
          path: the file.
          paragraphs: blank lines stand between documents; else each line is one.
          name: what the shard is called, if not as the file.

        Raises:
          UserError: the file cannot be read.
        """
        super().__init__(path, name)
        self._paragraphs = paragraphs
        with self.opening() as file:
            self._starts = line_starts(file, paragraphs)

    def __len__(self) -> int:
        """Returns the number of documents."""
        return len(self._starts)

    def record(self, file: BinaryIO, position: int) -> bytes:
        r"""Reads a document; within one of several lines, \r\n becomes \n."""
        content = read_span(file, self._starts, position, self.file.size)
        if not self._paragraphs:
            content = first_line(content)
        elif len(content := content.rstrip(BLANKS)) > LONGEST:
            raise BadRecord(f"the document is longer than {LONGEST >> 20} MiB")
        text = decode(content, "text").replace("\r\n", "\n")
        return encode({TEXT: text}, FEATURES, {TEXT: "the text"})
