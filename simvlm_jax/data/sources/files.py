"""Files by path, local or in any store that fsspec knows: sizes, byte ranges, whole files.

Local files are read without fsspec, which would open them anew for every range.
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from simvlm_jax.data.sources.base import BadRecord, Unreadable
from simvlm_jax.data.sources.descriptors import Descriptors
from simvlm_jax.errors import UserError

CACHE_DIR_VARIABLE = "SIMVLM_CACHE_DIR"
DEFAULT_CACHE_DIR = "~/.cache/simvlm_jax"
VANISHED = Unreadable("the shard has vanished")
ENDS_EARLY = Unreadable("the shard ends early")
NO_ANSWER = Unreadable("the shard cannot be read")
Range = tuple[str, int, int]  # path, offset, length in bytes
LOCAL_BUFFER, REMOTE_BUFFER = 1 << 20, 8 << 20
RETRY_SECONDS, ANSWER_SECONDS = 1.0, 120.0
_PACKAGES = {
    "gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "http": "aiohttp",
    "https": "aiohttp", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "hf": "huggingface_hub",
}  # fmt: skip
# By what stores tell one content of a file from another, the surest first.
_VERSIONS = (
    "md5Hash", "crc32c", "blob_id", "ETag", "etag", "Content-MD5", "Digest", "generation",
    "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "created",
)  # fmt: skip


class ReadError(BadRecord, OSError):
    """A store did not give what it was asked for."""


class Files:
    """Reads byte ranges of many files; safe between threads."""

    def __init__(self):
        """Opens nothing yet."""
        self._descriptors = Descriptors()

    def read(self, ranges: Sequence[Range], exact: bool = True) -> list[bytes | Unreadable]:
        """Reads ranges, those of one remote store all at once.

        Args:
          ranges: (path, offset, length) each, length in bytes.
          exact: a file that ends within a range is a fault; else what it has is enough.

        Returns:
          In their order, exactly `length` bytes, or why there are none.
        """
        found: list[bytes | Unreadable] = [b""] * len(ranges)
        remote = []
        for slot, (path, offset, length) in enumerate(ranges):
            if is_local(path):
                found[slot] = self._read_local(path, offset, length, exact)
            elif length:  # a range of no bytes cannot be asked for
                remote.append(slot)
        for pause in (RETRY_SECONDS, None):
            answers = _read_remote([ranges[slot] for slot in remote], exact)
            for slot, data in zip(remote, answers, strict=True):
                found[slot] = data
            remote = [slot for slot in remote if found[slot] is NO_ANSWER]
            if remote and pause:
                time.sleep(pause)
        return found

    def _read_local(self, path: str, offset: int, length: int, exact: bool) -> bytes | Unreadable:
        try:
            data = self._descriptors.read(path, offset, length)
        except FileNotFoundError:
            return VANISHED
        except OSError:
            return NO_ANSWER
        return data if len(data) == length or not exact else ENDS_EARLY


class RemoteFile(io.RawIOBase):
    """A remote file that is read range by range: the stores' own files wait for ever."""

    def __init__(self, path: str, size: int):
        """Takes the path and the size in bytes; nothing is asked for yet."""
        self._path, self._size, self._position, self._files = path, size, 0, Files()

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def seekable(self) -> bool:
        """Says that any place can be read."""
        return True

    def tell(self) -> int:
        """Returns the place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place and returns it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"place {start + offset} of a file")
        self._position = start + offset
        return self._position

    def readinto(self, target: memoryview) -> int:
        """Fills as much of `target` as the file has.

        Raises:
          ReadError: the store gives something else, or no answer.
        """
        length = max(0, min(len(target), self._size - self._position))
        (data,) = self._files.read([(self._path, self._position, length)])
        if isinstance(data, Unreadable):
            raise ReadError(data.cause)
        target[:length] = data
        self._position += length
        return length


def is_local(path: str) -> bool:
    """Tells whether a path is of this machine's own file system."""
    return "://" not in path


def split_query(path: str) -> tuple[str, str, str]:
    """Splits a URL of the web before its question mark, which in other paths is a letter."""
    return path.partition("?") if path.startswith("http") else (path, "", "")


def file_size(path: str) -> int:
    """Returns the size of a file in bytes, as it is now; it raises what `file_state` raises."""
    return file_state(path)[0]


