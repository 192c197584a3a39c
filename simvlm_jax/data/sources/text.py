"""Text-only corpora: plain text or JSON lines, also packed with gzip or zstd."""

from collections.abc import Mapping, Sequence
from typing import BinaryIO

import tensorflow as tf

from simvlm_jax.data.sources.base import BadRecord, Features, Records
from simvlm_jax.data.sources.cached_text import LARGEST, cached_text
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
from simvlm_jax.data.sources.patterns import Patterns, PatternSource
from simvlm_jax.data.sources.shards import FileShard, Shard, open_shards
from simvlm_jax.errors import UserError

TEXT = "text"
FEATURES: Features = {TEXT: tf.io.FixedLenFeature([], tf.string)}
SEPARATORS = ("line", "blank")


class TextSource(PatternSource):
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
          splits: of each split, its files as `find_shards` takes them; see `cached_text` for those
            that are remote or end with .gz or .zst.
          field: the field of JSON lines that holds the text; None for plain text.
          separator: of plain text: "line", every line that is not blank is a document, or "blank",
            blank lines stand between documents.
          largest_unpacked: most bytes that one packed file may unpack to.

        Raises:
          UserError: an unknown separator.
        """
        super().__init__(name, splits, FEATURES)
        if separator not in SEPARATORS:
            raise UserError(
                f"The separator of {name} is {separator!r}; use one of {', '.join(SEPARATORS)}."
            )
        self._field, self._paragraphs = field, separator == "blank"
        self._largest = largest_unpacked

    def open(self, shards: Sequence[str]) -> Records:
        """Opens files for reading by index, in one pass over each, unpacked where they must be."""
        return open_shards(self._open, shards)

    def _open(self, path: str) -> Shard:
        if self._field is not None:
            return JSONLines(path, FEATURES, {TEXT: self._field}, largest=self._largest)
        return Documents(path, self._paragraphs, self._largest)


class Documents(FileShard):
    """One file of plain text."""

    def __init__(self, path: str, paragraphs: bool, largest: int = LARGEST):
        """Finds the documents.

        Args:
          path: the file, as `cached_text` takes it.
          paragraphs: blank lines stand between documents; else each line is one.
          largest: most bytes of it, unpacked.

        Raises:
          UserError: the file cannot be read.
        """
        super().__init__(cached_text(path, largest), path)
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
