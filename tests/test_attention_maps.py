"""Maps against weights computed from each layer's queries and keys, in float64 and with loops."""

import functools

import jax
import numpy as np
import pytest

from models import reference
from models.networks import PATCHES
from simvlm_jax.attention_maps import attention_maps, word_maps
from simvlm_jax.data.pieces import Word
from simvlm_jax.errors import UserError
from simvlm_jax.models.attention import Attention
from simvlm_jax.models.layouts import unscan
from simvlm_jax.testing import random_parameters, tiny_batch, tiny_config, tiny_model

CONFIGS = {
    "scanned": tiny_config(**PATCHES),
    "unrolled": tiny_config(**PATCHES, scan_layers=False, decoder_style="t5"),
    "recomputed": tiny_config(**PATCHES, remat_policy="dots"),
    "decoder_only": tiny_config(**PATCHES, decoder_only=True, decoder_style="t5"),
    "causal": tiny_config(
        **PATCHES, decoder_only=True, bidirectional_prefix=False, scan_layers=False
    ),
}
LENGTH, LAYERS = 5, (None, 0, -1)


the_model = functools.cache(tiny_model)


@functools.cache
def case(name):
    """The model, its parameters, a batch, tokens that end at different places, and the maps."""
    config = CONFIGS[name]
    model, params, batch = the_model(config), random_parameters(config), tiny_batch(config)
    tokens = batch["decoder_target_tokens"]  # lengths 5, 3 and 1, all ended
    run = maps_program(model)
    return config, params, batch, tokens, run(params, batch, tokens)


@functools.cache
def maps_program(model):
    """{layer: maps} of all layers, of the first and of the last, as one program."""
    program = jax.jit(lambda *args: [attention_maps(model, *args, layer) for layer in LAYERS])
    return lambda *args: dict(zip(LAYERS, program(*args), strict=True))


def weights_by_hand(config, params, batch, tokens, row, monkeypatch):
    """Weights [L, queries, keys] of one example, averaged over heads; keys are the real ones."""
    seen, attend = [], reference.attend

    def noting(config, p, x, memory, sees, bias):
        seen.append((p, x, memory, sees, bias))
        return attend(config, p, x, memory, sees, bias)

    monkeypatch.setattr(reference, "attend", noting)
    before = np.concatenate([[0], tokens[row][:-1]])
    prefix = batch["encoder_input_tokens"][row]
    unrolled = unscan(params)
    reference.forward(config, unrolled, batch["image"][row], prefix, before)
    monkeypatch.undo()
    kind = "self_attention" if config.decoder_only else "cross_attention"
    layers = [unrolled["decoder"][f"layer_{i}"][kind] for i in range(config.decoder_layers)]
    return [softmax(config, *next(a for a in seen if a[0] is layer)) for layer in layers]


def softmax(config, p, x, memory, sees, bias):
    width = config.head_width
    queries = x @ p["query"]["kernel"] + p["query"].get("bias", 0)
    keys = memory @ p["key"]["kernel"] + p["key"].get("bias", 0)
    total = np.zeros((len(x), len(memory)))
    for head in range(config.heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(len(x)):
            logits = np.array([bias(head, i, j) for j in range(len(memory))], float)
            logits += keys[:, part] @ queries[i, part] / np.sqrt(width)
            logits = np.where([sees(i, j) for j in range(len(memory))], logits, -np.inf)
            total[i] += np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    return total / config.heads


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_are_the_weights_of_queries_and_keys(name, monkeypatch):
    config, params, batch, tokens, maps = case(name)
    for row, length in enumerate((5, 3, 1)):
        layers = weights_by_hand(config, params, batch, tokens, row, monkeypatch)
        for layer, expected in ((None, np.mean(layers, axis=0)), (0, layers[0]), (-1, layers[-1])):
            on_image = expected[-LENGTH:, : config.image_tokens].reshape(LENGTH, *config.grid)
            found = np.asarray(maps[layer][row])
            np.testing.assert_allclose(found[:length], on_image[:length], rtol=1e-4, atol=1e-6)
            assert not found[length:].any()  # padding was never chosen
    assert np.abs(maps[0] - maps[-1]).max() > 1e-2  # else the layers could be mixed up


@pytest.mark.parametrize("name", ["scanned", "decoder_only"])
def test_a_map_adds_up_to_the_share_of_attention_on_the_image(name, monkeypatch):
    config, params, batch, tokens, maps = case(name)
    share = np.asarray(maps[None].sum(axis=(2, 3)))
    text = [
        np.mean(weights_by_hand(config, params, batch, tokens, row, monkeypatch), axis=0)[
            -LENGTH:, config.image_tokens :
        ].sum(axis=1)
        for row in range(3)
    ]
    np.testing.assert_allclose(share + text * (tokens != 0), tokens != 0, atol=1e-5)
    assert 0.05 < share[0].min() and share[0].max() < 0.95  # text took a part of the first
    if not config.decoder_only:  # the last example has no text in its prefix at all
        np.testing.assert_allclose(share[2, 0], 1.0, atol=1e-5)


def test_pads_of_the_prefix_take_nothing():
    config, params, batch, tokens, maps = case("scanned")
    longer = batch | {
        "encoder_input_tokens": np.pad(batch["encoder_input_tokens"], [(0, 0), (0, 3)])
    }
    found = maps_program(the_model(config))(params, longer, tokens)
    np.testing.assert_allclose(found[None], maps[None], atol=1e-6)


def test_a_token_s_map_does_not_depend_on_itself():
    """It is where the decoder looked before it chose the token."""
    config, params, batch, tokens, maps = case("scanned")
    other = tokens.copy()
    other[0, 2] = other[0, 2] % 28 + 3
    found = maps_program(the_model(config))(params, batch, other)[None]
    np.testing.assert_array_equal(found[0, :3], maps[None][0, :3])
    assert np.abs(found[0, 3] - maps[None][0, 3]).max() > 1e-4


def test_training_and_generating_are_the_programs_that_they_were(monkeypatch):
    config = CONFIGS["scanned"]
    model, params, batch = tiny_model(config), random_parameters(config), tiny_batch(config)

    def programs():
        gradient = jax.grad(lambda p, b: model.loss_fn(p, b, None)[0])
        functions = gradient, model.predict_batch
        return [jax.jit(lambda *a, f=f: f(*a)).lower(params, batch).as_text() for f in functions]

    before, asked = programs(), []
    monkeypatch.setattr(Attention, "sow", lambda self, *what: asked.append(what))
    assert programs() == before and asked  # as if nothing were ever kept


def test_what_has_no_map_is_refused():
    config, params, batch, tokens, _ = case("scanned")
    model = tiny_model(config)
    with pytest.raises(UserError, match="without images"):
        attention_maps(model, params, {**batch, "image": None}, tokens)
    for layer in (2, -3):
        with pytest.raises(UserError, match=f"has 2 layers and no layer {layer}"):
            attention_maps(model, params, batch, tokens, layer)


def test_a_word_s_map_is_the_mean_of_its_pieces():
    maps = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    found = word_maps(maps, [Word("a", (0,)), Word("picture", (1, 2))])
    assert [text for text, _ in found] == ["a", "picture"]
    np.testing.assert_array_equal(found[0][1], maps[0])
    np.testing.assert_array_equal(found[1][1], [[6, 7], [8, 9]])
