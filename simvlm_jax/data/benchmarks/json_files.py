"""Large JSON files element by element, and files of lines: a few megabytes of memory each."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from simvlm_jax.data.sources.base import BadRecord
from simvlm_jax.data.sources.json_lines import parse_object
from simvlm_jax.data.sources.lines import BLANKS, LONGEST, decode, first_line, skip_bom
from simvlm_jax.data.sources.official import FAULT
from simvlm_jax.errors import UserError

CHUNK = 1 << 20  # characters read at once
LONGEST_ELEMENT = 64 << 20  # characters
_OF_NUMBERS = ("", *"0123456789.eE+-")
_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def array_elements(path: str, name: str) -> Iterator[Any]:
    """Yields the elements of an array that is a value of a JSON file's object.

    Example: of {"info": {}, "questions": [{"a": 1}, {"a": 2}]}, the array `questions` gives
    {"a": 1} and {"a": 2}. Memory holds one element and a piece of the file at a time.

    Args:
      path: the file, in UTF-8.
      name: of the array.

    Yields:
      Parsed elements, in order.

    Raises:
      UserError: the file is not such JSON, is cut short, has no such array, or has an element of
        more than `LONGEST_ELEMENT` characters.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        text = _Text(file, path)
        text.expect("{")
        found = False
        while not text.takes("}"):
            key = text.value()
            text.expect(":")
            if not text.takes("["):
                text.value()
            else:
                found |= key == name
                while not text.takes("]"):
                    element = text.value()
                    if key == name:
                        yield element
                    text.separator("]")
            text.separator("}")
    if not found:
        raise UserError(f"{path} has no array {name!r}; bring the official file of that name.")


def line_objects(path: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of JSON lines; blank lines do not count.

    Yields:
      What each line has; {FAULT: cause} for a line that is no JSON object.
    """
    for line in text_lines(path):
        if isinstance(line, str):
            try:
                yield parse_object(line)
            except BadRecord as bad:
                yield {FAULT: str(bad)}
        else:
            yield line


def text_lines(path: str, keep_blank: bool = False) -> Iterator[str | dict[str, Any]]:
    r"""Yields the lines of a file, without \n or \r\n.

    Args:
      path: the file.
      keep_blank: yield blank lines too, of files that lie line by line beside another.

    Yields:
      Each line; {FAULT: cause} for one that is not UTF-8 or is too long.
    """
    with open(path, "rb", buffering=0) as opened:
        skip_bom(opened)
        with open(opened.fileno(), "rb", closefd=False) as file:
            while line := file.readline(LONGEST + 2):
                if not keep_blank and not line.strip(BLANKS):
                    continue
                try:
                    yield decode(first_line(line), "line")
                except BadRecord as bad:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(LONGEST)
                    yield {FAULT: str(bad)}


class _Text:
    """The characters of a JSON file from a place on."""

    def __init__(self, file: TextIO, path: str):
        self._file, self._path = file, path
        self._text, self._place, self._before = "", 0, 0

    def takes(self, sign: str) -> bool:
        """Goes behind a sign, if it stands next."""
        if self._next() != sign:
            return False
        self._place += 1
        return True

    def expect(self, sign: str) -> None:
        if not self.takes(sign):
            raise self._broken(f"{sign} is missing")

    def separator(self, end: str) -> None:
        """Goes behind a comma, which must stand between values, or stays before the end."""
        if self.takes(","):
            if self._next() == end:
                raise self._broken("a value is missing")
        elif self._next() != end:
            raise self._broken("a comma is missing")

    def value(self) -> Any:
        """Parses the value that stands next."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
                whole = self._text[end : end + 1] not in _OF_NUMBERS  # which could go on
            except RecursionError:
                raise self._broken("it is nested too deeply") from None
            except ValueError as error:
                value, end, whole, cause = None, 0, False, error
            if whole or not self._more():
                break
            if len(self._text) - self._place > LONGEST_ELEMENT:
                raise self._broken(f"a value is longer than {LONGEST_ELEMENT >> 20} million signs")
        if not end:
            raise self._broken(getattr(cause, "msg", "it is no value"))
        self._place = end
        return value

    def _next(self) -> str:
        """Skips blanks and returns the sign that stands next; "" at the end."""
        while True:
            self._place = _BLANK.match(self._text, self._place).end()
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def _more(self) -> bool:
        # A value that does not fit is parsed again each time: double, to do so a few times only.
        wanted = max(CHUNK, len(self._text) - self._place)
        try:
            more = self._file.read(wanted)
        except UnicodeDecodeError:
            raise UserError(f"{self._path} is not UTF-8; bring the official file.") from None
        self._before += self._place
        self._text, self._place = self._text[self._place :] + more, 0
        return bool(more)

    def _broken(self, cause: str) -> UserError:
        return UserError(
            f"{self._path} is not the JSON that it should be: {cause}, about character "
            f"{self._before + self._place}; bring the official file again."
        )
