import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from simvlm_jax.data.pillow_images import decode, load_image, render
from simvlm_jax.errors import UserError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(path, image, **options):
    image.save(path, **options)
    return path


def corner_image(size=(12, 8)):
    image = Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    return image


def png_header(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def colour(pixels):
    """The one colour of an image, 0..255."""
    assert np.ptp(pixels, axis=(0, 1)).max() <= 1
    return pixels[0, 0].tolist()


@pytest.mark.parametrize(
    ("mode", "value", "kind", "wanted"),
    [
        ("RGB", (10, 20, 30), "png", [10, 20, 30]),
        ("L", 77, "png", [77, 77, 77]),
        ("1", 1, "png", [255, 255, 255]),
        ("LA", (0, 51), "png", [204, 204, 204]),
        ("RGBA", (255, 0, 0, 51), "png", [255, 204, 204]),
        ("I;16", 257 * 100, "png", [100, 100, 100]),
        ("CMYK", (0, 255, 255, 0), "tiff", [255, 0, 0]),
        ("RGB", (10, 20, 30), "bmp", [10, 20, 30]),
        ("RGBA", (0, 0, 0, 0), "webp", [255, 255, 255]),
    ],
)
def test_every_mode_becomes_colours_on_white(tmp_path, mode, value, kind, wanted):
    path = save(tmp_path / f"image.{kind}", Image.new(mode, (9, 9), value))
    pixels = load_image(path, (4, 6))
    assert pixels.shape == (4, 6, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(colour(pixels), wanted, atol=1)


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (8, 8), 3)
    image.putpalette([0, 0, 0] * 3 + [9, 8, 7])
    assert colour(load_image(save(tmp_path / "a.png", image), (4, 4))) == [9, 8, 7]
    path = save(tmp_path / "b.png", image, transparency=3)
    assert colour(load_image(path, (4, 4))) == [255, 255, 255]


def test_cmyk_jpeg_is_read(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    np.testing.assert_allclose(colour(load_image(path, (4, 4))), [255, 0, 0], atol=6)


def test_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert colour(load_image(path, (4, 4))) == list(RED)


@pytest.mark.parametrize(
    ("orientation", "steps"),
    [(1, []), (2, [np.fliplr]), (3, [np.rot90] * 2), (6, [np.rot90] * 3), (8, [np.rot90])],
)
def test_orientation_is_applied(tmp_path, orientation, steps):
    exif = Image.Exif()
    exif[0x0112] = orientation
    wanted = np.asarray(corner_image())
    for step in steps:
        wanted = step(wanted)
    path = save(tmp_path / "a.png", corner_image(), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(path)), wanted)


def test_bytes_and_path_give_the_same(tmp_path):
    path = save(tmp_path / "a.png", corner_image())
    np.testing.assert_array_equal(load_image(path, (5, 5)), load_image(path.read_bytes(), (5, 5)))
    np.testing.assert_array_equal(load_image(path, (5, 5)), load_image(str(path), (5, 5)))


def test_downscaling_averages_over_all_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing some columns alone would be seen
    small = render(Image.fromarray(stripes), (8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 8


@pytest.mark.parametrize(("size", "scale"), [((31, 31), 1), ((16, 16), 2), ((3, 7), 4)])
def test_a_large_jpeg_is_decoded_at_the_scale_that_is_needed(size, scale):
    file = io.BytesIO()
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(ramp).save(file, "JPEG", quality=95)
    assert decode(file.getvalue(), size).size == (64 // scale, 64 // scale)
    whole = render(decode(file.getvalue()), size).astype(int)
    assert np.abs(load_image(file.getvalue(), size) - whole).max() <= 3


MEMORY = """
import pathlib, sys
from simvlm_jax.data.pillow_images import decode, render

def highest():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

image = decode(sys.argv[1])
before = highest()
render(image, (32, 32), (0.01, 0.01, 0.98, 0.98))
print((highest() - before) / (image.width * image.height))
"""


@pytest.mark.parametrize(("mode", "bytes_per_pixel"), [("RGB", 0), ("RGBA", 4)])
def test_a_large_image_is_not_copied_more_than_it_must(tmp_path, mode, bytes_per_pixel):
    path = save(tmp_path / "a.png", Image.new(mode, (3000, 3000), 7), compress_level=1)
    command = [sys.executable, "-c", MEMORY, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < bytes_per_pixel + 1.5


def test_a_bomb_is_refused_from_its_header():
    for width, height in [(9000, 9000), (100_000, 100_000)]:
        with pytest.raises(UserError, match="limit") as caught:
            load_image(png_header(width, height), (8, 8))
        assert "\n" not in str(caught.value)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    whole = save(tmp_path / "whole.png", Image.effect_noise((64, 64), 50)).read_bytes()
    for name, content in [("text.png", b"hello"), ("cut.png", whole[:-900]), ("empty.jpg", b"")]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_image(path, (8, 8))
    with pytest.raises(UserError, match="no such file"):
        load_image(tmp_path / "absent.png", (8, 8))
    with pytest.raises(UserError, match="directory|denied"):
        load_image(tmp_path, (8, 8))


def test_random_damage_never_escapes_as_another_error():
    file = io.BytesIO()
    Image.effect_noise((24, 24), 50).convert("RGB").save(file, "JPEG")
    random = np.random.default_rng(0)
    for _ in range(200):
        content = np.frombuffer(file.getvalue(), np.uint8).copy()
        content[random.integers(0, len(content), 12)] = random.integers(0, 256, 12)
        try:
            assert load_image(content.tobytes(), (4, 4)).shape == (4, 4, 3)
        except UserError:
            pass


def test_tensorflow_is_not_imported():
    code = "import sys, simvlm_jax.data.pillow_images as p; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
