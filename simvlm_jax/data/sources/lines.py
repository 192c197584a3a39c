"""Where the lines or paragraphs of a text file begin: eight bytes of memory for each."""

import os
from typing import BinaryIO

import numpy as np

from simvlm_jax.data.sources.base import BadRecord

BLOCK = 4 << 20  # bytes read at once
LONGEST = 16 << 20  # bytes of a line
BOM = b"\xef\xbb\xbf"
NEWLINE = ord("\n")
BLANKS = b" \t\n\v\f\r"
_IS_SOLID = np.array([byte not in BLANKS for byte in range(256)])


def skip_bom(file: BinaryIO) -> int:
    """Goes behind a byte order mark, if there is one, and returns the offset there."""
    return file.seek(len(BOM) if os.pread(file.fileno(), len(BOM), 0) == BOM else 0)


def line_starts(file: BinaryIO, paragraphs: bool = False) -> np.ndarray:
    r"""Finds every line that is more than blanks.

    A line ends with \n (so with \r\n too) or with the file. Example: "a\n\n b\nc" has lines at
    0, 3, 6 and paragraphs at 0, 3.

    Args:
      file: opened for binary reading.
      paragraphs: give only the lines that follow a blank line or nothing.

    Returns:
      uint64 [n], offsets in bytes, ascending.
    """
    start = base = skip_bom(file)
    solid_before, after_blank = 0, True  # of the line at `start`; of the line before it
    found = []
    while block := file.read(BLOCK):
        content = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(content == NEWLINE)
        solid = np.cumsum(_IS_SOLID[content], dtype=np.int64)  # up to and with each byte
        if len(ends):
            starts = np.concatenate([[start], base + ends[:-1] + 1]).astype(np.uint64)
            counts = np.diff(solid[ends], prepend=-solid_before)
            kept = counts > 0
            first = np.concatenate([[after_blank], ~kept[:-1]]) if paragraphs else True
            found.append(starts[kept & first])
            start, after_blank = base + int(ends[-1]) + 1, not kept[-1]
            solid_before = int(solid[-1] - solid[ends[-1]])
        else:
            solid_before += int(solid[-1])
        base += len(block)
    if solid_before and (after_blank or not paragraphs):
        found.append(np.array([start], np.uint64))
    return np.concatenate([np.empty(0, np.uint64), *found])


def read_span(file: BinaryIO, starts: np.ndarray, position: int, size: int) -> bytes:
    """Reads from one start to the next, or to the end of the file, LONGEST + 2 bytes at most.

    Args:
      file: opened for binary reading.
      starts: uint64 [n], ascending offsets.
      position: which of them.
      size: of the file, in bytes.
    """
    start = int(starts[position])
    stop = int(starts[position + 1]) if position + 1 < len(starts) else size
    return os.pread(file.fileno(), min(stop - start, LONGEST + 2), start)


def first_line(span: bytes) -> bytes:
    r"""Returns what precedes the first \n or \r\n.

    Raises:
      BadRecord: it is too long.
    """
    line = span.partition(b"\n")[0].removesuffix(b"\r")
    if len(line) > LONGEST:
        raise BadRecord(f"the line is longer than {LONGEST >> 20} MiB")
    return line


def decode(content: bytes, what: str) -> str:
    """Decodes UTF-8.

    Raises:
      BadRecord: it is none.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRecord(f"the {what} is not UTF-8") from None
