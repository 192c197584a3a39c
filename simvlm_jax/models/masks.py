"""Which token may look at which, and where each text token stands.

Dimension letters: B batch, N heads, P image tokens, E prefix tokens, T decoder tokens,
S = P + E prefix positions.
"""

import jax
import jax.numpy as jnp

PAD = 0


def prefix_mask(encoder_input_tokens: jax.Array, image_tokens: int) -> jax.Array:
    """Which prefix positions are real: every image token, and text that is not padding.

    Example: tokens [[7, 8, 0]] after 2 image tokens give [[True, True, True, True, False]].

    Args:
      encoder_input_tokens: int32 [B, E].
      image_tokens: P, or 0 without an image.

    Returns:
      bool [B, P + E].
    """
    return jnp.pad(encoder_input_tokens != PAD, ((0, 0), (image_tokens, 0)), constant_values=True)


def prefix_lm_mask(prefix: int, length: int) -> jax.Array:
    """Bidirectional among the first `prefix` positions, causal after them (paper section 3.1).

    Example: prefix_lm_mask(2, 4), rows are queries:

        1 1 0 0
        1 1 0 0
        1 1 1 0
        1 1 1 1

    Args:
      prefix: positions that see one another; 0 gives a plain causal mask.
      length: all positions.

    Returns:
      bool [length, length].
    """
    position = jnp.arange(length)
    inside = position < prefix
    return (position[None, :] <= position[:, None]) | (inside[None, :] & inside[:, None])


def text_positions(encoder_input_tokens: jax.Array, length: int) -> jax.Array:
    """Text positions of a decoder-only model: the decoder's tokens go on after the real prefix.

    Example: prefix [[7, 8, 0]] and 2 decoder tokens give [[0, 1, 2, 2, 3]] (the padding's 2 is
    masked, so position 2 is used once).

    Args:
      encoder_input_tokens: int32 [B, E].
      length: number of decoder tokens T.

    Returns:
      int32 [B, E + T].
    """
    batch, prefix = encoder_input_tokens.shape
    first = jnp.sum(encoder_input_tokens != PAD, axis=1, keepdims=True)
    before = jnp.broadcast_to(jnp.arange(prefix)[None], (batch, prefix))
    return jnp.concatenate([before, first + jnp.arange(length)[None]], axis=1)


def last_positions(tokens: jax.Array) -> jax.Array:
    """Where each text has its last real token; 0, the start token's place, if it has none.

    Example: [[0, 7, 8, 0], [0, 0, 0, 0]] gives [2, 0].

    Args:
      tokens: int32 [B, T], decoder inputs: 0 first, then the text, 0 after it.

    Returns:
      int32 [B].
    """
    return jnp.max(jnp.where(tokens != PAD, jnp.arange(tokens.shape[1]), 0), axis=1)


def pad_front(bias: jax.Array, image_tokens: int, keys_only: bool = False) -> jax.Array:
    """A text bias [B, N, T, E] with zeros for image tokens put before the text.

    Args:
      bias: float32 [B or 1, N, T, E].
      image_tokens: how many zeros to put in front.
      keys_only: the queries are text alone; only keys get image positions.

    Returns:
      float32 [B or 1, N, T or P + T, P + E].
    """
    rows = 0 if keys_only else image_tokens
    return jnp.pad(bias, ((0, 0), (0, 0), (rows, 0), (image_tokens, 0)))
