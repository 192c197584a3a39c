import re
from xml.etree import ElementTree

import pytest

from simvlm_jax.pages.intervals import Interval, interval_chart

SHOWN = [
    Interval("one", -5.0, -7.0, -3.0, beside=-4.0, kind="right"),
    Interval("two & three", 1.0, None, None),
]


def drawn(intervals):
    text = interval_chart("Differences", intervals, "here", "paper")
    return ElementTree.fromstring(text[: text.index("</svg>") + 6])


def numbers(element, name):
    return float(element.get(name))


def test_places_are_proportional_to_values():
    svg = drawn(SHOWN)
    first, second = (g for g in svg.iter("g"))
    dot, ring = first.findall("circle")
    points = first.find("polyline").get("points").split()
    low, high = (float(points[n].split(",")[0]) for n in (0, -1))
    zero = next(numbers(line, "x1") for line in svg.iter("line") if line.get("class") == "axis")
    unit = (high - low) / 4
    assert unit > 0
    assert numbers(dot, "cx") == pytest.approx(zero - 5 * unit, abs=0.3)
    assert numbers(ring, "cx") == pytest.approx(zero - 4 * unit, abs=0.3)
    assert low == pytest.approx(zero - 7 * unit, abs=0.3)
    assert numbers(second.find("circle"), "cx") == pytest.approx(zero + unit, abs=0.3)
    assert second.find("polyline") is None and len(second.findall("circle")) == 1
    assert numbers(dot, "cy") < numbers(second.find("circle"), "cy")


def test_zero_is_always_on_the_axis():
    svg = drawn([Interval("far", 20.0, 19.0, 21.0)])
    assert [text.text for text in svg.iter("text")][0] == "0"


def test_labels_and_kinds():
    text = interval_chart("Differences", SHOWN, "here", "paper")
    assert "two &amp; three" in text and "here" in text and "paper" in text
    assert re.findall('class="interval ([a-z]*)"', text) == ["right", ""]
    assert "-5, -7 to -3" in text


def test_nothing_is_a_sentence():
    assert "No differences" in interval_chart("Differences", [], "here", "paper")
