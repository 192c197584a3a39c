"""Shards that are read by position, and are still what they were when they were opened."""

import abc
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from simvlm_jax.data.sources.base import BadRecord, Records, Unreadable, attempt
from simvlm_jax.data.sources.files import RemoteFile, file_state, is_local, reason
from simvlm_jax.data.sources.opening import open_all
from simvlm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A file as it was when it was opened first, local or of any store that fsspec knows.

    Attributes:
      path: where it is.
      size: in bytes.
      version: what differs when its content does; see `file_state`.
    """

    path: str
    size: int
    version: str

    @classmethod
    def of(cls, path: str) -> "KnownFile":
        """Looks at a file.

        Raises:
          UserError: there is no such file, or it cannot be reached.
        """
        try:
            return cls(str(path), *file_state(path))
        except FileNotFoundError:
            raise UserError(f"There is no file {path}; check the split's files.") from None
        except OSError as error:
            raise UserError(f"{path} cannot be opened: {reason(error)}.") from None

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Opens the file for one reading; nothing is held open between readings.

        Raises:
          BadRecord: it is not the file that it was, or reading it fails.
        """
        try:
            if is_local(self.path):
                with open(self.path, "rb", buffering=0, opener=open_at_once) as file:
                    found = os.fstat(file.fileno())
                    self._check(found.st_size, str(found.st_mtime_ns))
                    yield file
            else:
                self._check(*file_state(self.path))
                yield RemoteFile(self.path, self.size)
        except BadRecord:
            raise
        except FileNotFoundError:
            raise BadRecord("the shard has vanished since it was opened") from None
        except OSError:
            raise BadRecord("the shard cannot be read") from None

    def check(self) -> None:
        """Makes sure that it still is what it was.

        Raises:
          BadRecord: it is not.
        """
        with self.open():
            pass

    def _check(self, size: int, version: str) -> None:
        if (size, version) != (self.size, self.version):
            raise BadRecord("the shard has changed since it was opened")


def open_at_once(path: str, flags: int) -> int:
    """Opens without waiting, for `open`: a named pipe would wait for its writer for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
          path: the file, local or remote.
          name: what the shard is called, if not as the file.

        Raises:
          UserError: there is no such file.
        """
        self.name, self.file = name or path, KnownFile.of(path)

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

    def read(self, positions: Sequence[int]) -> list[Any | Unreadable]:
        """Reads records in the order of `positions`, as `record` gives them."""
        try:
            with self.file.open() as file:
                return [attempt(self.record, file, position) for position in positions]
        except BadRecord as bad:
            return [Unreadable(str(bad))] * len(positions)

    @abc.abstractmethod
    def record(self, file: BinaryIO, position: int) -> Any:
        """Reads one record, or what a subclass makes one of.

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


def open_shards(open_one: Callable[[str], Shard], shards: Sequence[str]) -> ShardRecords:
    """Opens shards beside each other.

    Args:
      open_one: opens the shard of a path.
      shards: paths, in order.

    Raises:
      UserError: what opening one raises.
    """
    return ShardRecords(open_all(lambda path, _: open_one(path), shards, "opening"))
