import functools

import jax
import numpy as np
import pytest

from models.networks import PAPER, batch_of, parameters
from simvlm_jax.models.conv_stage import Bottleneck, ConvStage, ImageEmbedding
from simvlm_jax.testing import tiny_config


def shapes(module, config):
    image = jax.ShapeDtypeStruct((1, *config.image_size, 3), np.float32)
    variables = jax.eval_shape(module(config).init, jax.random.key(0), image)
    output = jax.eval_shape(module(config).apply, variables, image)
    return variables["params"], output.shape


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def resnet(blocks, width):
    """Parameters of a ResNet's stem and stages: convolutions, and two numbers per channel norm."""
    total, channels = 49 * 3 * width + 2 * width, width
    for stage, number in enumerate(blocks):
        inner, outer = width * 2**stage, 4 * width * 2**stage
        for block in range(number):
            total += channels * inner + 9 * inner * inner + inner * outer
            total += 2 * inner + 2 * inner + 2 * outer
            if block == 0:
                total += channels * outer + 2 * outer
            channels = outer
    return total


def test_resnet_101_up_to_conv4_has_its_published_size():
    """torchvision's resnet101 has 44,549,160 parameters, 2,049,000 of them in the classifier.

    Its conv5 has three blocks; what is left is the stem to conv4.
    """
    conv5 = resnet((3, 4, 23, 3), 64) - resnet((3, 4, 23), 64)
    assert 44_549_160 - 2_049_000 - conv5 == resnet((3, 4, 23), 64)
    config = tiny_config(image_size=(224, 224), conv_layers=(3, 4, 23), conv_width=64)
    params, shape = shapes(ConvStage, config)
    assert count(params) == resnet((3, 4, 23), 64) == 27_535_424
    assert shape == (1, 14, 14, 1024)
    blocks = [name for name in params if name.startswith("stage")]
    assert [sum(name.startswith(f"stage{i}_") for name in blocks) for i in (1, 2, 3)] == [3, 4, 23]


@pytest.mark.parametrize(
    "conv_layers, grid, channels",
    [((1,), (8, 12), 16), ((1, 1), (4, 6), 32), ((1, 1, 1), (2, 3), 64), ((1,) * 4, (2, 3), 128)],
)
def test_stride_of_the_ablations_and_their_image_tokens(conv_layers, grid, channels):
    config = tiny_config(conv_layers=conv_layers)
    params, shape = shapes(ConvStage, config)
    assert shape == (1, *grid, channels)
    assert count(params) == resnet(conv_layers, 4)
    params, shape = shapes(ImageEmbedding, config)
    assert shape == (1, 6, config.width)
    step = grid[0] // 2
    assert params["projection"]["kernel"].value.shape == (step, step, channels, config.width)


def test_patches_are_projected_without_a_conv_stage():
    params, shape = shapes(ImageEmbedding, tiny_config(conv_layers=()))
    assert shape == (1, 6, 16)
    assert set(params) == {"projection"}
    assert params["projection"]["kernel"].value.shape == (16, 16, 3, 16)


def test_no_projection_where_the_width_fits():
    assert set(shapes(ImageEmbedding, tiny_config(width=64))[0]) == {"conv_stage"}


def test_a_branch_starts_at_zero():
    block = Bottleneck(PAPER, 4, 1)
    starts = jax.jit(block.init)(jax.random.key(0), np.ones((1, 2, 2, 8), np.float32))["params"]
    assert not starts["norm3"]["scale"].value.any()
    assert starts["norm2"]["scale"].value.all()
    assert starts["shortcut_norm"]["scale"].value.all()


def test_stochastic_depth_drops_blocks_after_the_first():
    """With three blocks the first is always there: at most 2 x 2 different results."""
    config = tiny_config(stochastic_depth_rate=0.8)
    run = jax.jit(functools.partial(ConvStage(config).apply))
    params = {"params": parameters(PAPER)["image_embedding"]["conv_stage"]}
    images = np.repeat(batch_of(PAPER)["image"][:1], 64, axis=0)
    without = np.asarray(run(params, images))
    assert len(np.unique(without.reshape(64, -1), axis=0)) == 1
    results = np.asarray(run(params, images, rngs={"dropout": jax.random.key(0)}))
    assert len(np.unique(results.reshape(64, -1).round(3), axis=0)) == 4
