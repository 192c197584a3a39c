"""The exceptions that a person is meant to read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class UserError(Exception):
    """Bad input, said in one sentence: what is wrong, with which value, and what to do.

    The command line prints the sentence alone and exits with this code; anything else that is
    raised is a defect of ours and keeps its stack trace.
    """

    exit_code = 2


class LostError(UserError):
    """Another process is gone or did not come; to start all of them again may be all it takes."""

    exit_code = 75  # "temporary failure" in sysexits.h


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns a full disk, or a file that cannot be written, into a sentence.

    Args:
        path: What is written inside.

    Raises:
        UserError: If the operating system does not let us.
    """
    try:
        yield
    except BrokenPipeError:  # whoever read our output went away, which is another matter
        raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; make room there, or make it one "
            "that can be written, and start again."
        ) from error
