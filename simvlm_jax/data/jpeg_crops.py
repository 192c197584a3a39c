"""The part of a JPEG file that a crop shows, decoded at the scale that is needed, and resized.

TensorFlow's decoder skips what lies outside a window, which Pillow's cannot; the resizer computes
what Pillow's does, to the last of 8 bits, in a third of the time.
"""

import functools
import math
import threading

import cykooz_resizer as resizer
import numpy as np
import tensorflow as tf

from simvlm_jax.data.pillow_images import SPARE, Box
from simvlm_jax.errors import UserError

SCALES = (8, 4, 2)
_threads = threading.local()


def decode_jpeg_crop(
    content: bytes, size: tuple[int, int], box: Box, image_size: tuple[int, int]
) -> np.ndarray:
    """Decodes, crops and resizes by an antialiased bilinear filter; safe between threads.

    The mean difference from Pillow's decoding and resizing of the whole file is below half of one
    of 256 levels, and below three where the file is decoded at a smaller scale.

    Args:
      content: a JPEG file, grey or in colour (not CMYK), upright.
      size: its (height, width) in pixels, from its header.
      box: (top, left, height, width) as shares of it.
      image_size: (height, width) of the result.

    Returns:
      uint8 [height, width, 3].

    Raises:
      UserError: the file is damaged.
    """
    scale = _scale(size, box, image_size)
    scaled = tuple(math.ceil(side / scale) for side in size)
    (top, height), (left, width) = (
        _window(box[axis], box[axis + 2], scaled[axis], image_size[axis]) for axis in (0, 1)
    )
    try:
        window = tf.raw_ops.DecodeAndCropJpeg(
            contents=content,
            crop_window=[top, left, height, width],
            channels=3,
            ratio=scale,
            fancy_upscaling=True,
            dct_method="INTEGER_ACCURATE",
        )
    except tf.errors.InvalidArgumentError as error:
        raise UserError("The JPEG file is damaged.") from error
    source = resizer.ImageData(width, height, resizer.PixelType.U8x3, bytes(memoryview(window)))
    result = resizer.ImageData(image_size[1], image_size[0], resizer.PixelType.U8x3)
    inner = resizer.CropBox(
        left=max(box[1] * scaled[1] - left, 0.0),
        top=max(box[0] * scaled[0] - top, 0.0),
        width=min(box[3] * scaled[1], width),
        height=min(box[2] * scaled[0], height),
    )
    options = resizer.ResizeOptions(resize_alg=_bilinear(), crop_box=inner, use_alpha=False)
    _resizer().resize(source, result, options)
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(*image_size, 3)


def _scale(size: tuple[int, int], box: Box, image_size: tuple[int, int]) -> int:
    """The largest denominator that leaves the crop SPARE times the pixels a side it needs."""
    for scale in SCALES:
        if all(size[a] * box[a + 2] / scale >= SPARE * image_size[a] for a in (0, 1)):
            return scale
    return 1


def _window(start: float, share: float, pixels: int, wanted: int) -> tuple[int, int]:
    """The whole pixels (first, count) that a crop needs along an axis, its filter's reach too."""
    reach = math.ceil(share * pixels / wanted) + 1
    first = max(math.floor(start * pixels) - reach, 0)
    return first, min(math.ceil((start + share) * pixels) + reach, pixels) - first


@functools.cache
def _bilinear() -> resizer.ResizeAlg:
    return resizer.ResizeAlg.convolution(resizer.FilterType.bilinear)


def _resizer() -> resizer.Resizer:
    if not hasattr(_threads, "resizer"):  # it keeps buffers, so each thread has its own
        _threads.resizer = resizer.Resizer()
    return _threads.resizer
