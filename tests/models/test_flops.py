"""The analytic count against XLA's own, of unrolled networks that are only traced.

XLA also counts additions, norms and softmax, so sizes are chosen at which products dominate.
"""

import functools

import jax
import numpy as np
import pytest

from simvlm_jax.models.conv_stage import ImageEmbedding
from simvlm_jax.models.flops import conv_stage_flops, forward_flops
from simvlm_jax.models.simvlm import SimVLM
from simvlm_jax.testing import tiny_config

WIDE = dict(width=512, heads=2, mlp_width=1024, vocabulary_size=1024, text_length=256)
PATCHES = dict(conv_layers=(), image_size=(96, 128), scan_layers=False)
TRUNKS = {
    "vit": {},
    "t5": dict(encoder_style="t5", decoder_style="t5"),
    "uneven": dict(encoder_layers=1, decoder_layers=3),
    "decoder_only": dict(decoder_only=True),
    "decoder_only_t5": dict(decoder_only=True, decoder_style="t5"),
}


def counted_by_xla(module, *inputs, **options):
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    variables = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    run = jax.jit(functools.partial(module.apply, **options))
    return run.lower(variables, *inputs).cost_analysis()["flops"]


def tokens(length):
    return jax.ShapeDtypeStruct((1, length), np.int32)


@pytest.mark.parametrize("changes", TRUNKS.values(), ids=TRUNKS)
def test_trunk(changes):
    config = tiny_config(**WIDE, **PATCHES, **changes)
    image = jax.ShapeDtypeStruct((1, *config.image_size, 3), np.float32)
    counted = counted_by_xla(SimVLM(config), image, tokens(48), tokens(64))
    assert forward_flops(config, 48, 64, True) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("conv_layers", [(1,), (2, 1), (1, 2, 1), (1, 1, 1, 2)])
def test_conv_stage(conv_layers):
    """A large image: XLA leaves out products with the padding, we count them as others do."""
    config = tiny_config(conv_layers=conv_layers, conv_width=64, image_size=(1024, 1024))
    image = jax.ShapeDtypeStruct((1, *config.image_size, 3), np.float32)
    counted = counted_by_xla(ImageEmbedding(config), image)
    # The fourth channel of the stem's input is zeros for XLA's sake, and no work of the network's.
    fourth_channel = 2 * 512 * 512 * 7 * 7 * config.conv_width
    assert conv_stage_flops(config) == pytest.approx(counted - fourth_channel, rel=0.03)


def test_an_example_without_image_costs_neither_conv_stage_nor_image_tokens():
    config = tiny_config(**WIDE, conv_layers=(1, 1, 1), image_size=(96, 128), scan_layers=False)
    text = forward_flops(config, 48, 64, False)
    patches = tiny_config(**WIDE, **PATCHES)
    assert text == forward_flops(patches, 48, 64, False)
    assert forward_flops(config, 48, 64, True) - text > conv_stage_flops(config)


def test_base_agrees_with_six_operations_per_parameter_and_token():
    """Encoder of ViT-B: 2 operations per weight and token, attention aside."""
    config = tiny_config(
        width=768, encoder_layers=12, decoder_layers=12, heads=12, mlp_width=3072,
        vocabulary_size=32_000, image_size=(224, 224), conv_layers=(3, 4, 23), conv_width=64,
    )  # fmt: skip
    both = forward_flops(config, 0, 1, True) - conv_stage_flops(config)
    weights = 12 * (4 * 768**2 + 2 * 768 * 3072)
    attention = 12 * 4 * 196**2 * 768
    crossed = 12 * 4 * 768**2 * 196  # the memory's keys and values
    assert both == pytest.approx(2 * weights * 196 + attention + crossed, rel=0.01)
    # Published: about 7.8e9 multiply-adds for all of ResNet-101 at 224, some 0.8e9 in conv5.
    assert conv_stage_flops(config) / 2 == pytest.approx(7.0e9, rel=0.03)
