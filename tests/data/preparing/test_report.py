import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from made_inputs import image
from simvlm_jax.data.preparing import report
from simvlm_jax.data.sources import Unreadable


@given(values=st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_a_histogram_counts_every_value(values):
    found = report.distribution(np.array(values))
    assert sum(found["counts"]) == len(values)
    assert found["least"] == min(values) and found["most"] == max(values)
    assert len(found["edges"]) == len(found["counts"]) + 1
    assert all(a < b for a, b in zip(found["edges"], found["edges"][1:], strict=False))
    assert found["logarithmic"] == (min(values) > 0 and max(values) > 20 * min(values))


def test_percentiles():
    found = report.distribution(np.arange(101))
    assert found["percentiles"] == {"1": 1, "5": 5, "50": 50, "95": 95, "99": 99}
    assert found["mean"] == 50


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        (b"\xffa", "\ufffda"),
        ("a\0b\x1b[31m\u202ec", "a b [31m c"),
        ("x" * 10_000_000, "x" * 200 + "…"),
        (Unreadable("why"), ""),
    ],
)
def test_texts_are_short_and_printable(text, shown):
    assert report.shortened(text) == shown


def test_thumbnails_are_small_jpegs():
    kind, _, content = report.thumbnail(image(0, (400, 200))).partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as opened:
        assert opened.format == "JPEG" and opened.size == (160, 80)
    assert report.thumbnail(b"no image") == ""


def test_transparency_is_white():
    content = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(content, "PNG")
    encoded = report.thumbnail(content.getvalue()).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as opened:
        assert min(opened.getpixel((4, 4))) > 250


def test_the_page_of_documents_shows_padding():
    summary = {
        "records": {"train": 1234},
        "outcomes": {"kept": 3},
        "pad_share": {"joined": 0.0123, "apart": 0.5},
        "causes": {"<b>": 2},
    }
    page = report.documents_page("<i>", summary)
    assert "1.23 %" in page and "50.00 %" in page and "1,234" in page
    assert "<b>" not in page and "<i>" not in page
