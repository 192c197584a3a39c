"""Made-up photographs for benchmarks: smooth shapes, texture and grain, JPEG of about 100 kB."""

import io

import numpy as np
from PIL import Image

SIZE = (640, 480)
QUALITY = 83


def photo(seed: int) -> bytes:
    """Returns one JPEG file of 640 x 480 pixels; another seed gives another picture."""
    random = np.random.default_rng(seed)
    grain = random.normal(size=(SIZE[1], SIZE[0], 1)) * 8
    pixels = _enlarged(random, 15, 20, 40) + _enlarged(random, 120, 160, 25) - 128 + grain
    file = io.BytesIO()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _enlarged(random: np.random.Generator, rows: int, columns: int, contrast: float) -> np.ndarray:
    values = np.clip(random.normal(size=(rows, columns, 3)) * contrast + 128, 0, 255)
    small = Image.fromarray(values.astype(np.uint8))
    return np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC), np.float32)
