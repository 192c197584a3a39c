"""The texts in an example's record, where a field may hold one or several."""

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def every(record: Record, field: str) -> list[str]:
    """The texts of a field that holds one or a list of them; none where it is missing.

    Class ids are texts, too; a negative one is none. Example: "a" gives ["a"], ["a", "b"] gives
    both, 3 gives ["3"], and -1 nothing.
    """
    value = record.get(field, [])
    values = value if isinstance(value, list) else [value]
    return [str(v) for v in values if not (isinstance(v, int) and v < 0)]


def first(record: Record, field: str) -> str:
    """The first text of a field, or ""."""
    return next(iter(every(record, field)), "")
