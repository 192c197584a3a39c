"""The part of a JPEG file that a crop shows, decoded at the scale that is needed, and resized.

Two decoders, both libjpeg-turbo. TensorFlow's skips what lies outside a window, which pays where
the window is small; simplejpeg's takes the whole file in one call, the fastest way otherwise.
"""

import math

import cykooz_resizer as resizer
import numpy as np
import simplejpeg
import tensorflow as tf

from simvlm_jax.data.pillow_images import SPARE, Box, bilinear, thread_s_resizer, window
from simvlm_jax.errors import UserError

SCALES = (8, 4, 2)
WINDOW_SHARE = 0.5  # of an image; smaller crops are decoded alone


def decode_jpeg_crop(
    content: bytes, size: tuple[int, int], box: Box, image_size: tuple[int, int]
) -> np.ndarray:
    """Decodes, crops and resizes by an antialiased bilinear filter; safe between threads.

    The mean difference from Pillow's decoding and resizing of the whole file is below half of one
    of 256 levels, and below four where the file is decoded at a smaller scale.

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
        window(box[axis], box[axis + 2], scaled[axis], image_size[axis]) for axis in (0, 1)
    )
    try:
        if box[2] * box[3] < WINDOW_SHARE:
            pixels = _decode_window(content, scale, [top, left, height, width])
        else:
            whole = simplejpeg.decode_jpeg(
                content, min_height=scaled[0], min_width=scaled[1], min_factor=scale
            )
            pixels = whole[top : top + height, left : left + width].tobytes()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise UserError("The JPEG file is damaged.") from error
    source = resizer.ImageData(width, height, resizer.PixelType.U8x3, pixels)
    result = resizer.ImageData(image_size[1], image_size[0], resizer.PixelType.U8x3)
    inner = resizer.CropBox(
        left=max(box[1] * scaled[1] - left, 0.0),
        top=max(box[0] * scaled[0] - top, 0.0),
        width=min(box[3] * scaled[1], width),
        height=min(box[2] * scaled[0], height),
    )
    thread_s_resizer().resize(source, result, bilinear(inner))
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(*image_size, 3)


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Reads a header: (height, width), or None where the file is no JPEG in grey or colour."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (height, width) if colours in ("Gray", "YCbCr", "RGB") else None


def _decode_window(content: bytes, scale: int, place: list[int]) -> bytes:
    pixels = tf.raw_ops.DecodeAndCropJpeg(
        contents=content,
        crop_window=place,
        channels=3,
        ratio=scale,
        fancy_upscaling=True,
        dct_method="INTEGER_ACCURATE",
    )
    return bytes(memoryview(pixels))


def _scale(size: tuple[int, int], box: Box, image_size: tuple[int, int]) -> int:
    """The largest denominator that leaves the crop SPARE times the pixels a side it needs."""
    for scale in SCALES:
        if all(size[a] * box[a + 2] / scale >= SPARE * image_size[a] for a in (0, 1)):
            return scale
    return 1
