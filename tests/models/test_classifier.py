"""The head beside plain computations from what the trunk alone gives."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.networks import FAMILIES, flat, forward
from simvlm_jax.models.classifier import masked_mean
from simvlm_jax.models.masks import last_positions
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.testing import random_parameters, tiny_classifier, tiny_labelled, tiny_model

CLASSES = 5


@functools.cache
def classifier(family="t5_decoder", **options):
    model = tiny_classifier(FAMILIES[family], CLASSES, **options)
    return model, random_parameters(model.config, model=model)


def logits_of(model, params, batch):
    return np.asarray(jax.jit(model.predict_batch_with_aux)(params, batch)[1]["logits"])


def head(params, features):
    return features @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def states_from_word_logits(config, params, batch):
    """Finished decoder states [B, T, D], found back from the tied softmax's logits."""
    table = np.float64(params["token_embedding"])  # more words than the width: one solution
    logits = np.float64(forward(config, batch, params))
    return logits @ np.linalg.pinv(table).T


@pytest.mark.parametrize("family", ["t5_decoder", "decoder_only", "decoder_only_t5"])
def test_the_decoder_s_last_word_is_classified(family):
    model, params = classifier(family)
    batch = tiny_labelled(model, 4)
    states = states_from_word_logits(model.config, params, batch)
    last = [max(np.flatnonzero(row), default=0) for row in batch["decoder_input_tokens"]]
    assert last[0] == 4 and last[-1] == 0 and len(set(last)) > 2
    expected = head(params, states[np.arange(4), last])
    np.testing.assert_allclose(logits_of(model, params, batch), expected, rtol=1e-3, atol=1e-3)


def test_the_encoder_s_mean_leaves_padding_out():
    model, params = classifier(features="encoder_mean")
    batch = tiny_labelled(model, 4)
    encode = functools.partial(SimVLM(model.config).apply, method="encode")
    inputs = batch["image"], batch["encoder_input_tokens"]
    states, mask = map(np.asarray, jax.jit(encode)({"params": params}, *inputs))
    assert 0 < (~mask).sum() < mask.size
    means = [np.float64(x[seen]).mean(axis=0) for x, seen in zip(states, mask, strict=True)]
    expected = head(params, np.stack(means))
    np.testing.assert_allclose(logits_of(model, params, batch), expected, rtol=1e-4, atol=1e-4)


def test_the_encoder_s_mean_does_not_depend_on_the_decoder_s_text_nor_on_padding():
    model, params = classifier(features="encoder_mean")
    batch = tiny_labelled(model, 4)
    found = logits_of(model, params, batch)
    longer = np.pad(batch["encoder_input_tokens"], ((0, 0), (0, 3)))
    other = batch | {
        "encoder_input_tokens": longer,
        "decoder_input_tokens": np.flip(batch["decoder_input_tokens"], 0),
    }
    np.testing.assert_allclose(logits_of(model, params, other), found, rtol=1e-4, atol=1e-4)


def test_what_stands_after_the_last_word_does_not_count():
    model, params = classifier()
    batch = tiny_labelled(model, 4)
    longer = np.pad(batch["decoder_input_tokens"], ((0, 0), (0, 4)))
    found = logits_of(model, params, batch | {"decoder_input_tokens": longer})
    np.testing.assert_allclose(logits_of(model, params, batch), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", ["decoder", "encoder_mean"])
def test_two_images_are_two_single_runs_whose_states_are_joined(features):
    model, params = classifier(features=features, images=2)
    batch = tiny_labelled(model, 3)
    single = tiny_classifier(model.config, model.config.width, features=features)
    width = model.config.width
    identity = {"kernel": np.eye(width, dtype=np.float32), "bias": np.zeros(width, np.float32)}
    states = [
        logits_of(single, params | {"classifier": identity}, batch | {"image": batch[name]})
        for name in ("image", "second_image")
    ]
    expected = head(params, np.concatenate(states, axis=1))
    found = logits_of(model, params, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    swapped = batch | {"image": batch["second_image"], "second_image": batch["image"]}
    assert np.abs(logits_of(model, params, swapped) - found).max() > 1e-2


@given(st.lists(st.integers(0, 7), min_size=6, max_size=6), st.integers(0, 1))
def test_the_last_position_is_that_of_the_last_real_token(lengths, more):
    """So many words after the start token, which is 0 as padding is, and may be none."""
    tokens = np.zeros((6, 8 + more), np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[1 : length + 1] = 9 - np.arange(length)
    assert last_positions(tokens).tolist() == lengths


def test_a_mean_of_nothing_is_zero():
    x = np.float32([[[1, 2], [3, 6]], [[5, 5], [7, 7]]])
    mask = np.array([[True, True], [False, False]])
    np.testing.assert_array_equal(masked_mean(x, mask), [[2, 4], [0, 0]])


@pytest.mark.parametrize("features", ["decoder", "encoder_mean"])
def test_the_trunk_is_that_of_a_prefix_lm_model_with_the_same_key(features):
    model, _ = classifier(features=features)
    key = jax.random.key(3)
    params = flat(model.get_initial_variables(key, {})["params"])
    trunk = flat(tiny_model(model.config).get_initial_variables(key, {})["params"])
    assert set(params) - set(trunk) == {"classifier/kernel", "classifier/bias"}
    for path, leaf in trunk.items():
        np.testing.assert_allclose(params[path], leaf, rtol=1e-6, err_msg=path)
    kernel = np.asarray(params["classifier/kernel"])
    assert kernel.shape == (model.config.width, CLASSES) and 0.01 < kernel.std() < 0.04
    np.testing.assert_array_equal(params["classifier/bias"], np.zeros(CLASSES))
