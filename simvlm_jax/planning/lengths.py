"""How much of a padded batch is work on real tokens, for texts of stated lengths."""

import math
from collections.abc import Mapping

from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.flops import forward_flops

MOST_TOKENS = 1 << 20  # of one text; every place where it may be cut is computed
Histogram = Mapping[int, float]  # tokens of a text, and the weight of such texts


def parse(text: str) -> dict[int, float]:
    """Reads "8:1,16:2": a third of the texts has 8 tokens, the others 16.

    Raises:
      UserError: it is something else.
    """
    found: dict[int, float] = {}
    for part in text.split(","):
        tokens, _, weight = part.partition(":")
        try:
            found[int(tokens)] = float(weight or 1)
        except ValueError:
            found = {}
            break
    weights = found.values()
    if (
        not found
        or not 1 <= min(found) <= max(found) <= MOST_TOKENS
        or not all(0 < weight < math.inf for weight in weights)
    ):
        raise UserError(
            f"{text[:80]!r} is no histogram of lengths: write TOKENS:WEIGHT,TOKENS:WEIGHT, for "
            "example 8:1,16:2."
        )
    return found


def real_flops(
    config: SimVLMConfig, histogram: Histogram, prefix: int, length: int, with_image: bool
) -> float:
    """Mean forward operations of an example without its padding.

    A text of n tokens is cut after 0 to n - 1 of them with equal probability; what is longer than
    the batch has room for is left out.

    Args:
      config: the network.
      histogram: lengths of whole texts.
      prefix: room for prefix tokens.
      length: room for decoder tokens, of which the end of the text takes one.
      with_image: whether the example has an image.
    """
    total = weights = 0.0
    for tokens, weight in histogram.items():
        cuts = [
            forward_flops(config, min(cut, prefix), min(tokens - cut + 1, length), with_image)
            for cut in range(tokens)
        ]
        total += weight * sum(cuts) / tokens
        weights += weight
    return total / weights
