import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvlm_jax.pages.charts import (
    HEIGHT,
    WIDTH,
    bar_chart,
    line_chart,
    nice_ticks,
    short_number,
    thinned,
)

few = settings(deadline=None, max_examples=40)
numbers = st.floats(-1e9, 1e9).map(lambda value: 0.0 if abs(value) < 1e-9 else value)


@few
@given(low=numbers, high=numbers, most=st.integers(3, 9))
def test_ticks_are_round_even_and_span_the_values(low, high, most):
    low, high = sorted((low, high))
    ticks = nice_ticks(low, high, most)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * max(abs(low), abs(high))
    assert 2 <= len(ticks) <= most
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - round_) for round_ in (1, 2, 5)) < 1e-2
    for before, after in zip(ticks, ticks[1:], strict=False):
        assert after - before == pytest.approx(step, rel=1e-2)


def test_ticks_as_in_the_example():
    assert nice_ticks(0.3, 4.1) == pytest.approx([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.25, "0.25"), (1500, "1.5k"), (2e7, "20M"), (3e-5, "3e-05"), (-4000, "-4k")],
)
def test_short_numbers(value, expected):
    assert short_number(value) == expected


def test_thinning_keeps_means_order_and_finite_points():
    points = [(step, 2.0 * step) for step in reversed(range(1000))]
    points += [(5000, math.nan), (6000, math.inf)]
    thin = thinned(points, 100)
    assert len(thin) == 100
    assert thin[0] == (4.5, 9.0) and thin[-1] == (994.5, 1989.0)
    assert thinned([(2, 1), (1, 3)], 100) == [(1, 3), (2, 1)]


def polylines(svg):
    tree = ElementTree.fromstring(re.match(r"<svg.*</svg>", svg, re.DOTALL).group())
    return [
        [tuple(map(float, place.split(","))) for place in line.get("points").split()]
        for line in tree.iter("polyline")
    ], tree


def test_points_land_where_the_ticks_say():
    lines, tree = polylines(line_chart("loss", {"train": [(0, 0.0), (50, 5.0), (100, 10.0)]}))
    places = {}
    for text in tree.iter("text"):
        places.setdefault((text.get("text-anchor"), text.text), text)
    bottom, middle, top = (places["end", label] for label in ("0", "4", "10"))
    (x0, y0), (x1, y1), (x2, y2) = lines[0]
    assert y0 == float(bottom.get("y")) - 4 and y2 == float(top.get("y")) - 4
    assert x0 == float(places["middle", "0"].get("x"))
    assert x2 == float(places["middle", "100"].get("x"))
    assert (x1, y1) == pytest.approx(((x0 + x2) / 2, (y0 + y2) / 2), abs=0.1)
    assert y2 < float(middle.get("y")) < y0


@few
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.lists(st.tuples(st.integers(0, 10**6), numbers), min_size=1, max_size=20),
        min_size=1,
        max_size=6,
    )
)
def test_every_series_is_drawn_inside_the_picture(series):
    lines, _ = polylines(line_chart("any", series))
    assert len(lines) == len(series)
    for x, y in (place for line in lines for place in line):
        assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def test_series_are_named_and_told_apart():
    series = {f"run {number}": [(0, number), (1, number)] for number in range(6)}
    svg = line_chart("loss", series)
    assert all(f"run {number}" in svg for number in range(6))
    classes = re.findall(r'<polyline class="([^"]*)"', svg)
    assert len(set(classes)) == 6


def test_names_are_escaped():
    svg = line_chart('"><script>', {"<b>": [(0, 1)], "<i>": [(0, 2)]}, x_label="<u>")
    assert not re.search("<script|<b>|<i>|<u>", svg)


def test_nothing_finite_is_said_rather_than_drawn():
    assert line_chart("loss", {"train": [(0, math.nan)], "other": []}).startswith("<p")


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_bar_is_as_high_as_its_count(logarithmic):
    chart = bar_chart("<width>", [10, 100, 1000], [5, 20], logarithmic)
    bars = [node for node in ElementTree.fromstring(chart).iter() if node.tag == "rect"]
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.2)
    widths = [float(bar.get("width")) + 1 for bar in bars]
    assert widths[1] == pytest.approx(widths[0] * (1 if logarithmic else 10), rel=0.02)
    assert [bar[0].text for bar in bars] == ["10 to 100: 5", "100 to 1k: 20"]
    assert "&lt;width&gt;" in chart and "<width>" not in chart


def test_no_bars_without_values():
    assert "No values" in bar_chart("width", [0, 1], [0], False)
