"""What a checkpoint says it holds, beside what this machine can hold.

A few bytes of metadata can declare an array of any size, and reading it would take the memory
before anything is found to be missing.
"""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simvlm_jax.errors import UserError

LARGEST_METADATA = 256 << 20  # bytes of one file of metadata; a Huge model's have a megabyte
_METADATA = ("metadata", "_METADATA", "_CHECKPOINT_METADATA", "_sharding", "manifest.ocdbt")
_METADATA_FOLDERS = ("array_metadatas",)
_CONTROL_GROUPS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def require_small_metadata(folder: Path) -> None:
    """Refuses a checkpoint whose metadata alone would fill the memory.

    Raises:
        UserError: If one of their files is too large.
    """
    for path in folder.rglob("*"):
        if path.name not in _METADATA and path.parent.name not in _METADATA_FOLDERS:
            continue
        size = path.stat().st_size if path.is_file() else 0
        if size > LARGEST_METADATA:
            raise UserError(
                f"{path} has {size} bytes, and {LARGEST_METADATA} are the most that metadata of a "
                "checkpoint can have: bring back the right one."
            )


def require_room(tree: Any, folder: Path) -> None:
    """Refuses arrays that do not fit into the memory that is left.

    Args:
        tree: Leaves that have a `shape` and a `dtype` are arrays; others do not count.
        folder: The checkpoint, for the sentence.

    Raises:
        UserError: If they do not fit; it names both numbers.
    """
    wanted, there = declared_bytes(jax.tree.leaves(tree)), available_memory()
    if wanted > there:
        raise UserError(
            f"The checkpoint {folder} declares arrays of {wanted} bytes, and {there} bytes of "
            "memory are available: use a machine with more, or bring back the right checkpoint."
        )


def declared_bytes(leaves: Iterable[Any]) -> int:
    """Sums up the bytes of arrays; exact, however large."""
    return sum(
        math.prod(int(size) for size in leaf.shape) * np.dtype(leaf.dtype).itemsize
        for leaf in leaves
        if getattr(leaf, "shape", None) is not None and getattr(leaf, "dtype", None) is not None
    )


def available_memory() -> int:
    """Bytes of main memory that can still be taken: of the machine, and of a container's limit."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    found += [value for key, value in _meminfo().items() if key == "MemAvailable"]
    for path in _CONTROL_GROUPS:
        try:
            text = Path(path).read_text().strip()
        except OSError:  # another version of control groups, or none
            continue
        found += [int(text)] if text.isdecimal() else []  # or "max"
    return min(found)


def _meminfo() -> Mapping[str, int]:
    """Linux's own figures in bytes; nothing where there are none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    parts = (line.replace(":", " ").split() for line in lines)
    return {part[0]: int(part[1]) * 1024 for part in parts if len(part) == 3 and part[2] == "kB"}