def file_state(path: str) -> tuple[int, str]:
    """Tells what a file is now.

    Returns:
      Its size in bytes, and what differs when its content does: the time of its last change (in
      nanoseconds, of a local file), or what its store has: a checksum, tag or time, or nothing.

    Raises:
      FileNotFoundError: there is none.
      OSError: it is no file, or its store does not answer.
      UserError: its file system is not installed.
    """
    if is_local(path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a file")
        return status.st_size, str(status.st_mtime_ns)
    system, name = _file_system(path)
    with _as_os_error():
        system.invalidate_cache()  # or a listing from before would answer
        information = system.info(name, **_patience(system))
    if information.get("type") == "directory" or information.get("size") is None:
        raise OSError("it has no size")
    version = next((information[key] for key in _VERSIONS if information.get(key)), "")
    return information["size"], str(version)


@contextlib.contextmanager
def open_in_order(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading from its beginning to its end.

    Raises:
      FileNotFoundError: there is none.
      OSError: its store does not answer; also out of the block that reads.
      UserError: its file system is not installed.
    """
    if is_local(path):
        with open(path, "rb", buffering=LOCAL_BUFFER) as file:
            yield file
        return
    with io.BufferedReader(RemoteFile(path, file_size(path)), REMOTE_BUFFER) as file:
        yield file


@contextlib.contextmanager
def written_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a local file that gets its name when the block ends well, and otherwise never was.

    Several processes may write the same one at once: the last to end wins.

    Raises:
      OSError: the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.unfinished")
    try:
        with open(temporary, "xb", buffering=LOCAL_BUFFER) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_password(path: str, owner: str) -> None:
    """Refuses a URL with a password in it: it would stand in logs, ledgers and configurations.

    Args:
      path: a path or a URL.
      owner: whose it is, for the sentence.

    Raises:
      UserError: it has one; the sentence does not repeat it.
    """
    user, at, host = path.partition("://")[2].partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise UserError(
            f"{owner} has a URL with a password in it, at {host}; leave it to the store's own "
            "settings (of fsspec, ~/.netrc or the environment), as paths are written into logs."
        )


def reason(error: Exception) -> str:
    """Returns what an error says, on one line and without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def cache_path(path: str, kind: str, suffix: str, version: str = "") -> str:
    """Returns where this machine keeps what it made of a file that it cannot write beside.

    Nothing is ever deleted there.

    Args:
      path: of that file; another path gives another place.
      kind: of what was made, the name of a folder.
      suffix: the ending.
      version: of that file; another one gives another place.
    """
    folder = Path(os.environ.get(CACHE_DIR_VARIABLE) or DEFAULT_CACHE_DIR).expanduser()
    whole = os.path.abspath(path) if is_local(path) else path
    readable = re.sub(r"[^\w.-]", "_", whole.rsplit("/", 1)[-1])[-80:]
    identity = f"{whole}\0{version}" if version else whole
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
    return str(folder / kind / f"{readable}-{digest[:16]}{suffix}")


def remote_glob(pattern: str, folders: bool = False) -> list[str]:
    """Returns the files of a store, or its folders, that match a glob, with the scheme.

    Raises:
      UserError: the store does not answer, or its file system is not installed.
    """
    system, name = _file_system(pattern)
    try:
        with _as_os_error():
            system.invalidate_cache()
            found = system.glob(name, detail=True, **_patience(system))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{pattern} cannot be listed: {reason(error)}.") from error
    scheme = pattern.split("://", 1)[0]
    names = [n for n, entry in found.items() if (entry.get("type") == "directory") == folders]
    # In memory, names begin with a slash; in buckets they do not.
    return [f"{scheme}://{name.split('://', 1)[-1].lstrip('/')}" for name in names]


def remote_names(folder: str) -> list[str]:
    """Returns the paths of all files below a place in a store, from there on.

    Raises:
      UserError: the store lists no files or does not answer, or its file system is not installed.
    """
    if folder.startswith("http"):
        raise UserError(f"{folder} cannot be listed, as web servers list no files; name them.")
    system, root = _file_system(folder)
    try:
        with _as_os_error():
            system.invalidate_cache()
            found = system.find(root, **_patience(system))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {reason(error)}.") from error
    return [name.removeprefix(root.rstrip("/") + "/") for name in found]


def _read_remote(ranges: Sequence[Range], exact: bool) -> list[bytes | Unreadable]:
    found: list[bytes | Unreadable] = [b""] * len(ranges)
    groups: dict[int, tuple[Any, list[tuple[int, str]]]] = {}
    for slot, (path, _, _) in enumerate(ranges):
        system, name = _file_system(path)
        groups.setdefault(id(system), (system, []))[1].append((slot, name))
    for system, named in groups.values():
        starts = [ranges[slot][1] for slot, _ in named]
        ends = [ranges[slot][1] + ranges[slot][2] for slot, _ in named]
        names = [name for _, name in named]
        try:
            answers = system.cat_ranges(names, starts, ends, on_error="return", **_patience(system))
        except Exception as error:  # stores raise what their clients raise
            answers = [error] * len(named)
        for (slot, _), answer in zip(named, answers, strict=True):
            found[slot] = _judged(ranges[slot], answer, exact)
    return found


def _judged(wanted: Range, answer: bytes | Exception, exact: bool) -> bytes | Unreadable:
    path, offset, length = wanted
    if isinstance(answer, bytes):
        return answer if len(answer) == length or not exact else ENDS_EARLY
    if isinstance(answer, FileNotFoundError):
        return VANISHED
    try:  # a range behind the end is an error of another kind in every store
        size = file_size(path)
    except FileNotFoundError:
        return VANISHED
    except OSError:
        return NO_ANSWER
    if not exact:
        return b"" if size <= offset else NO_ANSWER
    return ENDS_EARLY if size < offset + length else NO_ANSWER


def _file_system(path: str) -> tuple[Any, str]:
    import fsspec

    scheme = path.split("://", 1)[0]
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        mend = f"run `pip install {package}`" if package else reason(error)
        raise UserError(f"Reading {path} needs another package; {mend}.") from error
    except ValueError as error:
        raise UserError(f"{path} has a scheme that is not known: {reason(error)}.") from error
    except Exception as error:  # a client that finds no credentials, for example
        raise UserError(f"{path} cannot be reached: {reason(error)}.") from error


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Lets nothing out but OSError and our own: stores raise what their clients raise."""
    try:
        yield
    except TimeoutError:
        raise OSError(f"it gives no answer within {ANSWER_SECONDS:g} seconds") from None
    except (OSError, UserError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _patience(system: Any) -> dict[str, float]:
    # Clients wait without end by default; those that run a loop can be told not to.
    return {"timeout": ANSWER_SECONDS} if system.async_impl else {}
