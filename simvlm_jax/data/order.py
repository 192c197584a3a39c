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


def positions_of(step: int, per_step: int, host_index: int, host_count: int) -> np.ndarray:
    """Gives the positions of a host's examples in one step.

    Every host takes a contiguous slice of every global batch. Example, 2 hosts, 3 examples each
    per step: host 1 takes positions 3, 4, 5 in step 0 and 9, 10, 11 in step 1.

    Args:
      step: counted from 0.
      per_step: examples that one host takes in one step.
      host_index: 0 <= host_index < host_count.
      host_count: number of hosts.

    Returns:
      int64 [per_step].
    """
    first = (step * host_count + host_index) * per_step
    return np.arange(first, first + per_step, dtype=np.int64)
