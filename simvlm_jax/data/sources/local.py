"""Local files that are read in pieces, and are still what they were when they were opened."""

import abc
import contextlib
import dataclasses
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from simvlm_jax.data.sources.base import Records, Unreadable
from simvlm_jax.errors import UserError

LARGEST_IMAGE = 256 << 20  # bytes


def _open(path: str, flags: int) -> int:
    """Opens without waiting: a named pipe would wait for its writer for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class BadRecord(Exception):
    """What is wrong with one record; it becomes an `Unreadable` of the same words."""


def attempt(read: Callable[..., bytes], *arguments: Any) -> bytes | Unreadable:
    """Returns what `read` returns, or why it could not."""
    try:
        return read(*arguments)
    except BadRecord as bad:
        return Unreadable(str(bad))


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A file as it was when it was opened first.

    Attributes:
      path: where it is.
      size: in bytes.
      modified: time of its last change, in nanoseconds.
    """

    path: str
    size: int
    modified: int

    @classmethod
    def of(cls, path: str) -> "LocalFile":
        """Looks at a file.

        Raises:
          UserError: there is no such file.
        """
        try:
            found = os.stat(path)
        except OSError as error:
            raise UserError(f"{path} cannot be opened ({error.strerror}).") from None
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not a file; name the split's files.")
        return cls(str(path), found.st_size, found.st_mtime_ns)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Opens the file for one reading; nothing is held open between readings.

        Raises:
          BadRecord: it is not the file that it was, or reading it fails.
        """
        try:
            with open(self.path, "rb", buffering=0, opener=_open) as file:
                found = os.fstat(file.fileno())
                if (found.st_size, found.st_mtime_ns) != (self.size, self.modified):
                    raise BadRecord("the shard has changed since it was opened")
                yield file
        except FileNotFoundError:
            raise BadRecord("the shard has vanished since it was opened") from None
        except OSError:
            raise BadRecord("the shard cannot be read") from None


class Shard(abc.ABC):
    """The records of one file (or folder), read by their positions."""

    name: str

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of records."""

    @abc.abstractmethod
    def read(self, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records in the order of `positions`; never raises for a bad one."""

    def key(self, position: int) -> str:
        """Returns what a person finds the record by; by default its position, from 0."""
        return str(position)


class FileShard(Shard):
    """The records of one file, each in a place of its own there."""

    def __init__(self, path: str, name: str | None = None):
        """Takes the file, which `opening` reads once.

        Args:
          path: the file.
          name: what the shard is called, if not as the file.

        Raises:
          UserError: there is no such file.
        """
        self.name, self.file = name or path, LocalFile.of(path)

    @contextlib.contextmanager
    def opening(self) -> Iterator[BinaryIO]:
        """Opens the file to learn where its records are.

        Raises:
          UserError: it cannot be read.
        """
        try:
            with self.file.open() as file:
                yield file
        except BadRecord as bad:
            raise UserError(f"{self.name} cannot be opened: {bad}.") from None

    def read(self, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records in the order of `positions`."""
        try:
            with self.file.open() as file:
                return [attempt(self.record, file, position) for position in positions]
        except BadRecord as bad:
            return [Unreadable(str(bad))] * len(positions)

    @abc.abstractmethod
    def record(self, file: BinaryIO, position: int) -> bytes:
        """Reads one record.

        Raises:
          BadRecord: something is wrong with it.
        """


class ShardRecords(Records):
    """Random access over shards that each know how to read themselves."""

    def __init__(self, shards: Sequence[Shard]):
        """Takes opened shards, in order."""
        super().__init__([shard.name for shard in shards], [len(shard) for shard in shards])
        self._parts = shards

    def key(self, shard: int, position: int) -> str:
        """Returns what a person finds the record by within its shard."""
        return self._parts[shard].key(position)

    def read_shard(self, shard: int, positions: Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records of one shard."""
        return self._parts[shard].read(positions)


class Folder:
    """Reads files by names that the data give, none of which may lead out of the folder."""

    def __init__(self, path: str):
        """Takes the folder.

        Raises:
          UserError: it is not there.
        """
        if not os.path.isdir(path):
            raise UserError(f"There is no folder {path}; name the folder that holds the images.")
        self._root = os.path.realpath(path)

    def read(self, name: object, what: str = "image", limit: int = LARGEST_IMAGE) -> bytes:
        """Reads one file.

        Args:
          name: its path from the folder on.
          what: what sentences call it.
          limit: most bytes.

        Returns:
          The file's content.

        Raises:
          BadRecord: the name is no text or leaves the folder (absolute, through .. or a link),
            there is no such file, or it is empty, too large or no regular file.
        """
        if not isinstance(name, str):
            raise BadRecord(f"the {what}'s path is not text")
        try:
            path = os.path.realpath(os.path.join(self._root, name))
            if os.path.isabs(name) or os.path.commonpath([self._root, path]) != self._root:
                raise BadRecord(f"the {what}'s path leaves the folder")
            with open(path, "rb", opener=_open) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise FileNotFoundError
                if found.st_size > limit:
                    raise BadRecord(f"the {what} file is larger than {limit >> 20} MiB")
                content = file.read(limit)
        except (OSError, ValueError):  # ValueError: characters that no path can have
            raise BadRecord(f"there is no such {what} file") from None
        if not content:
            raise BadRecord(f"the {what} file is empty")
        return content
