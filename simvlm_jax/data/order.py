"""The order of training examples, a function of (seed, task, position): the step is its state.

Example `position` of a task is counted from the run's start through all epochs. Epoch e shows every
record once, in a permutation of its own, computed index by index: nothing is ever materialised,
and starting at step one million costs what starting at step 0 costs.
"""

import hashlib

import tensorflow as tf

SALT = 498247692  # what index_shuffle puts before a seed of two numbers


def order_key(seed: int, name: str) -> int:
    """Returns a 63-bit number that differs between seeds and between tasks."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def locate(positions: tf.Tensor, records: int, key: int) -> tuple[tf.Tensor, tf.Tensor]:
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
    epochs, places = positions // records, positions % records
    salts, keys, last = (
        tf.fill(tf.shape(epochs), tf.constant(number, tf.int64))
        for number in (SALT, key, records - 1)
    )
    # tf.random.experimental.index_shuffle is this op for one seed; positions may span two epochs.
    indices = tf.raw_ops.RandomIndexShuffle(
        index=places, seed=tf.stack([salts, keys, epochs], axis=1), max_index=last, rounds=4
    )
    return epochs, indices


def global_position(local: tf.Tensor, per_step: int, host_index: int, host_count: int) -> tf.Tensor:
    """Turns a host's own count of examples into a position.

    Every host takes a contiguous slice of every global batch. Example, 2 hosts, 3 examples each
    per step: host 1's examples 0 to 5 are positions 3, 4, 5 (step 0) and 9, 10, 11 (step 1).

    Args:
      local: int64, any shape: how many examples the host has taken before.
      per_step: examples that one host takes in one step.
      host_index: 0 <= host_index < host_count.
      host_count: number of hosts.

    Returns:
      int64 positions of the shape of `local`.
    """
    step, offset = local // per_step, local % per_step
    return (step * host_count + host_index) * per_step + offset
