"""Encoded bytes to the model's pixels, by Pillow; training, evaluation and inference share it.

This file imports no TensorFlow. The resizer computes what Pillow's does, to one of 256 levels, in
less than half the time. Pillow rather than TensorFlow's decoders everywhere: one decoder
for every path, more formats, orientation and CMYK, errors that can be caught, and for small
images with transparency it measured three times faster than the same steps as graph ops.
"""

import io
import math
import re
import stat
import threading
import warnings
from pathlib import Path

import cykooz_resizer as resizer
import numpy as np
from PIL import Image, ImageOps

from simvlm_jax.errors import UserError

Box = tuple[float, float, float, float]
MAX_PIXELS = 64 << 20  # larger is taken for a decompression bomb; 8192 x 8192
SPARE = 2  # a smaller scale of JPEG leaves so many times the pixels a side that are needed
LARGEST_FILE = 256 << 20  # bytes
MOST_SCANS = 200  # of a JPEG file; encoders write about ten
# The length and the number of components are those that a decoder takes: in other data, such as
# a film behind the picture, the marker alone comes by chance.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
TILE_TAGS = (322, 323)  # TIFF's TileWidth and TileLength
IN_MEMORY = "An image in memory"
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# What training data come in. Pillow knows more, some of which starts programs (EPS) or takes much
# memory before it tells a size (ICO, ICNS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
WHITE = (255, 255, 255)
ALPHA_MODES = ("LA", "La", "RGBa", "PA", "RGBA")
_BILINEAR = resizer.ResizeAlg.convolution(resizer.FilterType.bilinear)
_threads = threading.local()
# Pillow warns of images over a limit above ours, of which check_size says more.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
DEEP_GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def load_image(source: str | Path | bytes, image_size: tuple[int, int]) -> np.ndarray:
    """Reads an image as the model sees it in evaluation: the whole of it, on white.

    EXIF orientation is applied; of an animation the first frame is taken. A large JPEG file is
    decoded at a half, a quarter or an eighth of its size, as long as at least twice the pixels
    that are needed are left.

    Args:
      source: a file's path, or the encoded bytes.
      image_size: (height, width) of the result; the aspect is not kept.

    Returns:
      uint8 [height, width, 3].

    Raises:
      UserError: the file cannot be read, is not an image, is damaged, or is too large; the
        sentence names the file.
    """
    return render(decode(source, image_size), image_size)


def render(
    image: Image.Image,
    image_size: tuple[int, int],
    box: Box = WHOLE,
    background: tuple[int, int, int] = WHITE,
) -> np.ndarray:
    """Lays an image on a colour, cuts out a box and resizes it by an antialiased bilinear filter.

    Args:
      image: of mode RGB or RGBA.
      image_size: (height, width) of the result.
      box: (top, left, height, width) as shares of the image, by default all of it.
      background: red, green and blue in 0..255, seen through transparency.

    Returns:
      uint8 [height, width, 3].
    """
    left, top = 0, 0
    if image.mode == "RGBA":  # a copy of just the part that is needed: images may be large
        (top, rows), (left, columns) = (
            window(box[axis], box[axis + 2], image.size[1 - axis], image_size[axis])
            for axis in (0, 1)
        )
        opaque = Image.new("RGB", (columns, rows), background)
        opaque.paste(image, (-left, -top), mask=image)
    else:
        opaque = image
    inner = resizer.CropBox(
        left=max(box[1] * image.width - left, 0.0),
        top=max(box[0] * image.height - top, 0.0),
        width=min(box[3] * image.width, opaque.width),
        height=min(box[2] * image.height, opaque.height),
    )
    result = Image.new("RGB", image_size[::-1])
    thread_s_resizer().resize_pil(opaque, result, bilinear(inner))
    return np.asarray(result)


