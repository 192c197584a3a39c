"""Analytic floating-point operations of a step, from the configuration alone.

Counts two operations per multiply-add of every matrix product and convolution; norms,
activations, softmax and the optimizer are left out (about 1 % at Base). The backward pass costs
twice the forward one; what rematerialisation repeats is not counted, as is usual for MFU.
"""

from simvlm_jax.models.config import SimVLMConfig


def conv_stage_flops(config: SimVLMConfig) -> float:
    """Forward operations of one image's tokens: conv stage and projection, or patches."""
    height, width = config.image_size
    if not config.conv_layers:
        return 2.0 * height * width * 3 * config.width
    area = (height // 2) * (width // 2)
    total = 2.0 * area * 49 * 3 * config.conv_width
    area, channels_in = (height // 4) * (width // 4), config.conv_width
    for stage, blocks in enumerate(config.conv_layers):
        channels = config.conv_width * 2**stage
        for block in range(blocks):
            first = 2.0 * area * channels_in * channels
            if block == 0 and stage in (1, 2):
                area //= 4
            total += first + 2.0 * area * channels * channels * (9 + 4)
            if channels_in != 4 * channels or (block == 0 and stage in (1, 2)):
                total += 2.0 * area * channels_in * 4 * channels
            channels_in = 4 * channels
    kernel = config.patch_size // config.conv_stride
    if kernel > 1 or channels_in != config.width:
        total += 2.0 * config.image_tokens * kernel**2 * channels_in * config.width
    return total


def _layer(config: SimVLMConfig, style: str, tokens: int, cross_tokens: int | None) -> float:
    width, products = config.width, 3 if style == "t5" else 2
    total = 2.0 * tokens * width * (4 * width + products * config.mlp_width)
    total += 4.0 * tokens * tokens * width
    if cross_tokens is not None:
        total += 4.0 * width * width * (tokens + cross_tokens) + 4.0 * tokens * cross_tokens * width
    return total


def encoder_flops(config: SimVLMConfig, prefix: int, with_image: bool) -> float:
    """Forward operations of one example's image tokens and encoder; see `trunk_flops`."""
    total = conv_stage_flops(config) * with_image
    if config.decoder_only:
        return total
    source = prefix + config.image_tokens * with_image
    return total + config.encoder_layers * _layer(config, config.encoder_style, source, None)


def trunk_flops(config: SimVLMConfig, prefix: int, length: int, with_image: bool) -> float:
    """Forward operations of one example up to the decoder's last layer.

    Args:
      config: the network.
      prefix: prefix tokens E, padding included.
      length: decoder tokens T, padding included.
      with_image: whether the example has an image.
    """
    source = prefix + config.image_tokens * with_image
    if config.decoder_only:
        layer = _layer(config, config.decoder_style, source + length, None)
    else:
        layer = _layer(config, config.decoder_style, length, source)
    return encoder_flops(config, prefix, with_image) + config.decoder_layers * layer


def forward_flops(config: SimVLMConfig, prefix: int, length: int, with_image: bool) -> float:
    """Forward operations of one example with logits over words; see `trunk_flops`."""
    total = trunk_flops(config, prefix, length, with_image)
    return total + 2.0 * length * config.width * config.vocabulary_size
