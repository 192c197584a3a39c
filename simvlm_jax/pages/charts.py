"""Line and bar charts as inline SVG: readable without a script, a font or a plotting library."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 420, 260  # viewBox units; the page scales the picture to its column
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 44
MOST_POINTS = 300
COLOURS = 4  # as many as the style sheet defines; further series repeat them, dashed


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span [low, high].

    Example: `nice_ticks(0.3, 4.1)` is [0, 1, 2, 3, 4, 5].

    Args:
      low: Smallest value.
      high: Largest value, not below `low`.
      most: Ticks at most, at least 3.

    Returns:
      Rising ticks, the first at or below `low`, the last at or above `high`.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # nothing that floats could tell apart
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        first, last = math.floor(low / (step * factor)), math.ceil(high / (step * factor))
        if last - first < most:
            return [number * step * factor for number in range(first, last + 1)]
    raise AssertionError(f"no ticks for [{low}, {high}]")


def short_number(value: float) -> str:
    """Four figures at most: 0.25, 1.5k, 20M, 3e-05."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{unit}"
    return "0" if size < 1e-12 else f"{value:.4g}"


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Finite points in order, each the mean of its bucket if there are more than `most`."""
    finite = sorted((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))
    size = math.ceil(len(finite) / most) or 1
    buckets = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [
        (sum(x for x, _ in bucket) / len(bucket), sum(y for _, y in bucket) / len(bucket))
        for bucket in buckets
    ]


def line_chart(title: str, series: Mapping[str, Points], x_label: str = "step") -> str:
    """Draws one chart.

    Args:
      title: Named for screen readers; the page prints its own heading.
      series: Name to (x, y) points; points that are not finite are left out.
      x_label: Name of the horizontal axis.

    Returns:
      An `<svg>` element coloured by the style sheet's classes, or a sentence if nothing is
      finite.
    """
    lines = {name: thinned(points) for name, points in series.items()}
    drawn = [point for points in lines.values() for point in points]
    if not drawn:
        return '<p class="empty">No values were recorded.</p>'
    x_ticks = nice_ticks(min(x for x, _ in drawn), max(x for x, _ in drawn), 7)
    y_ticks = nice_ticks(min(y for _, y in drawn), max(y for _, y in drawn))
    frame = _Frame(x_ticks, y_ticks)
    parts = [frame.axes(x_label)]
    for number, points in enumerate(lines.values()):
        if points:
            parts.append(frame.line(points, number))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>{_legend(list(lines))}'
    )


def bar_chart(title: str, edges: Sequence[float], counts: Sequence[int], logarithmic: bool) -> str:
    """Draws a histogram.

    Args:
      title: named for screen readers and under the horizontal axis.
      edges: of the bars, rising, one more than counts.
      counts: height of each bar.
      logarithmic: the horizontal axis shows powers of ten; edges are then above 0.

    Returns:
      An `<svg>` element coloured by the style sheet's classes, or a sentence if all is empty.
    """
    if not sum(counts):
        return '<p class="empty">No values were recorded.</p>'
    places = [math.log10(edge) for edge in edges] if logarithmic else list(edges)
    frame = _Frame(nice_ticks(places[0], places[-1], 5), nice_ticks(0, max(counts)))
    bars = []
    for low, high, count, left, right in zip(
        edges, edges[1:], counts, places, places[1:], strict=False
    ):
        x, y = frame.x(left), frame.y(count)
        bars.append(
            f'<rect class="bar" x="{x}" y="{y}" width="{max(1, frame.x(right) - x - 1):.1f}" '
            f'height="{HEIGHT - BOTTOM - y:.1f}"><title>{short_number(low)} to '
            f"{short_number(high)}: {count:,}</title></rect>"
        )
    label = (lambda tick: short_number(10**tick)) if logarithmic else short_number
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{frame.axes(title, label)}{"".join(bars)}</svg>'
    )


class _Frame:
    """Maps values to places in the picture."""

    def __init__(self, x_ticks: list[float], y_ticks: list[float]):
        self.x_ticks, self.y_ticks = x_ticks, y_ticks

    def x(self, value: float) -> float:
        share = (value - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def axes(self, x_label: str, label: Callable[[float], str] = short_number) -> str:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = []
        for tick in self.y_ticks:
            place = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{place}" y2="{place}"/>')
            parts.append(
                f'<text x="{LEFT - 8}" y="{place + 4}" text-anchor="end">'
                f"{short_number(tick)}</text>"
            )
        for tick in self.x_ticks:
            place = self.x(tick)
            parts.append(
                f'<line class="axis" x1="{place}" x2="{place}" y1="{bottom}" y2="{bottom + 4}"/>'
            )
            parts.append(
                f'<text x="{place}" y="{bottom + 18}" text-anchor="middle">{label(tick)}</text>'
            )
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (LEFT + right) / 2
        parts.append(
            f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
        return "".join(parts)

    def line(self, points: Points, number: int) -> str:
        places = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)
        last_x, last_y = points[-1]
        return (
            f'<polyline class="{_colour(number)}" points="{places}"/>'
            f'<circle class="{_colour(number)}" cx="{self.x(last_x)}" cy="{self.y(last_y)}" r="3">'
            f"<title>{short_number(last_y)}</title></circle>"
        )


def _colour(number: int) -> str:
    dashed = " dashed" if number >= COLOURS else ""
    return f"series-{number % COLOURS}{dashed}"


def _legend(names: list[str]) -> str:
    if len(names) < 2:
        return ""
    items = [
        f'<li><span class="key {_colour(number)}"></span>{escape(name)}</li>'
        for number, name in enumerate(names)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'
