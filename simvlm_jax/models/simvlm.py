"""SimVLM: image and text prefix in, the rest of the text out (Wang et al., ICLR 2022).

Dimension letters: B batch, R beams, H W image height and width, P image tokens, E prefix tokens,
T decoder tokens, S = P + E (or E without an image), D model width, V vocabulary, L layers,
N heads, K head width.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.conv_stage import ImageEmbedding
from simvlm_jax.models.layers import Dropout, named, norm
from simvlm_jax.models.masks import PAD, pad_front, prefix_lm_mask, prefix_mask, text_positions
from simvlm_jax.models.positions import TextRelativeBias
from simvlm_jax.models.transformer import Stack, StepSurroundings, Surroundings


class Prefix(NamedTuple):
    """The prefix as the decoder meets it while generating.

    Attributes:
      keys_values: keys and values, each [L, B, S, N, K]: cross-attention's in an
        encoder-decoder, the prefix's own self-attention's in a decoder-only model.
      mask: bool [B, S], False on padding.
      text_mask: bool [B, E], the text's part of it.
    """

    keys_values: tuple[jax.Array, jax.Array]
    mask: jax.Array
    text_mask: jax.Array


class SimVLM(nn.Module):
    """The network, encoder-decoder or decoder-only by its configuration."""

    config: SimVLMConfig

    def setup(self) -> None:
        """Makes embeddings, trunk and final norms."""
        config = self.config
        table = nn.initializers.normal(0.02)
        self.image_embedding = ImageEmbedding(config)
        self.image_positions = self.param(
            "image_positions",
            named(table, ("abspos_buckets", "embed")),
            (config.image_tokens, config.width),
        )
        self.token_embedding = self.param(
            "token_embedding",
            named(table, ("vocab", "embed")),
            (config.vocabulary_size, config.width),
        )
        if "vit" in self._styles:
            self.text_positions = self.param(
                "text_positions",
                named(table, ("abspos_buckets", "embed")),
                (config.text_length, config.width),
            )
        if not config.decoder_only:
            self.encoder = Stack(
                config,
                config.encoder_style,
                config.encoder_layers,
                cross=False,
                has_image=True,
                stochastic_depth_rate=config.stochastic_depth_rate,
            )
            self.encoder_norm = norm(config.encoder_style, config.dtype)
            if config.encoder_style == "t5":
                self.encoder_text_bias = TextRelativeBias(config.heads, bidirectional=True)
        self.decoder = Stack(
            config,
            config.decoder_style,
            config.decoder_layers,
            cross=not config.decoder_only,
            has_image=config.decoder_only,
        )
        self.decoder_norm = norm(config.decoder_style, config.dtype)
        if config.decoder_style == "t5":
            self.decoder_text_bias = TextRelativeBias(
                config.heads, bidirectional=config.decoder_only and config.bidirectional_prefix
            )
        self.dropout = Dropout(config.dropout_rate)

    @property
    def _styles(self) -> tuple[str, ...]:
        config = self.config
        encoder = () if config.decoder_only else (config.encoder_style,)
        return (*encoder, config.decoder_style)

    def embed_image(self, image: jax.Array) -> jax.Array:
        """Image tokens with their positions: [B, H, W, 3] -> [B, P, D].

        Args:
          image: uint8, as the data gives it; or float32 in [-1, 1].
        """
        if image.dtype == jnp.uint8:  # scaled here, so that a quarter of the bytes reach the device
            image = image.astype(jnp.float32) / 127.5 - 1.0
        tokens = self.image_embedding(image)
        return tokens + self.image_positions.astype(tokens.dtype)

    def embed_text(self, tokens: jax.Array, positions: jax.Array, style: str) -> jax.Array:
        """Text tokens [B, T] at integer positions [B or 1, T] -> [B, T, D]."""
        x = self.token_embedding[tokens]
        if style == "vit":
            x = x + self.text_positions[positions]
        return x.astype(self.config.dtype)

    def _embed_prefix(self, image: jax.Array | None, tokens: jax.Array, style: str):
        """Returns x [B, S, D], mask [B, S] and the number of image tokens in it."""
        x = self.embed_text(tokens, jnp.arange(tokens.shape[1])[None], style)
        if image is None:
            return x, prefix_mask(tokens, 0), 0
        x = jnp.concatenate([self.embed_image(image), x], axis=1)
        return x, prefix_mask(tokens, self.config.image_tokens), self.config.image_tokens

    def encode(
        self, image: jax.Array | None, encoder_input_tokens: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Image and text prefix, attended bidirectionally (paper section 3.1).

        Args:
          image: uint8 [B, H, W, 3] (or float32 in [-1, 1]), or None for text-only input, which
            never runs the conv stage.
          encoder_input_tokens: int32 [B, E], 0 is padding.

        Returns:
          states [B, S, D] and mask bool [B, S].
        """
        x, mask, image_tokens = self._embed_prefix(
            image, encoder_input_tokens, self.config.encoder_style
        )
        bias = None
        if self.config.encoder_style == "t5":
            positions = jnp.arange(encoder_input_tokens.shape[1])[None]
            bias = pad_front(self.encoder_text_bias(positions, positions), image_tokens)
        around = Surroundings(mask[:, None, None, :], bias)
        x = self.encoder(self.dropout(x), around, with_image=image is not None)
        return self.dropout(self.encoder_norm(x)), mask

    def __call__(
        self,
        image: jax.Array | None,
        encoder_input_tokens: jax.Array,
        decoder_input_tokens: jax.Array,
    ) -> jax.Array:
        """Teacher-forced logits.

        Args:
          image: uint8 [B, H, W, 3] (or float32 in [-1, 1]) or None.
          encoder_input_tokens: int32 [B, E], the text prefix, 0 is padding.
          decoder_input_tokens: int32 [B, T], targets shifted right by one with 0 first.

        Returns:
          float32 [B, T, V].
        """
        self._check_lengths(encoder_input_tokens.shape[1], decoder_input_tokens.shape[1])
        run = self._decoder_only if self.config.decoder_only else self._encoder_decoder
        return self.logits(run(image, encoder_input_tokens, decoder_input_tokens))

    def _encoder_decoder(self, image, encoder_input_tokens, decoder_input_tokens):
        memory, memory_mask = self.encode(image, encoder_input_tokens)
        length = decoder_input_tokens.shape[1]
        positions = jnp.arange(length)[None]
        x = self.embed_text(decoder_input_tokens, positions, self.config.decoder_style)
        around = Surroundings(
            prefix_lm_mask(0, length),
            self._decoder_bias(positions, positions),
            memory,
            memory_mask[:, None, None, :],
        )
        return self.decoder(self.dropout(x), around, with_image=False)

    def _decoder_only(self, image, prefix_tokens, tokens):
        """One trunk over [image, prefix, BOS, text]; text positions run on after the prefix."""
        config, length = self.config, tokens.shape[1]
        prefix, mask, image_tokens = self._embed_prefix(image, prefix_tokens, config.decoder_style)
        positions = text_positions(prefix_tokens, length)
        after = self.embed_text(
            tokens, positions[:, prefix_tokens.shape[1] :], config.decoder_style
        )
        x = self.dropout(jnp.concatenate([prefix, after], axis=1))
        real = jnp.pad(mask, ((0, 0), (0, length)), constant_values=True)
        seen = prefix_lm_mask(mask.shape[1] if config.bidirectional_prefix else 0, x.shape[1])
        bias = self._decoder_bias(positions, positions, image_tokens)
        around = Surroundings(seen & real[:, None, None, :], bias)
        x = self.decoder(x, around, with_image=image is not None)
        return x[:, prefix.shape[1] :]

    def logits(self, x: jax.Array) -> jax.Array:
        """Final norm and tied softmax: [..., D] -> float32 [..., V]."""
        x = self.dropout(self.decoder_norm(x))
        table = self.token_embedding.astype(x.dtype)
        return jnp.einsum("...d,vd->...v", x, table, preferred_element_type=jnp.float32)

    def start(self, image: jax.Array | None, encoder_input_tokens: jax.Array) -> Prefix:
        """Runs the prefix once and keeps what decoding needs of it.

        Args:
          image: uint8 [B, H, W, 3] (or float32 in [-1, 1]) or None.
          encoder_input_tokens: int32 [B, E], 0 is padding.
        """
        self._check_lengths(encoder_input_tokens.shape[1], 0)
        text_mask = encoder_input_tokens != PAD
        if self.config.decoder_only:
            keys_values, mask = self._prefix_keys(image, encoder_input_tokens)
            return Prefix(keys_values, mask, text_mask)
        memory, mask = self.encode(image, encoder_input_tokens)
        return Prefix(self.decoder.memory_keys(memory), mask, text_mask)

    def _prefix_keys(self, image, tokens):
        """A decoder-only trunk over the prefix alone: its keys and values, and the mask [B, S]."""
        config = self.config
        x, mask, image_tokens = self._embed_prefix(image, tokens, config.decoder_style)
        seen = prefix_lm_mask(x.shape[1] if config.bidirectional_prefix else 0, x.shape[1])
        positions = jnp.arange(tokens.shape[1])[None]
        bias = self._decoder_bias(positions, positions, image_tokens)
        around = Surroundings(seen & mask[:, None, None, :], bias)
        return self.decoder(x, around, image is not None, return_keys=True)[1], mask

    def _decoder_bias(self, queries, keys, image_tokens=0, keys_only=False):
        """The T5 style's bias between text positions, zero with image tokens; else None."""
        if self.config.decoder_style != "t5":
            return None
        return pad_front(self.decoder_text_bias(queries, keys), image_tokens, keys_only)

    def _check_lengths(self, prefix: int, length: int) -> None:
        """Refuses text that the position table does not reach: a gather would clamp silently."""
        longest = prefix + length if self.config.decoder_only else max(prefix, length)
        if "vit" in self._styles and longest > self.config.text_length:
            raise UserError(
                f"A text of {longest} tokens does not fit the position table of "
                f"text_length={self.config.text_length}; shorten the task's features or set a "
                "larger text_length."
            )

    def empty_cache(self, batch: int, beams: int, length: int) -> tuple[jax.Array, jax.Array]:
        """Zero keys and values [L, B, R, T, N, K] for `length` generated tokens."""
        config = self.config
        shape = (config.decoder_layers, batch, beams, length, config.heads, config.head_width)
        return jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)

    def step(self, tokens: jax.Array, index: jax.Array, prefix: Prefix, cache):
        """The next token's logits.

        Args:
          tokens: int32 [B, R], the newest token of each beam (0 at the start).
          index: int32 scalar, how many tokens came before it.
          prefix: from `start`.
          cache: keys and values from `empty_cache` or the last step.

        Returns:
          float32 [B, R, V] and the cache with this token.
        """
        config = self.config
        offset = jnp.sum(prefix.text_mask, axis=1) * config.decoder_only
        position = (offset + index)[:, None]
        x = self.embed_text(tokens, position, config.decoder_style)
        own = offset[:, None] + jnp.arange(cache[0].shape[3])
        shared_bias = None
        if config.decoder_only:
            text = prefix.text_mask.shape[1]
            before = prefix.mask.shape[1] - text
            shared_bias = self._decoder_bias(position, jnp.arange(text)[None], before, True)
        around = StepSurroundings(
            index, self._decoder_bias(position, own), prefix.mask, shared_bias
        )
        x, cache = self.decoder.step(x, prefix.keys_values, cache, around)
        return self.logits(x), cache
