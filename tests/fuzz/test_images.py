"""Images from strangers: pixels of the right shape, or a sentence, in bounded memory and time."""

import io
import struct
import time

import numpy as np
import pytest
from hypothesis import example, given
from PIL import Image

from fuzz.hostile import SOME, at_most, bytes_like
from made_inputs import bomb
from simvlm_jax.data.images import View, read_crop
from simvlm_jax.data.pillow_images import MOST_SCANS, load_image
from simvlm_jax.errors import UserError

SIZE = (16, 16)
VIEWS = View(), View((0.1, 0.1, 0.5, 0.6)), View((0, 0, 0.95, 0.95))
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)


def encoded(kind, mode="RGB", picture=None, **options):
    content = io.BytesIO()
    (picture or Image.fromarray(PIXELS)).convert(mode).save(content, kind, **options)
    return content.getvalue()


def turned():
    tags = Image.Exif()
    tags[0x0112] = 6
    return encoded("JPEG", exif=tags)


WHOLE = [
    encoded("JPEG"),
    encoded("JPEG", progressive=True),
    encoded("JPEG", "CMYK"),
    turned(),
    encoded("PNG", "RGBA"),
    encoded("PNG", "P"),
    encoded("WEBP"),
    encoded("GIF", "P"),
    encoded("BMP"),
    encoded("TIFF"),
    encoded("TIFF", compression="tiff_lzw"),
    encoded("TIFF", compression="jpeg"),
]


@SOME
@given(bytes_like(*WHOLE))
@example(bomb())
@example(b"\xff\xd8\xff")
def test_images(content):
    for view in VIEWS:
        with at_most(64):
            try:
                pixels = read_crop(content, view, SIZE)
            except UserError:
                continue
        assert pixels.shape == (*SIZE, 3) and pixels.dtype == np.uint8


def test_a_jpeg_of_very_many_scans_is_refused_at_once():
    """A hundred bytes more are a scan more, over all of the image."""
    whole = encoded("JPEG", picture=Image.new("RGB", (4000, 4000)), progressive=True, quality=1)
    start = whole.rindex(b"\xff\xda")
    content = whole[:-2] + whole[start:-2] * MOST_SCANS + b"\xff\xd9"
    began = time.monotonic()
    for view in VIEWS:
        with pytest.raises(UserError, match=rf"JPEG file of \d+ scans, the limit is {MOST_SCANS}"):
            read_crop(content, view, SIZE)
    assert time.monotonic() - began < 1


def test_marks_of_scans_in_other_data_do_not_count():
    film = b"\xff\xda" * 10 * MOST_SCANS  # as behind the pictures of some telephones
    assert read_crop(encoded("JPEG") + film, View(), SIZE).shape == (*SIZE, 3)


def tiff(tile, compression=5):
    """A TIFF file of 16 x 16 pixels in tiles of another size."""
    tags = {256: 16, 257: 16, 258: 8, 259: compression, 262: 1, 277: 1, 322: tile, 323: tile}
    tags |= {324: 200, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(400)


def test_a_tiff_of_gigantic_tiles_is_refused_before_any_memory_is_taken():
    with at_most(16), pytest.raises(UserError, match="40000 x 40000 pixels"):
        read_crop(tiff(40_000), View(), SIZE)
    with pytest.raises(UserError, match="cannot be read as an image"):  # the file is no more
        read_crop(tiff(64), View(), SIZE)


def test_a_file_of_gigabytes_is_refused_by_its_size(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(encoded("PNG"))
        file.truncate(1 << 40)  # takes no room on the disk
    with at_most(16), pytest.raises(UserError, match="large.png is too large: 1099511627776 bytes"):
        load_image(path, SIZE)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="pipe.png cannot be read .*: it is a directory or a pipe"):
        load_image(tmp_path / "pipe.png", SIZE)
