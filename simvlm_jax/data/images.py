"""Images in the TensorFlow pipeline: stateless ops draw what is random, Pillow does the rest.

Every random choice is a function of `example_seed`; [0, 0] means none (evaluation). Images are
never flipped: captions say left and right, clocks and flags have a hand.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simvlm_jax.data import pillow_images
from simvlm_jax.data.python_calls import numpy_function
from simvlm_jax.errors import UserError

OnFailure = Callable[[int, str], None]
WHOLE = (0.0, 0.0, 1.0, 1.0)
DRAWS = 7  # uniform numbers per image: four for the crop, three for the background


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


def read_image(
    encoded: tf.Tensor,
    example_seed: tf.Tensor,
    image_size: tuple[int, int],
    augmentation: Augmentation,
    example_id: tf.Tensor | int = -1,
    on_failure: OnFailure | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes, lays on a background, crops, resizes and normalises one image; never fails.

    Args:
      encoded: string scalar: PNG, JPEG, GIF, BMP, WebP, or what else Pillow reads.
      example_seed: int32 [2]; [0, 0] for evaluation (the whole image, on white).
      image_size: (height, width) of the result.
      augmentation: what to do where `example_seed` is not [0, 0].
      example_id: integer scalar, handed to `on_failure`.
      on_failure: called with (id, cause) for an image that cannot be decoded.

    Returns:
      (float32 [height, width, 3] in [-1, 1]; float32 scalar, 1, or 0 for an image that could not be
      decoded and is all zeros).
    """

    # TensorFlow hands strings over as bytes in a graph, as arrays outside one.
    def run(
        content: bytes | np.ndarray, box: np.ndarray, colour: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.float32]:
        try:
            image = pillow_images.decode(np.asarray(content, object).item())
        except UserError as error:
            if on_failure:
                on_failure(int(number), str(error))
            return np.zeros([*image_size, 3], np.float32), np.float32(0)
        pixels = pillow_images.render(image, image_size, tuple(box), tuple(colour.tolist()))
        return pillow_images.normalise(pixels), np.float32(1)

    augment = tf.reduce_any(example_seed != 0)
    draws = tf.random.stateless_uniform([DRAWS], example_seed, alg="philox")
    box = tf.where(augment, crop_box(draws[:4], augmentation), WHOLE)
    colour = tf.constant(pillow_images.WHITE)
    if augmentation.random_background:
        colour = tf.where(augment, tf.cast(draws[4:] * 256.0, tf.int32), colour)
    arguments = [encoded, box, colour, example_id]
    pixels, decoded = numpy_function(run, arguments, (tf.float32, tf.float32))
    return tf.ensure_shape(pixels, [*image_size, 3]), tf.ensure_shape(decoded, [])


def crop_box(draws: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Chooses the part of an image that a training example shows, before anything is resized.

    The area is uniform; the aspect is log-uniform over those at which a box of this area lies
    within the image, so nothing is ever rejected and redrawn; the place is uniform. Example: area
    0.64 and aspect 1 give sides of 0.8 each, with top and left anywhere in 0..0.2.

    Args:
      draws: float32 [4] in [0, 1), uniform: for area, aspect, top and left.
      augmentation: the ranges.

    Returns:
      float32 [4]: top, left, height and width as shares of the image's height and width.
    """
    smallest, largest = augmentation.area
    area = smallest + (largest - smallest) * draws[0]
    lowest = tf.math.log(tf.maximum(augmentation.aspect[0], area))
    highest = tf.math.log(tf.minimum(augmentation.aspect[1], 1.0 / area))
    aspect = tf.exp(lowest + (highest - lowest) * draws[1])
    size = tf.minimum(tf.sqrt(tf.stack([area / aspect, area * aspect])), 1.0)
    return tf.concat([draws[2:4] * (1.0 - size), size], axis=0)
