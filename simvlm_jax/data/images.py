"""Encoded images to the model's pixels: what training changes, and what evaluation shows.

Every random choice is a function of `example_seed`; [0, 0] means none (evaluation). Images are
never flipped: captions say left and right, clocks and flags have a hand. Pixels stay uint8 until
the network scales them to [-1, 1]: a quarter of the bytes on every way there.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from simvlm_jax.data import pillow_images
from simvlm_jax.data.jpeg_crops import decode_jpeg_crop, jpeg_size
from simvlm_jax.data.pillow_images import WHITE, WHOLE, Box
from simvlm_jax.data.python_calls import numpy_function
from simvlm_jax.data.seeds import uniform_draws
from simvlm_jax.errors import UserError

OnFailure = Callable[[int, str], None]
DRAWS = 7  # uniform numbers for an image: four for the crop, three for the background
HEADER_BYTES = 1 << 16
TURNING = (b"Exif\0", b"http://ns.adobe.com/xap/")  # how metadata begin that may turn an image
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


@dataclasses.dataclass(frozen=True)
class View:
    """What of an image is shown.

    Attributes:
      box: top, left, height and width as shares of the image's height and width.
      background: red, green and blue in 0..255, seen through transparency.
    """

    box: Box = WHOLE
    background: tuple[int, int, int] = WHITE


def choose_views(example_seeds: np.ndarray, augmentation: Augmentation) -> list[View]:
    """Chooses what is shown of images, as a function of their seeds.

    Args:
      example_seeds: int64 [n, 2]; [0, 0] for evaluation: the whole image, on white.
      augmentation: what to do where the seed is not [0, 0].

    Returns:
      n views.
    """
    views = []
    for seeds, draws in zip(example_seeds, uniform_draws(example_seeds, DRAWS), strict=True):
        if not seeds.any():
            views.append(View())
            continue
        red, green, blue = (int(draw * 256) for draw in draws[4:])
        background = (red, green, blue) if augmentation.random_background else WHITE
        views.append(View(crop_box(draws[:4].tolist(), augmentation), background))
    return views


def read_crop(content: bytes, view: View, image_size: tuple[int, int]) -> np.ndarray:
    """Decodes an image, lays it on a background, crops and resizes it; safe between threads.

    Args:
      content: JPEG, PNG, WebP, GIF (its first frame), BMP or TIFF.
      view: what of it to show.
      image_size: (height, width) of the result.

    Returns:
      uint8 [height, width, 3].

    Raises:
      UserError: it cannot be decoded, or is a decompression bomb by its header.
    """
    if view == View():  # as captioning reads it, to the last bit
        return pillow_images.load_image(content, image_size)
    if size := _plain_jpeg_size(content):
        return decode_jpeg_crop(content, size, view.box, image_size)
    whole = tuple(math.ceil(image_size[axis] / view.box[axis + 2]) for axis in (0, 1))
    image = pillow_images.decode(content, whole)
    return pillow_images.render(image, image_size, view.box, view.background)


def read_image(
    encoded: tf.Tensor,
    example_seed: tf.Tensor,
    image_size: tuple[int, int],
    augmentation: Augmentation,
    example_id: tf.Tensor | int = -1,
    on_failure: OnFailure | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`choose_views` and `read_crop` inside a TensorFlow pipeline; never fails.

    Args:
      encoded: string scalar.
      example_seed: int64 [2].
      image_size: (height, width) of the result.
      augmentation: as for `choose_views`.
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
            (view,) = choose_views(seed[None], augmentation)
            data = np.asarray(content, object).item()
            return read_crop(data, view, image_size), np.float32(1)
        except UserError as error:
            if on_failure:
                on_failure(int(number), str(error))
            return np.zeros([*image_size, 3], np.uint8), np.float32(0)

    arguments = [encoded, example_seed, example_id]
    pixels, decoded = numpy_function(run, arguments, (tf.uint8, tf.float32))
    return tf.ensure_shape(pixels, [*image_size, 3]), tf.ensure_shape(decoded, [])


def crop_box(draws: Sequence[float], augmentation: Augmentation) -> Box:
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
    area = smallest + (largest - smallest) * draws[0]
    lowest = math.log(max(augmentation.aspect[0], area))
    highest = math.log(min(augmentation.aspect[1], 1.0 / area))
    aspect = math.exp(lowest + (highest - lowest) * draws[1])
    height, width = min(math.sqrt(area / aspect), 1.0), min(math.sqrt(area * aspect), 1.0)
    return draws[2] * (1.0 - height), draws[3] * (1.0 - width), height, width


def _plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file that needs neither turning nor a change of colours."""
    if not (content.startswith(b"\xff\xd8") and (size := jpeg_size(content))):
        return None
    pillow_images.check_size(size[1], size[0])
    pillow_images.check_scans(content)
    if any(mark in content[:HEADER_BYTES] for mark in TURNING):
        try:
            orientation = pillow_images.open_image(content).getexif().get(ORIENTATION, UPRIGHT)
        except Exception:  # Pillow says more of what is wrong when it decodes
            return None
        return size if orientation == UPRIGHT else None
    return size
