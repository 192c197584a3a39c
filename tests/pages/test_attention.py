import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from simvlm_jax.pages.attention import MOST_IMAGES, MOST_WORDS, Looked, attention_page, figure

WEIGHTS = np.array([[0.1, 0.4], [0.0, 0.2]], np.float32)
EVIL = '<script>alert("x")</script>\'&'


def looked(words=(("cat", WEIGHTS),), size=(8, 12), **changes):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return Looked("a.png", image, "a cat", -1.5, list(words))._replace(**changes)


def pictures(html):
    data = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in data]


def test_a_map_is_one_pixel_a_token_over_the_image():
    picture, heat = pictures(figure(looked()))
    np.testing.assert_array_equal(np.asarray(picture), looked().image)
    alpha = np.asarray(heat)[..., 3] / 255
    np.testing.assert_allclose(alpha, 0.85 * WEIGHTS / 0.4, atol=1 / 255)


def test_a_word_s_share_is_told():
    html = figure(looked([("cat", WEIGHTS), ("sat", WEIGHTS / 7)]))
    assert re.findall(r"<b>(\w+)</b><span class=\"count\">([^<]+)<", html) == [
        ("cat", "70 %"),
        ("sat", "10 %"),
    ]


def test_nothing_is_loaded_and_nothing_runs_whatever_a_caption_says():
    page = attention_page(EVIL, [looked([(EVIL, WEIGHTS)], name=EVIL, caption=EVIL)], 1)
    assert "<script" not in page and "alert(&quot;x" in page
    assert page.count("&lt;script&gt;") >= 5  # title, heading, name, caption, word
    sources = re.findall(r"(?:src=\"|url\()([^\")]{5})", page)
    assert set(sources) == {"data:"} and "http:" not in page and "https:" not in page


def test_the_page_is_bounded_and_says_what_is_left_out():
    many = [looked(name=f"{i}.png") for i in range(MOST_IMAGES + 3)]
    page = attention_page("t", many, 1000)
    assert page.count("<figure") == MOST_IMAGES and f"{MOST_IMAGES - 1}.png" in page
    assert f"{MOST_IMAGES} of 1000 images, {1000 - MOST_IMAGES} left out" in page
    assert "left out" not in attention_page("t", many[:2], 2)
    html = figure(looked([(f"w{i}", WEIGHTS) for i in range(MOST_WORDS + 5)]))
    assert html.count('class="heat"') == MOST_WORDS and "5 more words" in html
    picture, _ = pictures(figure(looked(size=(900, 300))))
    assert picture.size == (75, 224)


@pytest.mark.parametrize("words", [[], [("nothing", np.zeros((2, 2), np.float32))]])
def test_nothing_to_show_is_shown(words):
    html = figure(looked(words, caption=""))
    assert "(nothing)" in html and "nan" not in html
