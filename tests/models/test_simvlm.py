"""The whole network: equal to a second implementation, and free of the known mistakes.

The second half has a test for each fault found in public re-implementations of the paper.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import reference
from models.networks import (
    FAMILIES,
    PAPER,
    PATCHES,
    SMALLEST,
    batch_of,
    flat,
    forward,
    loss_and_gradient,
    parameters,
    primitives,
)
from simvlm_jax.errors import UserError
from simvlm_jax.models.layouts import unscan
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.testing import tiny_config

every_family = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
with_encoder = pytest.mark.parametrize(
    "config", [c for c in FAMILIES.values() if not c.decoder_only], ids=lambda c: c.decoder_style
)


@every_family
def test_equals_a_float64_network_of_loops(config):
    batch = batch_of(config)
    logits = forward(config, batch)
    unrolled = unscan(parameters(config))
    for i in range(len(logits)):
        expected = reference.forward(
            config,
            unrolled,
            batch["image"][i],
            batch["encoder_input_tokens"][i],
            batch["decoder_input_tokens"][i],
        )
        np.testing.assert_allclose(logits[i], expected, rtol=1e-4, atol=1e-4)


def test_text_only_equals_the_loops_too():
    config = FAMILIES["t5_decoder"]
    batch = batch_of(config)
    del batch["image"]
    logits = forward(config, batch)
    for i in (0, 1):
        inputs = batch["encoder_input_tokens"][i], batch["decoder_input_tokens"][i]
        expected = reference.forward(config, unscan(parameters(config)), None, *inputs)
        np.testing.assert_allclose(logits[i], expected, rtol=1e-4, atol=1e-4)


@functools.cache
def cached_logits(config, beams):
    """A compiled function: teacher's tokens [B, R, T] through `start` and `step`."""
    network = SimVLM(config)

    @jax.jit
    def run(params, image, prefix, tokens):
        apply = functools.partial(network.apply, {"params": params})
        kept = apply(image, prefix, method="start")
        length = tokens.shape[2]

        def step(cache, index):
            logits, cache = apply(tokens[:, :, index], index, kept, cache, method="step")
            return cache, logits

        cache = network.empty_cache(tokens.shape[0], beams, length)
        _, logits = jax.lax.scan(step, cache, jnp.arange(length))
        return jnp.moveaxis(logits, 0, 2)

    return run


UNROLLED = tiny_config(**PATCHES, encoder_layers=1, decoder_style="t5", scan_layers=False)
CACHED = {name: (config, True) for name, config in FAMILIES.items()} | {
    "unrolled": (UNROLLED, True),
    "text_only": (FAMILIES["t5_decoder"], False),
    "decoder_only_text_only": (FAMILIES["decoder_only_t5"], False),
}


@pytest.mark.parametrize("config, with_image", CACHED.values(), ids=CACHED)
def test_cached_logits_equal_teacher_forced_ones(config, with_image):
    beams = 2
    batch = batch_of(config)
    image = batch["image"] if with_image else None
    prefix = batch["encoder_input_tokens"]
    tokens = np.random.default_rng(1).integers(2, config.vocabulary_size, (3, beams, 5), np.int32)
    tokens[:, :, 0] = 0
    logits = cached_logits(config, beams)(parameters(config), image, prefix, tokens)
    for beam in range(beams):
        whole = forward(config, batch | {"image": image, "decoder_input_tokens": tokens[:, beam]})
        np.testing.assert_allclose(logits[:, beam], whole, rtol=1e-4, atol=1e-4)


def changed(array, index):
    """Other words, or other numbers, at one place of a copy."""
    array = array.copy()
    words = np.issubdtype(array.dtype, np.integer)
    array[index] = array[index] % 28 + 3 if words else array[index] + 1
    return array


@every_family
def test_the_future_does_not_reach_back(config):
    batch = batch_of(config)
    before = forward(config, batch)
    tokens = changed(batch["decoder_input_tokens"], (slice(None), 3))
    after = forward(config, batch | {"decoder_input_tokens": tokens})
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3:] - before[:, 3:]).max(axis=(1, 2)).min() > 1e-3


@every_family
def test_examples_of_a_batch_do_not_meet(config):
    batch = batch_of(config)
    other = batch | {
        name: np.concatenate([leaf[:1], np.roll(leaf[1:], 1, axis=0)])
        for name, leaf in batch.items()
    }
    np.testing.assert_array_equal(forward(config, other)[0], forward(config, batch)[0])
    np.testing.assert_array_equal(forward(config, other)[1], forward(config, batch)[2])


@every_family
def test_every_token_of_the_prefix_reaches_every_token_of_the_text(config):
    batch = batch_of(config)
    before = forward(config, batch)
    prefix = batch["encoder_input_tokens"]
    for place in range(4):
        other = forward(config, batch | {"encoder_input_tokens": changed(prefix, (0, place))})
        assert np.abs(other[0] - before[0]).max(axis=1).min() > 1e-3
        np.testing.assert_array_equal(other[1:], before[1:])


