"""The order of training examples, a function of (seed, task, position): the step is its state.

Example `position` of a task is counted from the run's start through all epochs. Epoch e shows every
record once, in a permutation of its own, computed index by index: nothing is ever materialised,
and starting at step one million costs what starting at step 0 costs.
"""

import hashlib

import numpy as np
import tensorflow as tf

ROUNDS = 24


def order_key(seed: int, name: str) -> int:
    """Returns a 63-bit number that differs between seeds and between tasks."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def locate(positions: np.ndarray, records: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives the epoch of each position, and the record that is shown there.

    Example with 3 records: positions 0, 1, 2 are epoch 0, in an order such as 2, 0, 1; positions
    3, 4, 5 are epoch 1, in another.

    Args:
      positions: int64 [n].
      records: how many records there are.
      key: from `order_key`.

    Returns:
      (epochs, indices), int64 [n], 0 <= index < records.
    """
    epochs, places = np.divmod(positions, records)
    different, which = np.unique(epochs, return_inverse=True)
    seeds = np.stack([_epoch_seed(key, int(epoch)) for epoch in different])
    # tf.random.experimental.index_shuffle is this op for one seed and 4 rounds; positions may span
    # two epochs, and after 4 rounds the orders of two seeds still resemble one another.
    indices = tf.raw_ops.RandomIndexShuffle(
        index=places,
        seed=seeds[which],
        max_index=np.full_like(places, records - 1),
        rounds=ROUNDS,
    )
    return epochs, indices.numpy()


def _epoch_seed(key: int, epoch: int) -> np.ndarray:
    """int64 [3]: hashed, for the op takes only some bits of each number it is given."""
    return np.frombuffer(hashlib.sha256(f"{key}/{epoch}".encode()).digest()[:24], np.int64)


def positions_of(step: int, groups: np.ndarray, groups_in_batch: int, per_group: int) -> np.ndarray:
    """Gives the positions of the examples that some groups of a batch show.

    Example, batches of 4 groups with 2 examples each: groups 2 and 3 of step 0 show positions
    4, 5 and 6, 7; in step 1 they show 12, 13 and 14, 15.

    Args:
      step: counted from 0.
      groups: int64 [g], 0 <= group < groups_in_batch.
      groups_in_batch: of all processes together.
      per_group: examples of the task in a group.

    Returns:
      int64 [g * per_group].
    """
    first = (step * groups_in_batch + groups) * per_group
    return (first[:, None] + np.arange(per_group, dtype=np.int64)).reshape(-1)
