"""The order of training examples, a function of (seed, task, position): the step is its state.

Example `position` of a task is counted from the run's start through all epochs. Epoch e shows every
record once, in a permutation of its own, computed index by index: nothing is ever materialised,
and starting at step one million costs what starting at step 0 costs.
"""

import hashlib

import numpy as np
import tensorflow as tf

SALT = 498247692  # what index_shuffle puts before a seed of two numbers


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
    salts, keys, last = (np.full_like(epochs, number) for number in (SALT, key, records - 1))
    # tf.random.experimental.index_shuffle is this op for one seed; positions may span two epochs.
    indices = tf.raw_ops.RandomIndexShuffle(
        index=places, seed=np.stack([salts, keys, epochs], axis=1), max_index=last, rounds=4
    )
    return epochs, indices.numpy()


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