@pytest.mark.parametrize("name", ["t5_decoder", "decoder_only"])
def test_pads_after_the_prefix_change_nothing(name):
    """The loops above never see a pad either, so this holds for every family."""
    config = FAMILIES[name]
    batch = batch_of(config)
    longer = np.pad(batch["encoder_input_tokens"], ((0, 0), (0, 3)))
    after = forward(config, batch | {"encoder_input_tokens": longer})
    np.testing.assert_allclose(after, forward(config, batch), rtol=1e-4, atol=1e-4)


@every_family
def test_images_reach_the_text(config):
    batch = batch_of(config)
    other = forward(config, batch | {"image": -batch["image"]})
    assert np.abs(other - forward(config, batch)).max(axis=2).min() > 1e-3


def test_pixels_of_bytes_are_scaled_to_minus_one_and_one():
    config = tiny_config()
    batch = batch_of(config)
    pixels = np.random.default_rng(0).integers(0, 256, batch["image"].shape).astype(np.uint8)
    pixels.flat[:2] = 0, 255
    scaled = np.interp(pixels, [0, 255], [-1.0, 1.0]).astype(np.float32)
    found, wanted = (forward(config, {**batch, "image": image}) for image in (pixels, scaled))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    shifted = forward(config, {**batch, "image": scaled + 0.1})
    assert np.abs(shifted - wanted).max() > 1e-2  # so the comparison above can fail


def test_a_prefix_without_any_token_gives_finite_logits_and_gradients():
    batch = batch_of(SMALLEST, encoder_input_tokens=np.zeros((3, 4), np.int32))
    del batch["image"]
    loss, gradient = loss_and_gradient(SMALLEST, batch)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_encoder_sees_the_whole_prefix_from_every_position():
    config = FAMILIES["t5_decoder"]
    batch = batch_of(config)
    encode = jax.jit(functools.partial(SimVLM(config).apply, method="encode"))
    prefix = batch["encoder_input_tokens"]
    variables = {"params": parameters(config)}
    before, mask = encode(variables, batch["image"], prefix)
    after, _ = encode(variables, batch["image"], changed(prefix, (0, 3)))
    moved = np.abs(after - before).max(axis=-1)[0]
    assert moved[config.image_tokens] > 1e-3  # the first token sees the last
    assert moved[0] > 1e-3  # and so does the first patch
    np.testing.assert_array_equal(mask[1], [True] * (config.image_tokens + 2) + [False] * 2)


def test_decoder_only_prefix_is_bidirectional_unless_it_is_a_plain_language_model():
    for name, reaches_back in (("decoder_only", True), ("causal", False)):
        config = FAMILIES[name]
        batch = batch_of(config)
        keys = jax.jit(functools.partial(SimVLM(config).apply, method="start"))
        prefix = batch["encoder_input_tokens"]
        variables = {"params": parameters(config)}
        before = keys(variables, batch["image"], prefix).keys_values[0]
        after = keys(variables, batch["image"], changed(prefix, (0, 3))).keys_values[0]
        # Keys of the second layer [B, S, N, K] hold what the first layer's attention saw.
        moved = np.abs(after - before)[1, 0].max(axis=(-2, -1))
        assert (moved[config.image_tokens] > 1e-3) == reaches_back
        assert (moved[0] > 1e-3) == reaches_back


def test_every_parameter_trains():
    _, gradient = loss_and_gradient(SMALLEST, batch_of(SMALLEST))
    for path, leaf in flat(gradient).items():
        # A key bias adds the same to every logit of a row, so its gradient is exactly zero.
        if not path.endswith("key/bias"):
            assert np.abs(leaf).max() > 1e-5, path


def test_head_trains_on_words_that_are_never_read():
    """The tied softmax moves a word that is in no input, so it is not only trained as one."""
    batch = batch_of(SMALLEST)
    read = np.concatenate([batch["encoder_input_tokens"], batch["decoder_input_tokens"]], None)
    unread = sorted(set(range(SMALLEST.vocabulary_size)) - set(read.tolist()))
    _, gradient = loss_and_gradient(SMALLEST, batch)
    assert len(unread) > 10
    assert np.abs(gradient["token_embedding"][unread]).max(axis=1).min() > 1e-6


