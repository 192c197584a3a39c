"""Folders whose files the data name themselves: none of the names may lead out of its folder."""

import abc
import os
import posixpath
import stat
import urllib.parse
from collections.abc import Sequence

from simvlm_jax.data.sources.base import BadRecord, Unreadable, attempt
from simvlm_jax.data.sources.files import (
    VANISHED,
    Files,
    file_size,
    is_local,
    reason,
    remote_names,
    split_query,
)
from simvlm_jax.data.sources.shards import open_at_once
from simvlm_jax.errors import UserError

LARGEST_IMAGE = 256 << 20  # bytes


class Folder(abc.ABC):
    """Files below a place, by their paths from there on."""

    @abc.abstractmethod
    def read(
        self, names: Sequence[object], what: str = "image", limit: int = LARGEST_IMAGE
    ) -> list[bytes | Unreadable]:
        """Reads whole files.

        Args:
          names: their paths from the folder on.
          what: what sentences call one.
          limit: most bytes of one.

        Returns:
          In their order, the contents, or why there is none: a name that is no text or leaves the
          folder (absolute, through .. or a link), no such file, or one that is empty, too large or
          no regular file.
        """

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Tells whether there is a file of that name."""

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Returns the names of all files below, sorted; links to folders are not followed."""


def open_folder(path: str) -> Folder:
    """Opens a folder, local or of any store that fsspec knows.

    Raises:
      UserError: a local one is not there. (In a bucket there are no folders, only names.)
    """
    return LocalFolder(path) if is_local(path) else RemoteFolder(path)


def folder_of(path: str) -> str:
    """Returns the path of a file's folder; a query stays."""
    place, mark, query = split_query(path)
    return os.path.dirname(place) + mark + query


class LocalFolder(Folder):
    """A folder of this machine."""

    def __init__(self, path: str):
        """Takes the folder.

        Raises:
          UserError: it is not there.
        """
        if not os.path.isdir(path):
            raise UserError(f"There is no folder {path}; name the folder that holds the images.")
        self._root = os.path.realpath(path)

    def read(
        self, names: Sequence[object], what: str = "image", limit: int = LARGEST_IMAGE
    ) -> list[bytes | Unreadable]:
        """Reads whole files; see `Folder.read`."""
        return [attempt(self._read, name, what, limit) for name in names]

    def has(self, name: str) -> bool:
        """Tells whether there is a file of that name."""
        return os.path.exists(os.path.join(self._root, name))

    def names(self) -> list[str]:
        """Returns the names of all files below, sorted."""
        return sorted(
            os.path.relpath(os.path.join(place, name), self._root)
            for place, _, names in os.walk(self._root)
            for name in names
        )

    def _read(self, name: object, what: str, limit: int) -> bytes:
        if not isinstance(name, str):
            raise BadRecord(f"the {what}'s path is not text")
        try:
            path = os.path.realpath(os.path.join(self._root, name))
            if os.path.isabs(name) or os.path.commonpath([self._root, path]) != self._root:
                raise BadRecord(f"the {what}'s path leaves the folder")
            with open(path, "rb", opener=open_at_once) as file:
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


class RemoteFolder(Folder):
    """A place in a store: all that is below is read at once, not one after the other."""

    def __init__(self, path: str):
        """Takes the URL; what stands behind a question mark there goes with every file's."""
        self._root, self._mark, self._query = split_query(path)
        self._files = Files()

    def read(
        self, names: Sequence[object], what: str = "image", limit: int = LARGEST_IMAGE
    ) -> list[bytes | Unreadable]:
        """Reads whole files; see `Folder.read`."""
        found = [attempt(self._place, name, what) for name in names]
        slots = [slot for slot, path in enumerate(found) if not isinstance(path, Unreadable)]
        contents = self._files.read([(found[slot], 0, limit + 1) for slot in slots], exact=False)
        for slot, content in zip(slots, contents, strict=True):
            found[slot] = attempt(_checked, content, what, limit)
        return found

    def has(self, name: str) -> bool:
        """Tells whether there is a file of that name."""
        path = self._place(name, "file")
        try:
            file_size(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"{path} cannot be reached: {reason(error)}.") from error
        return True

    def names(self) -> list[str]:
        """Returns the names of all files below, sorted."""
        return sorted(remote_names(self._root))

    def _place(self, name: object, what: str) -> str:
        if not isinstance(name, str):
            raise BadRecord(f"the {what}'s path is not text")
        path = posixpath.normpath(name)
        # Two colons would chain file systems, by which a name could lead to this machine's files.
        if path.startswith("/") or path.split("/")[0] == ".." or "::" in path or "://" in name:
            raise BadRecord(f"the {what}'s path leaves the folder")
        if path == "." or any(letter < " " or "\ud800" <= letter < "\ue000" for letter in path):
            raise BadRecord(f"there is no such {what} file")
        if self._root.startswith("http"):
            path = urllib.parse.quote(path)  # or %2e%2e/ would become ../
        return f"{self._root}/{path}{self._mark}{self._query}"


def _checked(content: bytes | Unreadable, what: str, limit: int) -> bytes:
    if isinstance(content, Unreadable):
        if content == VANISHED:
            raise BadRecord(f"there is no such {what} file")
        raise BadRecord(f"the {what} file cannot be read")
    if len(content) > limit:
        raise BadRecord(f"the {what} file is larger than {limit >> 20} MiB")
    if not content:
        raise BadRecord(f"the {what} file is empty")
    return content
