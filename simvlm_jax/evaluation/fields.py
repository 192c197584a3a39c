"""The texts in an example's record, where a field may hold one or several."""

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def every(record: Record, field: str) -> list[str]:
    """The texts of a field that holds one or a list of them; none where it is missing."""
    value = record.get(field, [])
    return [value] if isinstance(value, str) else [str(text) for text in value]


def first(record: Record, field: str) -> str:
    """The first text of a field, or ""."""
    return next(iter(every(record, field)), "")
