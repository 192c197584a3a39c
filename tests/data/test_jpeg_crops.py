import concurrent.futures
import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simvlm_jax.data.jpeg_crops import decode_jpeg_crop
from simvlm_jax.errors import UserError

SIZE = (120, 160)


def jpeg(size=SIZE, mode="RGB", quality=90):
    random = np.random.default_rng(3)
    small = random.integers(0, 256, (size[0] // 4, size[1] // 4, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def pillow_s(content, box, image_size):
    """The same by Pillow alone: all of the file decoded, the box resized."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    top, left, height, width = box
    edges = np.array([left, top, left + width, top + height]) * (image.size * 2)
    resized = image.resize(image_size[::-1], Image.Resampling.BILINEAR, box=tuple(edges.tolist()))
    return np.asarray(resized).astype(int)


@given(
    area=st.tuples(st.floats(0.3, 1), st.floats(0.3, 1)),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    image_size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    mode=st.sampled_from(["RGB", "L"]),
)
@settings(deadline=None, max_examples=60)
def test_it_is_pillow_s_result_to_a_few_of_256_levels(area, place, image_size, mode):
    content = jpeg(mode=mode)
    box = (place[0] * (1 - area[0]), place[1] * (1 - area[1]), *area)
    found = decode_jpeg_crop(content, SIZE, box, image_size)
    assert found.shape == (*image_size, 3) and found.dtype == np.uint8
    difference = np.abs(found - pillow_s(content, box, image_size))
    scaled = all(SIZE[a] * area[a] >= 4 * image_size[a] for a in (0, 1))
    # Decoded at full size it differs by rounding alone, apart from colours next to the window's
    # edge, of which JPEG stores every second; at half size, by what its transform takes for a mean.
    assert difference.mean() < (4 if scaled else 0.5)
    assert np.quantile(difference, 0.99) <= (12 if scaled else 3)


@pytest.mark.parametrize(
    ("image_size", "scale"),
    [((60, 80), 1), ((27, 36), 2), ((13, 18), 4), ((6, 9), 8), ((6, 19), 2)],
)
def test_a_whole_file_is_decoded_at_the_scale_that_is_needed(monkeypatch, image_size, scale):
    decoded, decode = [], simplejpeg.decode_jpeg

    def spy(*arguments, **options):
        decoded.append(decode(*arguments, **options))
        return decoded[-1]

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    decode_jpeg_crop(jpeg(), SIZE, (0.05, 0.05, 0.91, 0.91), image_size)  # 109 x 145 pixels
    assert [pixels.shape for pixels in decoded] == [(120 // scale, 160 // scale, 3)]


def test_only_the_window_is_decoded():
    content = jpeg()
    cut = content[: len(content) * 3 // 4]  # the lower quarter is missing
    box = (0.0, 0.0, 0.5, 0.5)
    found = decode_jpeg_crop(cut, SIZE, box, (30, 30))
    np.testing.assert_array_equal(found, decode_jpeg_crop(content, SIZE, box, (30, 30)))
    with pytest.raises(UserError, match="damaged"):
        decode_jpeg_crop(cut, SIZE, (0.0, 0.0, 1.0, 1.0), (30, 30))


def test_threads_do_not_disturb_one_another():
    content, boxes = jpeg(), [(0.1 * n, 0.05 * n, 0.5, 0.6) for n in range(5)] * 20
    crop = lambda box: decode_jpeg_crop(content, SIZE, box, (20, 24))  # noqa: E731
    wanted = [crop(box) for box in boxes]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for one, other in zip(pool.map(crop, boxes), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_random_damage_never_escapes_as_another_error():
    random, content = np.random.default_rng(0), jpeg((32, 32))
    for _ in range(300):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[random.integers(0, len(damaged), 9)] = random.integers(0, 256, 9)
        try:
            decode_jpeg_crop(damaged.tobytes(), (32, 32), (0.1, 0.1, 0.8, 0.8), (9, 9))
        except UserError:
            pass
