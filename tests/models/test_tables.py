"""Parameter tables of every size against golden files, and the files against arithmetic."""

import jax
import numpy as np
import pytest

from golden.write import FOLDER, NETWORKS, configuration_of
from models.networks import flat
from simvlm_jax.models.tables import parameter_rows, parameter_table, part_totals
from simvlm_jax.testing import random_parameters, tiny_classifier, tiny_config


@pytest.fixture(autouse=True)
def forget_gin():
    yield
    import gin

    gin.clear_config()


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_golden_one(name):
    table = parameter_table(configuration_of(name))
    golden = (FOLDER / f"{name}.txt").read_text("utf-8")
    assert table == golden, "the network changed; if it should: python -m tests.golden.write"


def test_rows_are_the_network_s_parameters():
    rows = parameter_rows(tiny_config())
    params = flat(random_parameters(tiny_config()))
    assert {row.path: row.shape for row in rows} == {k: v.shape for k, v in params.items()}
    assert all(row.count == params[row.path].size for row in rows)
    assert all(len(row.axes) == len(row.shape) == len(set(row.axes)) for row in rows)
    assert sum(part_totals(rows).values()) == sum(v.size for v in params.values())


def test_nothing_is_allocated():
    before = len(jax.live_arrays())
    parameter_table(tiny_config(width=4096, heads=32, mlp_width=16384, vocabulary_size=256_000))
    assert len(jax.live_arrays()) <= before + 1  # a random key


def golden_totals(name):
    """{part: count} of a golden file's last paragraph."""
    summary = (FOLDER / f"{name}.txt").read_text("utf-8").split("\n\n")[1]
    pairs = [line.rsplit(maxsplit=1) for line in summary.splitlines()]
    return {part.strip(): int(count.replace(",", "")) for part, count in pairs}


def conv_stage(blocks, width, model_width):
    """Stem, bottlenecks with GroupNorm, and a projection where the widths differ."""
    total, channels = 7 * 7 * 3 * width + 2 * width, width
    for stage, number in enumerate(blocks):
        inner = width * 2**stage
        outer = 4 * inner
        first = channels * inner + channels * outer + 2 * outer
        rest = (number - 1) * outer * inner
        every = 9 * inner**2 + inner * outer + 4 * inner + 2 * outer
        total += first + rest + number * every
        channels = outer
    return total + (channels * model_width + model_width) * (channels != model_width)


def trunk(width, mlp, heads, layers, cross, image_bias):
    """Layers with LayerNorm, biases everywhere, and a 27 x 27 table per head for images."""
    attention = 4 * (width**2 + width)
    block = attention + 2 * width * mlp + mlp + width + 2 * 2 * width
    block += (attention + 2 * width) * cross + heads * 27 * 27 * image_bias
    return layers * block


PAPER = {
    # width, MLP, heads, layers, ResNet blocks, ResNet width; paper's appendix B.1 and ViT
    "base": (768, 3072, 12, 12, (3, 4, 23), 64, 252e6),
    "large": (1024, 4096, 16, 24, (3, 8, 36), 64, 782e6),
    "huge": (1280, 5120, 16, 32, (3, 8, 36), 80, 1.58e9),
}


@pytest.mark.parametrize("name", PAPER)
def test_totals_follow_from_the_paper_s_numbers(name):
    width, mlp, heads, layers, blocks, conv_width, about = PAPER[name]
    expected = {
        "image_embedding": conv_stage(blocks, conv_width, width),
        "image_positions": 14 * 14 * width,
        "token_embedding": 32_000 * width,
        "text_positions": 256 * width,
        "encoder": trunk(width, mlp, heads, layers, cross=False, image_bias=True),
        "encoder_norm": 2 * width,
        "decoder": trunk(width, mlp, heads, layers, cross=True, image_bias=False),
        "decoder_norm": 2 * width,
    }
    assert golden_totals(name) == expected | {"total": sum(expected.values())}
    assert sum(expected.values()) == pytest.approx(about, rel=0.005)


def test_what_the_t5_style_and_the_decoder_only_variant_change():
    base, t5 = golden_totals("base"), golden_totals("base_t5_style")
    width, mlp, heads, layers = 768, 3072, 12, 12
    attention = 4 * width**2
    block = attention + 3 * width * mlp + 2 * width
    assert t5["encoder"] == layers * (block + heads * 27 * 27)
    assert t5["decoder"] == layers * (block + attention + width)
    assert t5["encoder_text_bias"] == t5["decoder_text_bias"] == 32 * heads
    assert "text_positions" not in t5
    assert t5["image_embedding"] == base["image_embedding"]

    alone = golden_totals("base_decoder_only")
    assert alone["decoder"] == base["encoder"]  # no cross-attention, but the image's bias
    assert not {"encoder", "encoder_norm"} & set(alone)


def test_columns_are_aligned():
    lines = parameter_table(tiny_config()).splitlines()
    rows, parts = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert len({len(line) for line in rows}) == len({len(line) for line in parts}) == 1
    assert np.all([line == line.rstrip() for line in lines])


def test_a_classifier_s_table_has_its_head_and_the_trunk_as_it_is():
    model = tiny_classifier(classes=7, images=2)
    lines = parameter_table(model.config, model.network).splitlines()
    plain = parameter_table(model.config).splitlines()
    words = [line.split() for line in lines]
    assert ["classifier/kernel", "32", "x", "7", "mlp,", "classes", "224"] in words
    assert ["classifier/bias", "7", "classes", "7"] in words and ["classifier", "231"] in words
    others = [line for line in words if line and not line[0].startswith(("classifier", "total"))]
    assert others == [line.split() for line in plain if line and not line.startswith("total")]
