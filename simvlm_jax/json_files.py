"""JSON files that anybody may have written: what is wrong with one is a sentence with its name.

None is read without end, and what is nested too deeply is no JSON to us.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simvlm_jax.errors import UserError

LARGEST = 64 << 20  # bytes of a file; in memory, JSON can take twenty times as many
LARGEST_LINES = 1 << 30  # of a file that is read line by line
LONGEST_LINE = 16 << 20


def read_bounded(path: Path, most: int) -> bytes:
    """Reads a file whole, unless it is larger than such a file can be.

    Args:
        path: A local file.
        most: Bytes.

    Raises:
        UserError: If it is larger.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if size > most or len(content) > most:
        raise UserError(
            f"{path} has {max(size, len(content))} bytes, and {most} are the most that such a file "
            "can have: bring back the right one."
        )
    return content


def parse_object(content: bytes | str, name: str | Path) -> dict[str, Any]:
    """Parses one JSON object.

    Args:
        content: The JSON.
        name: Of where it comes from, for the sentence.

    Raises:
        UserError: If it is no JSON object.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:  # text that is no UTF-8 is a ValueError too
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{name} is no JSON ({reason}): bring back the right one.") from None
    if not isinstance(found, dict):
        raise UserError(f"{name} holds no JSON object: bring back the right one.")
    return found


def read_object(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        UserError: If it cannot be read, is larger than `most` bytes, or is something else.
    """
    try:
        return parse_object(read_bounded(path, most), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


def object_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Reads a file of JSON objects line by line.

    Yields:
        (a line with its end, the object; None where it is none, as in a line that a kill cut).

    Raises:
        UserError: If the file is larger than any that we write.
    """
    if path.stat().st_size > LARGEST_LINES:
        raise UserError(
            f"{path} has {path.stat().st_size} bytes, and {LARGEST_LINES} are the most that it can "
            "have: move it away."
        )
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                yield line, parse_object(line, path) if line.endswith(b"\n") else None
            except UserError:
                yield line, None
