import base64
import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from simvlm_jax.evaluation.report import Sample, write_report

ATTACK = '<script>alert("x")</script>&"\'><img src=https://example.org/a.png>'
VOID = {"meta", "img", "line", "polyline"}  # never closed, or closed in the same tag


class Page(HTMLParser):
    """The page as a browser would see it: text, tags and cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.rows = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), pixels


def sample(number=0, **changes):
    values = {
        "image_png": png(number)[0],
        "split": "variants",
        "prefix": "",
        "caption": "red heart",
        "reference": "blue heart",
        "correct": False,
        "score": -1.25,
    }
    return Sample(**(values | changes))


@pytest.fixture
def write(tmp_path):
    def written(title="Demo", metrics=None, curves=None, samples=()):
        path = tmp_path / "new folder" / "index.html"
        write_report(path, title, metrics or {}, curves or {}, samples)
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not page.open
        return page, text

    return written


def test_every_image_comes_back_as_it_went_in(write):
    page, _ = write(samples=[sample(number) for number in range(3)])
    sources = [image["src"] for image in page.named("img")]
    assert len(sources) == 3
    for number, source in enumerate(sources):
        head, data = source.split(",", 1)
        assert head == "data:image/png;base64"
        decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
        np.testing.assert_array_equal(decoded, png(number)[1])


def test_hostile_text_stays_text_everywhere(write):
    texts = dict.fromkeys(("split", "prefix", "caption", "reference"), ATTACK)
    page, _ = write(
        title=ATTACK,
        metrics={ATTACK: {ATTACK: ATTACK, "a_shuffled": 1.0}, "x" + ATTACK: ATTACK},
        curves={f"{ATTACK}/{ATTACK}": [(0, 1.0)], f"b/{ATTACK}": [(0, 2.0)]},
        samples=[sample(**texts)],
    )
    assert not page.named("script")
    assert len(page.named("img")) == 1 and page.named("img")[0]["alt"] == ATTACK
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    shown = "".join(page.text)
    assert f"prefix: {ATTACK}" in shown and f"reference: {ATTACK}" in shown


def test_nothing_is_loaded_from_outside(write):
    page, text = write(
        metrics={"variants": {"loss": 1.0, "loss_shuffled": 2.0}},
        curves={"train/loss": [(0, 1.0), (1, 2.0)]},
        samples=[sample()],
    )
    assert "://" not in text and "@import" not in text and "url(" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    policy = [a for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_a_control_stands_beside_its_metric(write):
    metrics = {
        "variants": {"exact_match": 0.5, "exact_match_shuffled": 0.021, "distinct_ratio": 1.0},
        "concepts": {"cider": np.float32(1.5), "cider_shuffled": 0.25, "cider_most_frequent": 0.1},
        "translation": {"chrf": 61.25, "chrf_without_image": 58.0, "signature": "nrefs:1"},
        "seconds": {"total": 1234.5},
        "steps": np.int64(4000),
    }
    page, _ = write(metrics=metrics)
    names = ["Metric", "model", "images shuffled", "without image", "most frequent answer"]
    assert page.rows == [
        names,
        ["variants"],
        ["exact match", "50.0 %", "2.1 %", "–", "–"],
        ["distinct ratio", "100.0 %", "–", "–", "–"],
        ["concepts"],
        ["cider", "1.500", "0.250", "–", "0.100"],
        ["translation"],
        ["chrf", "61.2", "–", "58.0", "–"],
    ]
    shown = "|".join(page.text)
    for fact in ("translation · signature|nrefs:1", "seconds · total|1,234.5", "steps|4,000"):
        assert fact in shown


def test_a_number_that_is_not_finite_is_named(write):
    page, _ = write(metrics={"variants": {"loss": math.nan, "loss_shuffled": 1.0}})
    assert page.rows[-1][1] == "not finite"


def test_curves_of_one_quantity_share_a_chart(write):
    points = [(0, 1.0), (10, 0.5)]
    page, _ = write(curves={"train/loss": points, "concepts/loss": points, "rate": points})
    assert [svg["aria-label"] for svg in page.named("svg")] == ["loss", "rate"]
    assert len(page.named("polyline")) == 3
    assert {"train", "concepts"} <= set(page.text)


def test_samples_are_grouped_and_judged_by_split(write):
    samples = [
        sample(correct=True),
        sample(split="concepts", caption="", prefix="a picture of"),
        sample(),
        sample(split="text", image_png=b""),
    ]
    page, _ = write(samples=samples)
    shown = "|".join(text.strip() for text in page.text if text.strip())
    assert "variants|1 of the 2 shown are right" in shown
    assert "concepts|0 of the 1 shown are right|prefix: a picture of|(nothing)" in shown
    assert shown.index("variants") < shown.index("concepts") < shown.index("text|")
    assert len(page.named("img")) == 3
    assert "score -1.25" in shown and shown.count("✓ right") == 1 and shown.count("✗ other") == 3


def test_an_empty_report_is_still_a_page(write):
    page, _ = write(title="Nothing yet")
    assert "Nothing yet" in page.text and not page.named("table") and not page.named("svg")
