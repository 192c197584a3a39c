"""From pixels to image tokens: the ResNet conv stage, or plain patches.

Dimension letters: B batch, H W image height and width, C channels, P image tokens,
D model width.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from simvlm_jax.models.config import SimVLMConfig
from simvlm_jax.models.layers import StochasticDepth, constrain, layer_rates, named

CONV_AXES = ("conv_height", "conv_width", "conv_in", "conv_out")


class Convolution(nn.Module):
    """A square convolution without bias, 'SAME' padding, kernel [size, size, in, out]."""

    config: SimVLMConfig
    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H/stride, W/stride, features]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", named(nn.initializers.he_normal(), CONV_AXES), shape)
        kernel = kernel.astype(self.config.dtype)
        if self.size == 1:
            # A matrix product: the same program on TPU, and 3 times faster on CPU.
            return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        if x.shape[-1] % 4:
            # A fourth channel of zeros next to red, green and blue: XLA's fast path on CPU takes
            # multiples of 4 only, 13 times faster here; a TPU pads channels by itself.
            missing = [(0, -x.shape[-1] % 4)]
            x = jnp.pad(x, [(0, 0)] * 3 + missing)
            kernel = jnp.pad(kernel, [(0, 0)] * 2 + missing + [(0, 0)])
        return jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 maximum with stride 2, 'SAME' padding: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    Written as the maximum of shifted slices, one axis at a time: the gradient of XLA's
    windowed maximum is 6 times slower on CPU. Where entries tie, they share the gradient.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        half = -(-size // 2)
        before = (2 * half + 1 - size) // 2  # 0 for an even size, 1 for an odd one
        pad = [(0, 0)] * 4
        pad[axis] = (before, 2 * half + 1 - size - before)
        x = jnp.pad(x, pad, constant_values=-jnp.inf)
        shifted = [jax.lax.slice_in_dim(x, i, i + 2 * half - 1, 2, axis) for i in range(3)]
        x = jnp.maximum(jnp.maximum(shifted[0], shifted[1]), shifted[2])
    return x


def group_norm(channels: int, config: SimVLMConfig, name: str, zero: bool = False) -> nn.GroupNorm:
    """GroupNorm over groups of 16 channels (Wu & He 2018), fewer where 16 does not divide them.

    Not BatchNorm: its running statistics would be state outside the parameters, and they mix
    the examples of a batch. A group of one channel would be worse still: it subtracts each
    image's mean colour.
    """
    scale = nn.initializers.zeros_init() if zero else nn.initializers.ones_init()
    return nn.GroupNorm(
        num_groups=channels // math.gcd(16, channels),
        dtype=config.dtype,
        scale_init=named(scale, ("conv_out",)),
        bias_init=named(nn.initializers.zeros_init(), ("conv_out",)),
        name=name,
    )


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 residual block (He et al. 2016), stride in the 3x3."""

    config: SimVLMConfig
    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, drop_rate: jax.Array | float = 0.0) -> jax.Array:
        """[B, H, W, C] -> [B, H/stride, W/stride, 4 * channels]."""
        config, channels = self.config, self.channels
        y = nn.relu(
            group_norm(channels, config, "norm1")(Convolution(config, channels, 1, name="conv1")(x))
        )
        y = Convolution(config, channels, 3, self.stride, name="conv2")(y)
        y = nn.relu(group_norm(channels, config, "norm2")(y))
        y = Convolution(config, 4 * channels, 1, 1, name="conv3")(y)
        # The branch starts at zero, so a deep stage starts as a shallow one.
        y = group_norm(4 * channels, config, "norm3", zero=True)(y)
        if x.shape != y.shape:
            x = Convolution(config, 4 * channels, 1, self.stride, name="shortcut")(x)
            x = group_norm(4 * channels, config, "shortcut_norm")(x)
        x = nn.relu(x + StochasticDepth(config.stochastic_depth_rate > 0)(y, drop_rate))
        return constrain(x, "image_batch", None, None, None)


def block_names(stage: int, blocks: int) -> list[str]:
    """Names of a stage's blocks; stages are counted from 0, names from 1."""
    return [f"stage{stage + 1}_block{block + 1}" for block in range(blocks)]


class ConvStage(nn.Module):
    """Stem and two to four residual stages of a ResNet (paper appendix B.1)."""

    config: SimVLMConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Image [B, H, W, 3] -> [B, H/stride, W/stride, C], stride = config.conv_stride."""
        config = self.config
        rates = layer_rates(config.stochastic_depth_rate, sum(config.conv_layers))
        x = Convolution(config, config.conv_width, 7, 2, name="stem")(image.astype(config.dtype))
        x = nn.relu(group_norm(config.conv_width, config, "stem_norm")(x))
        x = max_pool(x)
        for stage, blocks in enumerate(config.conv_layers):
            channels, stride = config.conv_width * 2**stage, 2 if stage in (1, 2) else 1
            first, *others = (
                Bottleneck(config, channels, stride if block == 0 else 1, name=name)
                for block, name in enumerate(block_names(stage, blocks))
            )
            x = first(x, rates[0])
            if config.scan_blocks and others and not self.is_initializing():
                x = self._scan(others, x, rates[1:blocks])
            else:
                for block, rate in zip(others, rates[1:blocks], strict=True):
                    x = block(x, rate)
            rates = rates[blocks:]
        return x

    def _scan(self, blocks: Sequence[Bottleneck], x: jax.Array, rates: Sequence[float]):
        """Equal blocks as one loop: the compiler sees one of them.

        Their parameters are stacked here, not in the tree: it is the same with and without a loop.
        """
        config = self.config
        params = [block.variables["params"] for block in blocks]
        keys = None
        if config.stochastic_depth_rate and self.has_rng("dropout"):
            keys = jax.random.split(self.make_rng("dropout"), len(blocks))
        template = Bottleneck(config, blocks[0].channels, 1, parent=None)

        def body(x: jax.Array, of_block: tuple) -> tuple[jax.Array, None]:
            params, rate, key = of_block
            rngs = None if key is None else {"dropout": key}
            return template.apply({"params": params}, x, rate, rngs=rngs), None

        # Else the loop would store all that a block computes: on TPU that costs more than
        # computing it again.
        body = jax.checkpoint(body, prevent_cse=False)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        return jax.lax.scan(body, x, (stacked, jnp.asarray(rates), keys))[0]


class ImageEmbedding(nn.Module):
    """Image tokens without positions: conv stage and projection, or patches and projection.

    The projection is left out where the conv stage already gives [P, D] (Large and Huge; Base
    has 1024 channels and width 768).
    """

    config: SimVLMConfig

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Image float32 [B, H, W, 3] -> [B, P, D] in the compute dtype."""
        config = self.config
        x, stride = image.astype(config.dtype), 1
        if config.conv_layers:
            x, stride = ConvStage(config, name="conv_stage")(image), config.conv_stride
        kernel = config.patch_size // stride
        if kernel > 1 or x.shape[-1] != config.width:
            x = nn.Conv(
                config.width,
                (kernel, kernel),
                (kernel, kernel),
                padding="VALID",
                dtype=config.dtype,
                kernel_init=named(
                    nn.initializers.xavier_uniform(), (*CONV_AXES[:2], "conv_in", "embed")
                ),
                bias_init=named(nn.initializers.zeros_init(), ("embed",)),
                name="projection",
            )(x)
        return x.reshape(x.shape[0], -1, config.width)