def window(start: float, share: float, pixels: int, wanted: int) -> tuple[int, int]:
    """Says which whole pixels of an axis a crop needs, its filter's reach included.

    Args:
      start: where the crop begins, as a share of the axis.
      share: how much of the axis it takes.
      pixels: on the axis.
      wanted: pixels of the result on this axis.

    Returns:
      (first, count).
    """
    reach = math.ceil(share * pixels / wanted) + 1
    first = max(math.floor(start * pixels) - reach, 0)
    return first, min(math.ceil((start + share) * pixels) + reach, pixels) - first


def bilinear(box: resizer.CropBox) -> resizer.ResizeOptions:
    """The antialiased bilinear filter over a box in pixels."""
    return resizer.ResizeOptions(resize_alg=_BILINEAR, crop_box=box, use_alpha=False)


def thread_s_resizer() -> resizer.Resizer:
    """The resizer of this thread; it keeps buffers, so each thread has its own."""
    if not hasattr(_threads, "resizer"):
        _threads.resizer = resizer.Resizer()
    return _threads.resizer


def decode(source: str | Path | bytes, least_size: tuple[int, int] | None = None) -> Image.Image:
    """Decodes an image to 8 bits.

    Args:
      source: a file's path, or the encoded bytes.
      least_size: (height, width) to which the whole image will be reduced; a JPEG file is then
        decoded at a smaller scale where that leaves `SPARE` times as much.

    Returns:
      An upright image of mode RGBA where it has transparency, else RGB.

    Raises:
      UserError: as for `load_image`.
    """
    name = IN_MEMORY if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else _content(Path(source))
        check_scans(content, name)
        with open_image(content) as opened:
            check_size(*opened.size, name)
            check_size(*_tile(opened), name)
            if least_size:  # of no effect but on JPEG
                opened.draft(None, (SPARE * max(least_size), SPARE * max(least_size)))
            ImageOps.exif_transpose(opened, in_place=True)
            return _to_rgb(opened)
    except UserError:
        raise
    except Exception as error:  # damaged files make the decoders raise nearly anything
        raise UserError(f"{name} cannot be read as an image: {_cause(error)}.") from error


def open_image(content: bytes) -> Image.Image:
    """Reads an image's header and nothing else."""
    return Image.open(io.BytesIO(content), formats=FORMATS)


def check_size(width: int, height: int, name: str = IN_MEMORY) -> None:
    """Refuses a decompression bomb by its header, before any memory is taken.

    Raises:
      UserError: more than `MAX_PIXELS` pixels.
    """
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name} is too large: {width} x {height} pixels, the limit is {MAX_PIXELS}; "
            "make it smaller."
        )


def check_scans(content: bytes, name: str = IN_MEMORY) -> None:
    """Refuses a JPEG file that would keep the decoder busy for hours.

    A hundred bytes can be one more scan of a progressive file, and each takes the decoder over all
    of the image.

    Raises:
      UserError: more than `MOST_SCANS` scans.
    """
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MOST_SCANS:
        scans = sum(1 for _ in _SCAN.finditer(content))
        if scans > MOST_SCANS:
            raise UserError(
                f"{name} is too large: a JPEG file of {scans} scans, the limit is {MOST_SCANS}; "
                "write it anew."
            )


def _content(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a directory or a pipe and no file")
    if status.st_size > LARGEST_FILE:
        raise UserError(
            f"{path} is too large: {status.st_size} bytes, the limit is {LARGEST_FILE}; make it "
            "smaller."
        )
    return path.read_bytes()


def _tile(image: Image.Image) -> tuple[int, int]:
    """The (width, height) of a TIFF file's tiles, each of which is decoded whole."""
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 1) for tag in TILE_TAGS]
    return tuple(side if isinstance(side, int) else 1 for side in sides)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_GREY_MODES:  # plain conversion would clip 16 bits to 255
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        values += 128
        values //= 257
        image = Image.fromarray(values.astype(np.uint8))
    mode = "RGBA" if image.mode in ALPHA_MODES or "transparency" in image.info else "RGB"
    image.load()  # here a damaged file fails
    return image if image.mode == mode else image.convert(mode)


def _cause(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is in no known image format"
    return " ".join((str(error) or type(error).__name__).split()).rstrip(".")
