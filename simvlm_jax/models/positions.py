"""Relative positions: two-dimensional between image patches, bucketed between text tokens.

Dimension letters: B batch, N heads, H W grid rows and columns, P = H * W image tokens,
T query tokens, S key tokens.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from simvlm_jax.models.layers import named

BUCKETS = 32
MAX_DISTANCE = 128


def grid_offsets(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the bias table that belong to each (query, key) pair of patches.

    Example: on a 1 x 2 grid the columns are [[1, 2], [0, 1]]: patch 0 looking at patch 1 is one
    step to the right, entry 2 of the 2W-1 = 3 columns; looking at itself it is entry 1.

    Returns:
      rows, columns: int [P, P], in [0, 2H-2] and [0, 2W-2].
    """
    row, column = np.divmod(np.arange(height * width), width)
    rows = row[None, :] - row[:, None] + height - 1
    columns = column[None, :] - column[:, None] + width - 1
    return rows, columns


class ImageRelativeBias(nn.Module):
    """A trainable bias per head and patch offset (paper section 3.2; Dai et al. 2021, CoAtNet).

    Added to the attention logits between image tokens; pairs with a text token get zero. It
    starts at zero. One table per layer (the paper does not say whether layers share it).
    """

    heads: int
    grid: tuple[int, int]

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns float32 [N, P, P], indexed by query, then key."""
        height, width = self.grid
        names = ("relpos_heads", "relpos_rows", "relpos_columns")
        table = self.param(
            "table",
            named(nn.initializers.zeros_init(), names),
            (self.heads, 2 * height - 1, 2 * width - 1),
        )
        rows, columns = grid_offsets(height, width)
        return table[:, rows, columns]


def text_buckets(distance: jax.Array, bidirectional: bool) -> jax.Array:
    """T5's bucket of a relative distance (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one exact distance each, the rest grow logarithmically up to
    `MAX_DISTANCE`, beyond which all distances share the last one. Looking both ways, the upper
    half of the table is for keys to the right.

    Args:
      distance: int32, key position minus query position, any shape.
      bidirectional: False sends every key to the right to bucket 0 (a causal mask hides it).

    Returns:
      int32 bucket in [0, BUCKETS), same shape.
    """
    buckets = BUCKETS // 2 if bidirectional else BUCKETS
    offset = jnp.where(distance > 0, buckets, 0) if bidirectional else 0
    distance = jnp.abs(distance) if bidirectional else jnp.maximum(-distance, 0)
    exact = buckets // 2
    growth = jnp.log(jnp.maximum(distance, 1) / exact) / np.log(MAX_DISTANCE / exact)
    far = exact + (growth * (buckets - exact)).astype(jnp.int32)
    return offset + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))


class TextRelativeBias(nn.Module):
    """T5's bucketed relative position bias, one table shared by all layers of a stack."""

    heads: int
    bidirectional: bool

    @nn.compact
    def __call__(self, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
        """Bias between text tokens.

        Args:
          query_positions: int32 [B or 1, T].
          key_positions: int32 [B or 1, S].

        Returns:
          float32 [B or 1, N, T, S].
        """
        table = self.param(
            "table",
            named(nn.initializers.normal(0.02), ("relpos_buckets", "relpos_heads")),
            (BUCKETS, self.heads),
        )
        distance = key_positions[:, None, :] - query_positions[:, :, None]
        return jnp.moveaxis(table[text_buckets(distance, self.bidirectional)], -1, 1)