def test_target_pads_add_nothing_to_loss_or_gradient():
    config = SMALLEST
    batch = batch_of(config)
    pads = batch["decoder_target_tokens"] == 0
    assert pads.any()
    loss, gradient = loss_and_gradient(config, batch)
    other = {
        name: np.where(pads, 9, batch[name]).astype(np.int32)
        for name in ("decoder_input_tokens", "decoder_target_tokens")
    }
    loss_of_other, gradient_of_other = loss_and_gradient(config, batch | other)
    assert loss_of_other == pytest.approx(loss, rel=1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_of_other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@every_family
def test_text_positions_matter_in_training_and_in_generation_alike(config):
    params = parameters(config)
    first = 2  # the first token that the change below reaches
    if config.decoder_style == "vit":
        # The prefix has the table's places 0 to 3; without an encoder the text goes on after it.
        first = 2 if config.decoder_only else 4
        table, place = "text_positions", (6 if config.decoder_only else 4, 0)
        other = params | {table: changed(params[table], place)}
    else:
        table = params["decoder_text_bias"]["table"]
        other = params | {"decoder_text_bias": {"table": changed(table, (2, 0))}}
    batch = batch_of(config)
    tokens = batch["decoder_input_tokens"]
    before, after = forward(config, batch), forward(config, batch, other)
    moved = np.abs(after - before)[0].max(axis=1)
    assert moved[first:].min() > 1e-4  # token `first` stands there, or looks back by two
    if not config.decoder_only or config.decoder_style == "vit":
        assert moved[:first].max() == 0
    inputs = batch["image"], batch["encoder_input_tokens"], np.stack([tokens, tokens], 1)
    generated = cached_logits(config, 2)(other, *inputs)
    np.testing.assert_allclose(generated[:, 0], after, rtol=1e-4, atol=1e-4)


def test_no_two_sub_layers_share_a_norm():
    names = {path for path in flat(parameters(PAPER)) if path.endswith("norm/scale")}
    inside = {"encoder": ("self", "mlp"), "decoder": ("self", "cross", "mlp")}
    expected = {f"{s}/scanned/{n}_norm/scale" for s, norms in inside.items() for n in norms}
    expected |= {"encoder_norm/scale", "decoder_norm/scale"}
    assert {name for name in names if "conv_stage" not in name} == expected
    before = forward(PAPER, batch_of(PAPER))
    for path in expected:
        other = jax.tree.map(np.copy, parameters(PAPER))
        scale = flat(other)[path]
        for layer in range(2 if scale.ndim == 2 else 1):
            np.atleast_2d(scale)[layer, 0] += 0.5
            after = forward(PAPER, batch_of(PAPER), other)
            assert np.abs(after - before).max() > 1e-4, (path, layer)
            before = after


@pytest.mark.parametrize("name", ["paper", "decoder_only"])
def test_text_only_input_never_runs_the_image_side(name):
    config = tiny_config(decoder_only=FAMILIES[name].decoder_only)
    batch = batch_of(config)
    params = jax.tree.map(jnp.asarray, parameters(config))
    run = functools.partial(SimVLM(config).apply, {"params": params})
    inputs = batch["encoder_input_tokens"], batch["decoder_input_tokens"]
    assert "conv_general_dilated" in primitives(run, batch["image"], *inputs)
    assert "conv_general_dilated" not in primitives(lambda *a: run(None, *a), *inputs)


def test_text_only_input_leaves_the_image_side_untrained():
    batch = batch_of(SMALLEST)
    del batch["image"]
    _, gradient = loss_and_gradient(SMALLEST, batch)
    for path, leaf in flat(gradient).items():
        image_side = path.startswith("image") or "image_bias" in path
        assert leaf.any() != image_side or path.endswith("key/bias"), path


def test_bfloat16_compute_keeps_float32_parameters_and_logits():
    config = tiny_config(**PATCHES, decoder_only=True, dtype="bfloat16")
    exact = FAMILIES["decoder_only"]
    batch = batch_of(config)
    logits = forward(config, batch)
    assert logits.dtype == np.float32
    assert len(np.unique(logits)) > 0.9 * logits.size  # not rounded to bfloat16 at the end
    scale = forward(exact, batch).std()
    assert 0 < np.abs(logits - forward(exact, batch)).max() < 0.2 * scale
    shapes = jax.eval_shape(SimVLM(config).init, jax.random.key(0), *_inputs(batch))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
    start = functools.partial(SimVLM(config).apply, method="start")
    variables = jax.tree.map(jnp.asarray, {"params": parameters(config)})
    prefix = jax.eval_shape(start, variables, *_inputs(batch)[:2])
    assert prefix.keys_values[0].dtype == jnp.bfloat16


def test_stochastic_depth_is_in_the_encoder_and_not_in_the_decoder():
    config = tiny_config(stochastic_depth_rate=0.3)
    network = SimVLM(config).bind({"params": parameters(PAPER)})
    assert network.encoder.stochastic_depth_rate == 0.3
    assert network.decoder.stochastic_depth_rate == 0.0


@pytest.mark.parametrize("name", ["paper", "decoder_only_t5"])
def test_unrolled_layers_give_the_same_logits(name):
    config = FAMILIES[name]
    unrolled = dataclasses.replace(config, scan_layers=False)
    other = forward(unrolled, batch_of(config), unscan(parameters(config)))
    np.testing.assert_allclose(other, forward(config, batch_of(config)), rtol=1e-5, atol=1e-5)


def _inputs(batch):
    return batch["image"], batch["encoder_input_tokens"], batch["decoder_input_tokens"]


def test_text_longer_than_its_position_table_is_refused():
    for name, refused in (("paper", (17, 1)), ("paper", (1, 17)), ("decoder_only", (12, 5))):
        config = FAMILIES[name]
        prefix, tokens = (jnp.ones((1, n), jnp.int32) for n in refused)
        params = jax.tree.map(jnp.asarray, parameters(config))
        run = functools.partial(SimVLM(config).apply, {"params": params})
        with pytest.raises(UserError, match="text_length=16") as caught:
            jax.eval_shape(run, None, prefix, tokens)
        assert str(caught.value).count(".") == 1
