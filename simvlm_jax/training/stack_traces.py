"""Keeps Orbax's stack traces off the terminal: what went wrong is raised, and said by us."""

import logging
import sys
from typing import Any

_LATE = "Event loop is closed"  # TensorStore's parts of an operation that has failed already


def mute() -> None:
    """Mutes them; calling it again changes nothing."""
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of tasks that a failure abandoned
    if sys.unraisablehook is not _unraisable:
        global _former
        _former, sys.unraisablehook = sys.unraisablehook, _unraisable


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _unraisable(found: Any) -> None:
    coroutine = getattr(found.object, "cr_code", None)  # one of Orbax's that nobody waited for
    abandoned = coroutine is not None and "orbax" in coroutine.co_filename
    if not abandoned and str(found.exc_value) != _LATE:
        _former(found)


_former = sys.unraisablehook
