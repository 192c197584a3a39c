"""SimVLM: image and text prefix in, the rest of the text out (Wang et al., ICLR 2022).

Dimension letters: B batch, R beams, H W image height and width, P image tokens, E prefix tokens,
T decoder tokens, S = P + E (or E without an image), D model width, V vocabulary, L layers,
N heads, K head width.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.conv_stage import ImageEmbedding
from simvlm_jax.models.layers import Dropout, constrain, named, norm
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

    def initial_parameters(self, rng: jax.Array, examples: int = 1) -> Any:
        """Fresh parameters, boxed with their logical axis names.

        Args:
          rng: random key.
          examples: of the blank batch that shows the network its shapes.
        """
        image = jnp.zeros((examples, *self.config.image_size, 3))
        token = jnp.zeros((examples, 1), jnp.int32)
        return self.init(rng, image, token, token)["params"]

    def embed_image(self, image: jax.Array) -> jax.Array:
        """Image tokens with their positions: [B, H, W, 3] -> [B, P, D].

        Args:
          image: uint8, as the data gives it; or float32 in [-1, 1].
        """
        if image.dtype == jnp.uint8:  # scaled here, so that a quarter of the bytes reach the device
            image = image.astype(jnp.float32) / 127.5 - 1.0
        tokens = self.image_embedding(constrain(image, "image_batch", None, None, None))
        tokens = tokens + self.image_positions.astype(tokens.dtype)
        return constrain(tokens, "batch", "length", "embed")

    def embed_text(self, tokens: jax.Array, positions: jax.Array, style: str) -> jax.Array:
        """Text tokens [B, T] at integer positions [B or 1, T] -> [B, T, D]."""
        return self._place(self.token_embedding[tokens], positions, style)

    def _look_up(self, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """Rows of the token table for several arrays of tokens.

        In one go: the table's gradient is a table for each go, and all devices add them up.

        Args:
          arrays: int32, each [B, T].

        Returns:
          float32, each [B, T, D].
        """
        sizes = [tokens.shape[0] for tokens in arrays]  # one of them may be a symbol, for export
        groups = functools.reduce(math.gcd, sizes)  # as the devices cut a batch
        joined = jnp.concatenate([tokens.reshape(groups, -1) for tokens in arrays], axis=1)
        rows = constrain(self.token_embedding[joined], "batch", "length", "embed")
        start, found = 0, []
        for tokens in arrays:
            stop = start + tokens.size // groups
            found.append(rows[:, start:stop].reshape(*tokens.shape, -1))
            start = stop
        return found

    def _place(self, x: jax.Array, positions: jax.Array, style: str) -> jax.Array:
        """Rows of the token table [B, T, D] with their positions, in the compute dtype."""
        if style == "vit":
            x = x + self.text_positions[positions]
        return constrain(x.astype(self.config.dtype), "batch", "length", "embed")

    def _embed_prefix(
        self, image: jax.Array | None, tokens: jax.Array, rows: jax.Array, style: str
    ) -> tuple[jax.Array, jax.Array, int]:
        """Returns x [B, S, D], mask [B, S] and the number of image tokens in it."""
        x = self._place(rows, jnp.arange(tokens.shape[1])[None], style)
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
        rows = self._look_up([encoder_input_tokens])
        return self._encode([(image, encoder_input_tokens, *rows)])[0]

    def _encode(self, inputs: Sequence[tuple]) -> list[tuple[jax.Array, jax.Array]]:
        """`encode` of several kinds of input in one pass over the layers."""
        xs, arounds, masks = [], [], []
        style = self.config.encoder_style
        for image, tokens, rows in inputs:
            x, mask, image_tokens = self._embed_prefix(image, tokens, rows, style)
            bias = None
            if style == "t5":
                positions = jnp.arange(tokens.shape[1])[None]
                bias = pad_front(self.encoder_text_bias(positions, positions), image_tokens)
            seen = mask[:, None, None, :]
            arounds.append(Surroundings(seen, bias, has_image=image is not None))
            xs.append(self.dropout(x))
            masks.append(mask)
        states = self.encoder(tuple(xs), tuple(arounds))
        states = [self.dropout(self.encoder_norm(x)) for x in states]
        return list(zip(states, masks, strict=True))

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
        return self.several([(image, encoder_input_tokens, decoder_input_tokens)])[0]

    def several(
        self, inputs: Sequence[tuple[jax.Array | None, jax.Array, jax.Array]]
    ) -> list[jax.Array]:
        """Teacher-forced logits of several kinds of example in one pass over the layers.

        Pairs and documents differ in length and documents have no image: padded to one shape they
        would cost four times as much, run one after the other they would gather all weights twice.

        Args:
          inputs: (image, encoder_input_tokens, decoder_input_tokens) of each, as `__call__` takes
            them.

        Returns:
          float32 [B, T, V] of each.
        """
        return [self.logits(x) for x in self.decoder_states(inputs)]

    def decoder_states(
        self, inputs: Sequence[tuple[jax.Array | None, jax.Array, jax.Array]]
    ) -> Sequence[jax.Array]:
        """What the last layer makes of every decoder token, before the final norm.

        Args:
          inputs: as `several` takes them.

        Returns:
          [B, T, D] of each.
        """
        for _, prefix, tokens in inputs:
            self._check_lengths(prefix.shape[1], tokens.shape[1])
        texts = [text for _, prefix, tokens in inputs for text in (prefix, tokens)]
        rows = self._look_up(texts)
        run = self._decoder_only if self.config.decoder_only else self._encoder_decoder
        return run(inputs, rows[::2], rows[1::2])

    def _encoder_decoder(
        self, inputs: Sequence[tuple], prefix_rows: Sequence[jax.Array], rows: Sequence[jax.Array]
    ) -> Sequence[jax.Array]:
        prefixes = zip(inputs, prefix_rows, strict=True)
        encoded = self._encode([(image, prefix, row) for (image, prefix, _), row in prefixes])
        xs, arounds = [], []
        for (memory, mask), row in zip(encoded, rows, strict=True):
            positions = jnp.arange(row.shape[1])[None]
            x = self._place(row, positions, self.config.decoder_style)
            xs.append(self.dropout(x))
            causal = prefix_lm_mask(0, row.shape[1])
            bias = self._decoder_bias(positions, positions)
            arounds.append(Surroundings(causal, bias, memory, mask[:, None, None, :]))
        return self.decoder(tuple(xs), tuple(arounds))

    def _decoder_only(
        self, inputs: Sequence[tuple], prefix_rows: Sequence[jax.Array], rows: Sequence[jax.Array]
    ) -> Sequence[jax.Array]:
        """One trunk over [image, prefix, BOS, text]; text positions run on after the prefix."""
        config = self.config
        xs, arounds, before = [], [], []
        for (image, prefix_tokens, _), prefix_row, row in zip(
            inputs, prefix_rows, rows, strict=True
        ):
            x, mask, image_tokens = self._embed_prefix(
                image, prefix_tokens, prefix_row, config.decoder_style
            )
            length, prefix = row.shape[1], x.shape[1]
            positions = text_positions(prefix_tokens, length)
            after = self._place(row, positions[:, -length:], config.decoder_style)
            real = jnp.pad(mask, ((0, 0), (0, length)), constant_values=True)
            seen = prefix_lm_mask(prefix if config.bidirectional_prefix else 0, prefix + length)
            bias = self._decoder_bias(positions, positions, image_tokens)
            seen = seen & real[:, None, None, :]
            arounds.append(Surroundings(seen, bias, has_image=image is not None))
            xs.append(self.dropout(jnp.concatenate([x, after], axis=1)))
            before.append(prefix)
        xs = self.decoder(tuple(xs), tuple(arounds))
        return [x[:, prefix:] for x, prefix in zip(xs, before, strict=True)]

    def finish(self, x: jax.Array) -> jax.Array:
        """The final norm of decoder states, and dropout: [..., D] -> [..., D]."""
        return self.dropout(self.decoder_norm(x))

    def logits(self, x: jax.Array) -> jax.Array:
        """Final norm and tied softmax: [..., D] -> float32 [..., V]."""
        x = self.finish(x)
        table = self.token_embedding.astype(x.dtype)
        logits = jnp.einsum("...d,vd->...v", x, table, preferred_element_type=jnp.float32)
        return constrain(logits, "batch", "length", "vocab")

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
        rows = self._look_up([tokens])
        x, mask, image_tokens = self._embed_prefix(image, tokens, *rows, config.decoder_style)
        seen = prefix_lm_mask(x.shape[1] if config.bidirectional_prefix else 0, x.shape[1])
        positions = jnp.arange(tokens.shape[1])[None]
        bias = self._decoder_bias(positions, positions, image_tokens)
        around = Surroundings(seen & mask[:, None, None, :], bias, has_image=image is not None)
        return self.decoder.prefix_keys(x, around), mask

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
