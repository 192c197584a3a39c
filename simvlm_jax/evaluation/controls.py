"""Pairings for controls: does the model look at its image, or only guess well?"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from simvlm_jax.errors import UserError


def derangement(count: int, seed: int) -> np.ndarray:
    """A permutation that leaves nothing in its place, uniformly among those.

    Example: `images[derangement(len(images), 0)]` gives every caption a wrong image.

    Args:
      count: n, at least 2.
      seed: The same seed gives the same permutation.

    Returns:
      int64 [n].

    Raises:
      UserError: n is below 2.
    """
    if count < 2:
        raise UserError(f"Shuffling needs at least 2 examples, not {count}; use a larger split.")
    generator = np.random.default_rng(seed)
    while True:  # a permutation has no fixed point with probability 1/e, whatever n
        order = generator.permutation(count)
        if not np.any(order == np.arange(count)):
            return order


def derangement_by_label(labels: Sequence[Hashable], seed: int) -> np.ndarray:
    """A permutation that brings every example another label, so that no pair is right by luck.

    The examples are laid out label by label, in random order, and every one takes the place that
    lies ahead by the size of the largest label, which no block of equal labels can span. Example:
    laid out as a a b c, size 2, the partners are b c a a.

    Args:
      labels: n labels, captions for instance.
      seed: The same seed gives the same permutation.

    Returns:
      int64 [n] with `labels[result[i]] != labels[i]`.

    Raises:
      UserError: n is below 2, or one label is more than half of all, so that none exists.
    """
    count = len(labels)
    if count < 2:
        raise UserError(f"Shuffling needs at least 2 examples, not {count}; use a larger split.")
    label, largest = Counter(labels).most_common(1)[0]
    if 2 * largest > count:
        raise UserError(
            f"{largest} of {count} examples carry the label {label!r}, so they cannot all get "
            "another one; use a split in which no label is more than half."
        )
    order = np.random.default_rng(seed).permutation(count)
    first_seen = {}
    for place in order:
        first_seen.setdefault(labels[place], len(first_seen))
    layout = np.array(sorted(order, key=lambda place: first_seen[labels[place]]))
    result = np.empty(count, np.int64)
    result[layout] = np.roll(layout, -largest)
    return result
