"""A part of a task's records: a seeded one per cent for learning from few examples.

The records keep their ids, so an example of the part is what it is in the whole.
"""

from collections.abc import Sequence

import numpy as np

from simvlm_jax.data.order import locate
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.errors import UserError


class Part:
    """Some records of others, numbered anew; it offers what a stream asks of `Records`."""

    def __init__(self, records: Records, chosen: np.ndarray):
        """Takes the records and which of them to keep, int64 [n], ascending."""
        self._records, self._chosen = records, chosen
        self.shards = records.shards
        # Of each shard, the first index after it, as Records has it.
        self.ends = tuple(np.searchsorted(chosen, np.array(records.ends, np.int64)).tolist())

    def __len__(self) -> int:
        """Returns the number of records of the part."""
        return len(self._chosen)

    def read(self, indices: np.ndarray | Sequence[int]) -> list[bytes | Unreadable]:
        """Reads records by their index in the part; see `Records.read`."""
        return self._records.read(self.whole_indices(indices))

    def whole_indices(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Returns which records of the whole those of the part are, int64 [n]."""
        return self._chosen[np.asarray(indices, np.int64)]

    def name(self, index: int) -> tuple[str, str]:
        """Returns (shard, key) of a record, by which a person finds it again."""
        return self._records.name(int(self._chosen[index]))


def part_of(records: Records, fraction: float, key: int, owner: str) -> Part:
    """Chooses a part of records, the same for the same key, a smaller part within a larger one.

    Example: of 1,000 records, 0.01 keeps the first ten of a permutation that the key tells, 0.1
    the first hundred of the same one. A part is counted in records and rounded to whole ones.

    Args:
      records: all of them.
      fraction: how large a part, in (0, 1].
      key: from `order_key`; another key chooses others.
      owner: whose they are, for sentences, for example "the task 'coco_captions'".

    Returns:
      The part, in the order of the whole.

    Raises:
      UserError: the fraction is not in (0, 1], or leaves no record.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"The fraction {fraction} of {owner} must lie in (0, 1], such as 0.01.")
    count = round(len(records) * fraction)
    if not count:
        raise UserError(
            f"The fraction {fraction} of {owner} leaves none of its {len(records)} examples; use a "
            "larger one."
        )
    _, chosen = locate(np.arange(count, dtype=np.int64), len(records), key)
    return Part(records, np.sort(chosen))
