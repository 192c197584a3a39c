"""Which files a split has: paths and glob patterns, from the data folder on."""

import glob
from collections.abc import Sequence

from simvlm_jax.data.paths import data_dir
from simvlm_jax.errors import UserError

Patterns = str | Sequence[str]


def expand(patterns: Patterns) -> list[str]:
    """Finds the files of a split.

    Args:
      patterns: a path or glob pattern (`**` for folders at any depth), or several; relative ones
        start at the data folder.

    Returns:
      Paths, sorted within each pattern, the patterns in their order.

    Raises:
      UserError: there is no file for a pattern.
    """
    found = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        place = str(data_dir() / pattern)
        paths = sorted(glob.glob(place, recursive=True))
        if not paths:
            raise UserError(f"There is no file {place}; check the split's paths.")
        found += paths
    return found
