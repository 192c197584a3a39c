"""Files by path, local or in any store that fsspec knows: sizes, byte ranges, reading in order.

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

from simvlm_jax.data.sources.base import Unreadable
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


class Files:
    """Reads byte ranges of many files; safe between threads."""

    def __init__(self):
        """Opens nothing yet."""
        self._descriptors = Descriptors()

    def read(self, ranges: Sequence[Range]) -> list[bytes | Unreadable]:
        """Reads ranges, those of one remote store all at once.

        Args:
          ranges: (path, offset, length) each, length in bytes.

        Returns:
          In their order, exactly `length` bytes, or why there are none.
        """
        found: list[bytes | Unreadable] = [b""] * len(ranges)
        remote = []
        for slot, (path, offset, length) in enumerate(ranges):
            if is_local(path):
                found[slot] = self._read_local(path, offset, length)
            elif length:  # a range of no bytes cannot be asked for
                remote.append(slot)
        for pause in (RETRY_SECONDS, None):
            for slot, data in zip(remote, _read_remote([ranges[s] for s in remote]), strict=True):
                found[slot] = data
            remote = [slot for slot in remote if found[slot] is NO_ANSWER]
            if remote and pause:
                time.sleep(pause)
        return found

    def _read_local(self, path: str, offset: int, length: int) -> bytes | Unreadable:
        try:
            data = self._descriptors.read(path, offset, length)
        except FileNotFoundError:
            return VANISHED
        except OSError:
            return NO_ANSWER
        return data if len(data) == length else ENDS_EARLY


def is_local(path: str) -> bool:
    """Tells whether a path is of this machine's own file system."""
    return "://" not in path


def file_size(path: str) -> int:
    """Returns the size of a file in bytes, as it is now.

    Raises:
      FileNotFoundError: there is none.
      OSError: it is no file, or its store does not answer.
      UserError: its file system is not installed.
    """
    if is_local(path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a file")
        return status.st_size
    system, name = _file_system(path)
    with _as_os_error():
        system.invalidate_cache()  # or a listing from before would answer
        information = system.info(name, **_patience(system))
    if information.get("type") == "directory" or information.get("size") is None:
        raise OSError("it has no size")
    return information["size"]


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
    # The stores' own files wait without end for an answer.
    with io.BufferedReader(_InOrder(path), REMOTE_BUFFER) as file:
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


def reason(error: Exception) -> str:
    """Returns what an error says, on one line and without a full stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def cache_path(path: str, suffix: str) -> str:
    """Returns where this machine keeps what it made of a file that it cannot write beside.

    Args:
      path: of that file; another path gives another place.
      suffix: the ending.
    """
    folder = Path(os.environ.get(CACHE_DIR_VARIABLE) or DEFAULT_CACHE_DIR).expanduser()
    whole = os.path.abspath(path) if is_local(path) else path
    readable = re.sub(r"[^\w.-]", "_", whole.rsplit("/", 1)[-1])[-80:]
    digest = hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()
    return str(folder / "indexes" / f"{readable}-{digest[:16]}{suffix}")


def remote_glob(pattern: str) -> list[str]:
    """Returns the files of a store that match a glob, with the scheme.

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
    names = [name for name, entry in found.items() if entry.get("type") != "directory"]
    # In memory, names begin with a slash; in buckets they do not.
    return [f"{scheme}://{name.split('://', 1)[-1].lstrip('/')}" for name in names]


def _read_remote(ranges: Sequence[Range]) -> list[bytes | Unreadable]:
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
            found[slot] = _judged(ranges[slot], answer)
    return found


def _judged(wanted: Range, answer: bytes | Exception) -> bytes | Unreadable:
    path, offset, length = wanted
    if isinstance(answer, bytes):
        return answer if len(answer) == length else ENDS_EARLY
    if isinstance(answer, FileNotFoundError):
        return VANISHED
    try:  # a range behind the end is an error of another kind in every store
        return ENDS_EARLY if file_size(path) < offset + length else NO_ANSWER
    except FileNotFoundError:
        return VANISHED
    except OSError:
        return NO_ANSWER


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


class _InOrder(io.RawIOBase):
    """A remote file, read range by range."""

    def __init__(self, path: str):
        self._path, self._files = path, Files()
        self._position, self._size = 0, file_size(path)

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:
        length = min(len(target), self._size - self._position)
        (data,) = self._files.read([(self._path, self._position, length)])
        if isinstance(data, Unreadable):
            raise OSError(data.cause)
        target[:length] = data
        self._position += length
        return length
