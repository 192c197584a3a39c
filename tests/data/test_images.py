import io
import itertools
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simvlm_jax.data.images import Augmentation, View, choose_views, crop_box, read_crop, read_image
from simvlm_jax.data.pillow_images import load_image
from simvlm_jax.data.testing_records import draw
from simvlm_jax.errors import UserError

PART = View((0.0, 0.1, 0.9, 0.9))
WHOLE_IMAGE = Augmentation(area=(1.0, 1.0), aspect=(1.0, 1.0))


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(size=(32, 16), left=(255, 0, 0), right=(0, 0, 255)):
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


def read(encoded, seed=(0, 0), size=(16, 16), augmentation=None, **options):
    pixels, decoded = read_image(
        tf.constant(encoded),
        tf.constant(seed, tf.int64),
        size,
        augmentation or Augmentation(),
        **options,
    )
    return pixels.numpy(), float(decoded)


@pytest.mark.parametrize("size", [(16, 16), (24, 9), (40, 60)])
def test_evaluation_agrees_with_tensorflow_s_own_decoder_and_filter(size):
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 4), np.uint8)
    encoded = encode(Image.fromarray(noise))
    rgba = tf.cast(tf.io.decode_png(encoded, channels=4), tf.float32)
    alpha = rgba[..., 3:] / 255
    opaque = rgba[..., :3] * alpha + 255 * (1 - alpha)
    wanted = tf.image.resize(opaque, size, method="bilinear", antialias=True)
    pixels, decoded = read(encoded, size=size)
    assert decoded == 1
    # Pillow rounds twice: after laying the image on white, and after resizing it.
    np.testing.assert_allclose(pixels, wanted, atol=2)
    assert np.abs(pixels - wanted).mean() < 0.5


def test_jpeg_agrees_with_tensorflow_s_decoder():
    smooth = Image.fromarray(np.linspace(0, 255, 48 * 48 * 3).reshape(48, 48, 3).astype(np.uint8))
    encoded = encode(smooth, "JPEG", quality=90)
    rgb = tf.cast(tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE"), tf.float32)
    wanted = tf.image.resize(rgb, (16, 16), method="bilinear", antialias=True)
    np.testing.assert_allclose(read(encoded)[0], wanted, atol=2)


def test_evaluation_gives_exactly_what_captioning_reads():
    encoded = draw("orange", "circle", "left", 40)
    pixels, _ = read(encoded, size=(24, 20))
    np.testing.assert_array_equal(pixels, load_image(encoded, (24, 20)))
    assert pixels.dtype == np.uint8 and pixels.shape == (24, 20, 3)


@pytest.mark.parametrize("size", [(640, 480), (3000, 500), (30, 20)])
def test_a_jpeg_in_evaluation_is_what_captioning_reads(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 5, size[0] // 5, 3), np.uint8)
    content = encode(Image.fromarray(noise).resize(size), "JPEG")
    for image_size in ((24, 20), (24, 100)):
        wanted = load_image(content, image_size)
        np.testing.assert_array_equal(read(content, size=image_size)[0], wanted)


def test_shape_is_static_in_a_pipeline():
    dataset = tf.data.Dataset.from_tensors(encode(halves()))
    dataset = dataset.map(lambda e: read_image(e, tf.zeros([2], tf.int64), (8, 6), Augmentation()))
    assert dataset.element_spec[0].shape == (8, 6, 3)


@given(
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
    smallest=st.floats(0.1, 1.0),
    aspect=st.floats(1.0, 2.0),
)
@settings(deadline=None, max_examples=60)
def test_crop_lies_within_the_image_and_the_ranges(draws, smallest, aspect):
    augmentation = Augmentation(area=(smallest, 1.0), aspect=(1 / aspect, aspect))
    top, left, height, width = crop_box(draws, augmentation)
    assert min(top, left) >= 0 and max(top + height, left + width) <= 1 + 1e-12
    assert smallest - 1e-9 <= height * width <= 1
    assert 1 / aspect - 1e-9 <= width / height <= aspect + 1e-9


def test_crop_is_cut_before_it_is_resized():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    encoded = encode(Image.fromarray(ramp))
    augmentation = Augmentation(area=(0.5, 0.7))
    (view,) = choose_views(np.array([[5, 6]]), augmentation)
    _, left, _, width = view.box
    pixels, _ = read(encoded, (5, 6), (10, 20), augmentation)
    wanted = 200 * (left + width * (np.arange(20) + 0.5) / 20) - 0.5
    np.testing.assert_allclose(pixels[5, 1:-1, 0], wanted[1:-1], atol=0.6)


def test_every_choice_is_a_function_of_the_seed():
    encoded = draw("red", "square", "right", 40)
    again = [read(encoded, (3, 4))[0] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    others = {read(encoded, (3, number))[0].tobytes() for number in range(8)}
    assert len(others) == 8


def test_background_is_white_in_evaluation_and_random_in_training():
    encoded = encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))
    np.testing.assert_array_equal(read(encoded)[0], 255)
    colours = {tuple(read(encoded, (1, number))[0][0, 0]) for number in range(1, 9)}
    assert len(colours) == 8
    plain = Augmentation(random_background=False)
    np.testing.assert_array_equal(read(encoded, (1, 2), augmentation=plain)[0], 255)


def test_half_transparent_pixels_show_half_of_the_background():
    encoded = encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)))
    np.testing.assert_allclose(read(encoded)[0], 127, atol=1)


