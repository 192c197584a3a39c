"""Encoded images to the model's pixels: what training changes, and what evaluation shows.

Every random choice is a function of `example_seed`; [0, 0] means none (evaluation). Images are
never flipped: captions say left and right, clocks and flags have a hand. Pixels stay uint8 until
the network scales them to [-1, 1]: a quarter of the bytes on every way there.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simvlm_jax.data import pillow_images
from simvlm_jax.data.jpeg_crops import decode_jpeg_crop
from simvlm_jax.data.pillow_images import WHITE, Box
from simvlm_jax.data.python_calls import numpy_function
from simvlm_jax.errors import UserError

OnFailure = Callable[[int, str], None]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
ORIENTATION, UPRIGHT = 0x0112, 1  # EXIF


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What training does to an image; the paper says "random resized crop only".

    Attributes:
      area: smallest and largest share of the image that a crop keeps. The mild default keeps the
        things that a caption names.
      aspect: smallest and largest aspect of a crop, relative to that of the whole image: 1 keeps
        it. (Evaluation squeezes the whole image into the model's size in the same way.)
      random_background: lay transparent images on a random colour instead of white.
    """

    area: tuple[float, float] = (0.6, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    random_background: bool = True

    def __post_init__(self):
        """Refuses ranges that no crop can have."""
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"A crop's area must lie in (0, 1], low before high, not {self.area}.")
        if not 0 < self.aspect[0] <= 1 <= self.aspect[1]:
            raise UserError(f"A crop's aspect range must include 1, unlike {self.aspect}.")


def read_crop(
    content: bytes, example_seed: np.ndarray, image_size: tuple[int, int], augment: Augmentation
) -> np.ndarray:
    """Decodes an image, lays it on a background, crops and resizes it; safe between threads.

    Args:
      content: JPEG, PNG, WebP, GIF (its first frame), BMP, or what else Pillow reads.
      example_seed: int64 [2]; [0, 0] for evaluation (the whole image, on white).
      image_size: (height, width) of the result.
      augment: what to do where `example_seed` is not [0, 0].

    Returns:
      uint8 [height, width, 3].

    Raises:
      UserError: it cannot be decoded, or is a decompression bomb by its header.
    """
    if not example_seed.any():
        return pillow_images.load_image(content, image_size)
    draws = np.random.Generator(np.random.Philox(key=example_seed.view(np.uint64))).random(7)
    box = crop_box(draws[:4], augment)
    background = tuple(map(int, draws[4:] * 256)) if augment.random_background else WHITE
    if size := _plain_jpeg_size(content):
        return decode_jpeg_crop(content, size, box, image_size)
    return pillow_images.render(pillow_images.decode(content), image_size, box, background)


def read_image(
    encoded: tf.Tensor,
    example_seed: tf.Tensor,
    image_size: tuple[int, int],
    augmentation: Augmentation,
    example_id: tf.Tensor | int = -1,
    on_failure: OnFailure | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`read_crop` inside a TensorFlow pipeline; never fails.

    Args:
      encoded: string scalar.
      example_seed: int64 [2].
      image_size: (height, width) of the result.
      augmentation: as for `read_crop`.
      example_id: integer scalar, handed to `on_failure`.
      on_failure: called with (id, cause) for an image that cannot be decoded.

    Returns:
      (uint8 [height, width, 3]; float32 scalar, 1, or 0 for an image that could not be decoded
      and is all zeros).
    """

    # TensorFlow hands strings over as bytes in a graph, as arrays outside one.
    def run(
        content: bytes | np.ndarray, seed: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.float32]:
        try:
            data = np.asarray(content, object).item()
            return read_crop(data, seed, image_size, augmentation), np.float32(1)
        except UserError as error:
            if on_failure:
                on_failure(int(number), str(error))
            return np.zeros([*image_size, 3], np.uint8), np.float32(0)

    arguments = [encoded, example_seed, example_id]
    pixels, decoded = numpy_function(run, arguments, (tf.uint8, tf.float32))
    return tf.ensure_shape(pixels, [*image_size, 3]), tf.ensure_shape(decoded, [])


def crop_box(draws: np.ndarray, augmentation: Augmentation) -> Box:
    """Chooses the part of an image that a training example shows, before anything is resized.

    The area is uniform; the aspect is log-uniform over those at which a box of this area lies
    within the image, so nothing is ever rejected and redrawn; the place is uniform. Example: area
    0.64 and aspect 1 give sides of 0.8 each, with top and left anywhere in 0..0.2.

    Args:
      draws: [4] in [0, 1), uniform: for area, aspect, top and left.
      augmentation: the ranges.

    Returns:
      top, left, height and width as shares of the image's height and width.
    """
    smallest, largest = augmentation.area
    area = smallest + (largest - smallest) * float(draws[0])
    lowest = math.log(max(augmentation.aspect[0], area))
    highest = math.log(min(augmentation.aspect[1], 1.0 / area))
    aspect = math.exp(lowest + (highest - lowest) * float(draws[1]))
    height, width = min(math.sqrt(area / aspect), 1.0), min(math.sqrt(area * aspect), 1.0)
    return float(draws[2]) * (1.0 - height), float(draws[3]) * (1.0 - width), height, width


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file that needs neither turning nor a change of colours."""
    if not content.startswith(b"\xff\xd8"):
        return None
    try:
        image = pillow_images.open_image(content)
    except Exception:  # Pillow says more of what is wrong when it decodes
        return None
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    if "exif" in image.info and image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
        return None
    pillow_images.check_size(image)
    return image.height, image.width
