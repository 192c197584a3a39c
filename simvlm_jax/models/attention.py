"""Multi-head attention over whole sequences and, with cached keys and values, one step at a time.

Dimension letters: B batch, R beams, T query tokens, S key tokens, D model width, N heads,
K head width. Kernels are stored as [D, N*K]: a head width that is no multiple of 128 would be
padded on TPU if it had an axis of its own.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.layers import constrain, dense


class Keys(NamedTuple):
    """What one query may look at.

    Attributes:
      keys: [B, S, N, K] shared by all beams, or [B, R, S, N, K] of each beam.
      values: the same shape.
      mask: bool, True where a query may look, broadcastable to [B, N, T, S].
      bias: None or float32 added to the logits, broadcastable to [B, N, T, S].
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array
    bias: jax.Array | None = None


def masked_softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax over the last axis among the unmasked entries, in float32.

    A row with nothing to look at becomes all zeros, not an average over padding: a text-only
    example with an empty prefix has no encoder token at all.

    Args:
      logits: [..., S].
      mask: bool, broadcastable to the logits.
    """
    logits = jnp.where(mask, logits.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    return jnp.where(mask, jax.nn.softmax(logits, axis=-1), 0.0)


class Attention(nn.Module):
    """Queries from one sequence, keys and values from the same or another one."""

    config: SimVLMConfig
    style: str

    def setup(self) -> None:
        """Makes the four projections."""
        config = self.config
        inner = ("embed", "joined_kv")
        self.query = dense(config.width, inner, self.style, config.dtype)
        self.key = dense(config.width, inner, self.style, config.dtype)
        self.value = dense(config.width, inner, self.style, config.dtype)
        self.out = dense(config.width, inner[::-1], self.style, config.dtype)

    def _heads(self, x: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[:-1], self.config.heads, self.config.head_width)
        return constrain(x, "batch", "length", "heads", "kv")

    def keys_values(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values, each [..., N, K], of memory [..., D]."""
        return self._heads(self.key(memory)), self._heads(self.value(memory))

    def __call__(self, x: jax.Array, source: Keys) -> jax.Array:
        """Attends from every token of x.

        Args:
          x: [B, T, D] queries.
          source: keys and values [B, S, N, K], mask and bias.

        Returns:
          [B, T, D].
        """
        query = self._heads(self.query(x)) * self.config.head_width**-0.5
        logits = jnp.einsum(
            "btnk,bsnk->bnts", query, source.keys, preferred_element_type=jnp.float32
        )
        if source.bias is not None:
            logits = logits + source.bias
        weights = masked_softmax(logits, source.mask)
        # Kept only for a caller that makes "intermediates" mutable; else nothing is computed.
        self.sow("intermediates", "weights", weights)
        mixed = jnp.einsum("bnts,bsnk->btnk", weights.astype(x.dtype), source.values)
        return self.out(mixed.reshape(*mixed.shape[:-2], -1))

    def step(self, x: jax.Array, shared: Keys | None, own: Keys | None) -> jax.Array:
        """Attends from the newest token of every beam.

        The beams of an example are queries of one attention over what they share, so that part
        is neither copied per beam nor moved when beams are reordered.

        Args:
          x: [B, R, D], one token per beam.
          shared: keys and values [B, S, N, K] common to the beams, or None.
          own: keys and values [B, R, S', N, K] of each beam, or None.

        Returns:
          [B, R, D].
        """
        query = self._heads(self.query(x)) * self.config.head_width**-0.5
        logits, masks = [], []
        for part, spec in ((shared, "brnk,bsnk->bnrs"), (own, "brnk,brsnk->bnrs")):
            if part is None:
                continue
            scores = jnp.einsum(spec, query, part.keys, preferred_element_type=jnp.float32)
            logits.append(scores if part.bias is None else scores + part.bias)
            masks.append(jnp.broadcast_to(part.mask, scores.shape))
        weights = masked_softmax(jnp.concatenate(logits, -1), jnp.concatenate(masks, -1))
        weights = weights.astype(x.dtype)
        split = 0 if shared is None else shared.keys.shape[1]
        mixed = jnp.zeros_like(query)
        if shared is not None:
            mixed += jnp.einsum("bnrs,bsnk->brnk", weights[..., :split], shared.values)
        if own is not None:
            mixed += jnp.einsum("bnrs,brsnk->brnk", weights[..., split:], own.values)
        return self.out(mixed.reshape(x.shape))