def test_nothing_is_flipped():
    encoded = encode(halves())
    for number in range(1, 40):
        red = read(encoded, (number, 1))[0][..., 0].mean(0)
        assert red[0] > red[-1]


def test_an_image_that_cannot_be_decoded_becomes_zeros_and_is_named():
    noted = []
    encoded = encode(halves())[:60]
    pixels, decoded = read(encoded, example_id=17, on_failure=lambda *entry: noted.append(entry))
    assert decoded == 0 and not pixels.any()
    assert [number for number, _ in noted] == [17] and "cannot be read" in noted[0][1]
    assert read(b"", size=(4, 4))[1] == 0


def test_whole_image_augmentation_is_evaluation_on_an_opaque_image():
    encoded = encode(halves())
    np.testing.assert_array_equal(
        read(encoded, (9, 9), augmentation=WHOLE_IMAGE)[0], read(encoded)[0]
    )


@pytest.mark.parametrize(
    "options", [{"area": (0.0, 1.0)}, {"area": (0.9, 0.5)}, {"aspect": (2, 3)}]
)
def test_ranges_without_a_crop_are_refused(options):
    with pytest.raises(UserError, match="crop's"):
        Augmentation(**options)


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def test_a_turned_jpeg_is_cropped_upright():
    crop = {"augmentation": Augmentation(area=(0.5, 0.5), aspect=(1, 1)), "size": (20, 20)}
    upright = encode(halves((64, 64)).transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)
    turned = encode(halves((64, 64)), "JPEG", quality=95, exif=exif(8))
    for number in range(1, 6):
        one, other = (read(e, (number, 1), **crop)[0].astype(int) for e in (upright, turned))
        assert np.abs(one - other).max() <= 8  # the files' blocks differ at the border


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *itertools.product(["PNG", "GIF", "BMP"], ["RGB", "L", "P", "1"]),
        *itertools.product(["JPEG", "WEBP"], ["RGB", "L"]),
    ],
)
def test_formats_and_modes_show_the_same_crop(kind, mode):
    image = halves((48, 48)).convert(mode)
    options = {"lossless": True} if kind == "WEBP" else {}
    wanted = read(encode(image.convert("RGB")), (3, 1))[0].astype(int)
    found = read(encode(image, kind, **options), (3, 1))[0].astype(int)
    assert np.abs(found - wanted).mean() < (4 if kind == "JPEG" else 0.01)


@pytest.mark.parametrize("number", [0, 1, -(1 << 63), (1 << 63) - 1])
def test_any_seed_gives_a_crop(number):
    (view,) = choose_views(np.array([[7, number]]), Augmentation())
    assert read_crop(encode(halves()), view, (4, 5)).any()


def test_bombs_are_refused_by_their_headers_in_training_too():
    header = encode(halves((16, 16)), "JPEG")
    start = header.index(b"\xff\xc0") + 5
    bomb = header[:start] + struct.pack(">HH", 9000, 9001) + header[start + 4 :]
    with pytest.raises(UserError, match="9001 x 9000 pixels, the limit"):
        read_crop(bomb, PART, (8, 8))
    with pytest.raises(UserError, match="9001 x 9000 pixels, the limit"):
        read_crop(bomb, View(), (8, 8))


def test_orientation_that_only_xmp_tells_is_applied_in_training():
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf'
    )
    packet += b'-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    packet += b'tiff:Orientation="3"/></rdf:RDF></x:xmpmeta>'
    image = halves((64, 64))
    turned = encode(image, "JPEG", quality=95, xmp=packet)
    wanted = encode(image.rotate(180), "JPEG", quality=95)
    view = View((0.2, 0.2, 0.75, 0.75))
    one, other = (read_crop(content, view, (20, 20)).astype(int) for content in (turned, wanted))
    assert np.abs(one - other).max() <= 8


BOMB = """
import io, resource, sys
from PIL import Image
from simvlm_jax.data.images import View, read_crop
from simvlm_jax.errors import UserError
kind, mode = sys.argv[1:]
file = io.BytesIO()
Image.new(mode, (9000, 9000)).save(file, kind)
content = file.getvalue()
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for view in (View(), View((0.0, 0.1, 0.9, 0.9)), View((0.0, 0.1, 0.5, 0.5))):
    try:
        read_crop(content, view, (200, 200))
    except UserError as error:
        assert "the limit is" in str(error), error
    else:
        raise SystemExit("a bomb was read")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)
"""


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "L"), ("PNG", "L"), ("GIF", "L"), ("BMP", "1")]
)
def test_bombs_take_no_memory(kind, mode):
    command = [sys.executable, "-c", BOMB, kind, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2_000  # kilobytes; decoded it would be 81,000 or more


@pytest.mark.parametrize("kind", ["EPS", "ICO", "ICNS", "PDF"])
def test_formats_that_start_programs_or_take_memory_unasked_are_none(kind):
    with pytest.raises(UserError, match="no known image format"):
        read_crop(encode(halves((64, 64)), kind), PART, (8, 8))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_of_any_aspect_have_crops(size, kind):
    content = encode(Image.new("RGB", size, (200, 10, 10)), kind, quality=100)
    for view in choose_views(np.arange(1, 21).reshape(10, 2), Augmentation(area=(0.1, 1.0))):
        pixels = read_crop(content, view, (6, 7)).astype(int)
        assert np.abs(pixels - [200, 10, 10]).max() <= 3
