"""Work in parts over several processes, that goes on where it was killed.

A part's result is a file that begins with the digest of the rest; it is written under another name
and renamed. What a part gives depends on the part alone, so neither the number of processes nor an
interruption changes a byte.
"""

import abc
import contextlib
import fcntl
import hashlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path

from simvlm_jax.data.quiet import import_tensorflow
from simvlm_jax.errors import UserError

Report = Callable[..., None]  # (what is done, how much, of how much, before=how much earlier)
DIGEST = 32  # bytes of a SHA-256
IN_FLIGHT = 4  # parts handed to each process at most, so that a queue never grows


class Job(abc.ABC):
    """Work that falls into numbered parts. It is pickled, so it holds settings, no open files."""

    name: str

    @abc.abstractmethod
    def parts(self) -> list[int]:
        """Returns the number of records of each part."""

    @abc.abstractmethod
    def open(self) -> None:
        """Opens what the parts need, once in each process."""

    @abc.abstractmethod
    def run(self, part: int) -> bytes:
        """Does one part; equal parts give equal bytes."""

    def whole(self, result: bytes) -> bool:
        """Tells whether the files that an earlier result names are still as it left them."""
        del result
        return True


def run_job(job: Job, folder: Path, workers: int, report: Report) -> int:
    """Does all parts of a job that are not done yet.

    Args:
      job: the work.
      folder: keeps the parts' results; made if missing.
      workers: processes; with 1 the work is done in this one.
      report: told the progress in records.

    Returns:
      How many parts an earlier run had done.

    Raises:
      UserError: what a part raises; or a process was killed, for example for lack of memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = job.parts()
    found = (read_result(folder, part) for part in range(len(sizes)))
    ready = [result is not None and job.whole(result) for result in found]
    left = [part for part, is_ready in enumerate(ready) if not is_ready]
    before = done = sum(sizes) - sum(sizes[part] for part in left)
    total = sum(sizes)
    report(job.name, done, total, before)
    for part in _each(job, folder, left, workers):
        done += sizes[part]
        report(job.name, done, total, before)
    return len(sizes) - len(left)


def read_result(folder: Path, part: int) -> bytes | None:
    """Returns a part's result, or None where there is none that agrees with its digest."""
    try:
        content = _path(folder, part).read_bytes()
    except FileNotFoundError:
        return None
    result = content[DIGEST:]
    return result if hashlib.sha256(result).digest() == content[:DIGEST] else None


def file_digest(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a name of its own first, so that a killed run leaves all or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes a folder and holds it, so that two commands never prepare one thing at once.

    Raises:
      UserError: it is held by another process, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(
            f"The folder {folder.parent} cannot be written ({error.strerror}); choose another "
            "with --data_dir."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is preparing {folder.parent}; wait for its end, or stop it."
            ) from None
        yield


def _path(folder: Path, part: int) -> Path:
    return folder / f"{part:06d}.done"


def _each(job: Job, folder: Path, left: list[int], workers: int) -> Iterator[int]:
    if workers == 1 or len(left) < 2:
        if left:
            job.open()
        for part in left:
            yield _do(job, folder, part)
        return
    # Not fork: TensorFlow's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = futures.ProcessPoolExecutor(
        min(workers, len(left)), context, initializer=_begin, initargs=(pickle.dumps(job), folder)
    )
    try:
        queue = iter(left)
        running = {pool.submit(_do_here, part) for part in itertools.islice(queue, workers)}
        while running:
            finished, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in finished:
                yield future.result()
            more = IN_FLIGHT * workers - len(running)
            running |= {pool.submit(_do_here, part) for part in itertools.islice(queue, more)}
    except BrokenProcessPool as error:
        raise UserError(
            f"A process was killed while {job.name}, perhaps for lack of memory; what is done is "
            "kept: run the command again, with fewer --workers."
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _do(job: Job, folder: Path, part: int) -> int:
    result = job.run(part)
    write_whole(_path(folder, part), hashlib.sha256(result).digest() + result)
    return part


_here: list[tuple[Job, Path]] = []  # what this worker process does


def _begin(pickled: bytes, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a stack trace
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import_tensorflow()  # before a job's modules import it with all its remarks
    job = pickle.loads(pickled)
    job.open()
    _here.append((job, folder))


def _do_here(part: int) -> int:
    return _do(*_here[0], part)


def _end_with_parent() -> None:
    # A worker whose parent was killed would wait for its next part for ever.
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
