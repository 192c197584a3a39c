import json

import pytest

from simvlm_jax.errors import UserError
from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.testing import tiny_config


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(heads=0), "heads=0"),
        (dict(width=15), "width=15 is not a multiple of heads=2"),
        (dict(image_size=(32, 40)), r"image_size=\(32, 40\)"),
        (dict(image_size=(32,)), "image_size"),
        (dict(patch_size=0), "patch_size=0"),
        (dict(conv_layers=(1,) * 5), "conv_layers"),
        (dict(conv_layers=(1, 0)), "conv_layers"),
        (dict(conv_width=0), "conv_width=0"),
        (dict(patch_size=8, image_size=(32, 32)), "stride 16"),
        (dict(encoder_layers=0), "decoder_only=False"),
        (dict(decoder_only=True, encoder_layers=2), "encoder_layers=2"),
        (dict(encoder_layers=-1), "encoder_layers=-1"),
        (dict(bidirectional_prefix=False), "decoder_only=True"),
        (dict(encoder_style="bert"), "'bert' must be one of vit, t5"),
        (dict(decoder_style=""), "decoder_style"),
        (dict(remat_policy="some"), "remat_policy"),
        (dict(dtype="float16"), "dtype"),
        (dict(dropout_rate=1.0), "dropout_rate=1.0"),
        (dict(stochastic_depth_rate=-0.1), "stochastic_depth_rate"),
        (dict(text_length=0), "text_length=0"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_in_one_sentence(changes, words):
    with pytest.raises(UserError, match=words) as caught:
        tiny_config(**changes)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence


def test_grid_at_224_pixels():
    config = tiny_config(image_size=(224, 224))
    assert config.grid == (14, 14)
    assert config.image_tokens == 196


@pytest.mark.parametrize(
    "conv_layers, stride", [((3,), 4), ((3, 4), 8), ((3, 4, 6), 16), ((3, 4, 6, 3), 16)]
)
def test_every_number_of_conv_stages_keeps_the_image_tokens(conv_layers, stride):
    config = tiny_config(conv_layers=conv_layers)
    assert config.conv_stride == stride
    assert config.image_tokens == 6


def test_json_round_trip_with_tuples_and_hash():
    config = tiny_config(decoder_style="t5", dropout_rate=0.1)
    values = json.loads(json.dumps(config.to_json()))
    again = SimVLMConfig.from_json(values)
    assert again == config
    assert hash(again) == hash(config)
    assert again.conv_layers == (1, 1, 1)


def test_json_of_another_version_is_refused_in_one_sentence():
    values = tiny_config().to_json()
    with pytest.raises(UserError, match="unknown key: 'colour'"):
        SimVLMConfig.from_json(values | {"colour": 1})
    del values["width"]
    with pytest.raises(UserError, match="'width'"):
        SimVLMConfig.from_json(values)
