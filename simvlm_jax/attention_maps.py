"""Where the decoder looks in an image while it writes: attention weights as maps.

Dimension letters: B batch, L decoder layers, N heads, P image tokens (rows x columns), E prefix
tokens, T generated tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simvlm_jax.data.pieces import Word
from simvlm_jax.errors import UserError
from simvlm_jax.model import PrefixLMModel
from simvlm_jax.models.layouts import unscan

PAD = 0
WEIGHTS = "intermediates"  # the collection that attention layers sow into, if it is asked for


def attention_maps(
    model: PrefixLMModel,
    params: Any,
    batch: Mapping[str, jax.Array],
    tokens: jax.Array,
    layer: int | None = None,
) -> jax.Array:
    """Attention to each image token at the moment each text token was chosen.

    One teacher-forced pass; generating keeps no weights and is as fast as without. Weights are
    those of cross-attention, or of a decoder-only model's self-attention, averaged over heads.
    They are averaged over layers, too, by default: every layer adds what it read to the same
    residual stream, and no layer is the one that aligns in all models.

    Token t is chosen while the decoder reads token t - 1. Example: for tokens [[7, 8, 1, 0]] the
    decoder reads [[0, 7, 8, 1]], map 0 is where it looked when it read the 0 and chose 7, map 2
    when it read 8 and ended the text, and map 3 is all zeros, for token 3 is padding.

    Args:
        model: The model.
        params: Its parameters.
        batch: 'image' [B, H, W, 3] and 'encoder_input_tokens' int32 [B, E], as generation took it.
        tokens: int32 [B, T], what was generated; 0 after the end.
        layer: A decoder layer from 0 on, or, as -1 is the last, from the end; None averages all.

    Returns:
        float32 [B, T, rows, columns]. A map adds up to the share of attention that went to the
        image, at most 1: the rest went to the prefix's text and, in a decoder-only model, to the
        tokens before.

    Raises:
        UserError: There is no image, or no such layer.
    """
    if batch.get("image") is None:
        raise UserError("A batch without images has no attention to images: give it an 'image'.")
    layers = model.config.decoder_layers
    if layer is not None and not -layers <= layer < layers:
        raise UserError(f"The decoder has {layers} layers and no layer {layer}.")
    weights = _layers(model, params, batch, jnp.asarray(tokens))
    chosen = weights if layer is None else [weights[layer]]
    mean = sum(jnp.mean(one, axis=1) for one in chosen) / len(chosen)
    on_image = mean[:, -tokens.shape[1] :, : model.config.image_tokens]
    on_image = jnp.where((tokens != PAD)[..., None], on_image, 0.0)
    return on_image.reshape(*tokens.shape, *model.config.grid)


def _layers(
    model: PrefixLMModel, params: Any, batch: Mapping[str, jax.Array], tokens: jax.Array
) -> list[jax.Array]:
    """Each decoder layer's weights float32 [B, N, queries, keys], image tokens first in the keys.

    Queries are the T tokens, in a decoder-only model after those of the prefix.
    """
    before = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    inputs = batch["image"], batch["encoder_input_tokens"], before
    _, kept = model.network.apply({"params": params}, *inputs, mutable=[WEIGHTS])
    layers = unscan(kept[WEIGHTS]["decoder"])
    kind = "self_attention" if model.config.decoder_only else "cross_attention"
    return [layers[f"layer_{i}"][kind]["weights"][0] for i in range(model.config.decoder_layers)]


def word_maps(maps: np.ndarray, words: Sequence[Word]) -> list[tuple[str, np.ndarray]]:
    """One map for each word: the mean over its pieces.

    Args:
        maps: float32 [T, rows, columns], of one example.
        words: From `data.pieces.words_of`, of the same tokens.

    Returns:
        (the word, float32 [rows, columns]) in the order of the text.
    """
    return [(word.text, maps[list(word.positions)].mean(axis=0)) for word in words]
