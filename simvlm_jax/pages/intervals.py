"""A chart of differences with their intervals: one line each, zero in the middle of it all."""

import dataclasses
from collections.abc import Sequence
from html import escape

from simvlm_jax.pages.charts import nice_ticks, short_number

WIDTH, LINE, TOP, BOTTOM = 720, 30, 12, 34  # viewBox units
LEFT, RIGHT, TIP = 230, 24, 5


@dataclasses.dataclass(frozen=True)
class Interval:
    """One line of the chart.

    Attributes:
      label: its name.
      middle: the estimate.
      low: lower end; None draws the estimate alone.
      high: upper end.
      beside: another's figure for the same, drawn as a hollow ring; None draws none.
      kind: "right" or "wrong" colours it, "" leaves it plain.
    """

    label: str
    middle: float
    low: float | None
    high: float | None
    beside: float | None = None
    kind: str = ""


def interval_chart(title: str, intervals: Sequence[Interval], own: str, other: str) -> str:
    """Draws intervals below one another on one axis that has zero.

    Args:
      title: named for screen readers.
      intervals: from top to bottom.
      own: what the filled dots are, for the legend.
      other: what the rings are.

    Returns:
      An `<svg>` element and its legend, or a sentence where there is none.
    """
    if not intervals:
        return '<p class="empty">No differences were measured.</p>'
    values = [0.0]
    for one in intervals:
        values += [v for v in (one.middle, one.low, one.high, one.beside) if v is not None]
    ticks = nice_ticks(min(values), max(values), 9)
    bottom = TOP + LINE * len(intervals)
    parts = [_axis(ticks, bottom)]
    parts += [_line(one, TOP + LINE * (n + 0.5), ticks) for n, one in enumerate(intervals)]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<p class="count">● {escape(own)}, with its interval; ○ {escape(other)}</p>'
    )


def _place(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _axis(ticks: Sequence[float], bottom: float) -> str:
    parts = []
    for tick in ticks:
        x, kind = _place(tick, ticks), "axis" if abs(tick) < 1e-12 else "grid"
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{short_number(tick)}</text>'
        )
    return "".join(parts)


def _line(one: Interval, y: float, ticks: Sequence[float]) -> str:
    x = _place(one.middle, ticks)
    parts = [f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(one.label)}</text>']
    if one.low is not None and one.high is not None:
        low, high = _place(one.low, ticks), _place(one.high, ticks)
        parts.append(
            f'<polyline points="{low},{y - TIP} {low},{y + TIP} {low},{y} {high},{y} '
            f'{high},{y - TIP} {high},{y + TIP}"/>'
        )
        words = f"{short_number(one.middle)}, {short_number(one.low)} to {short_number(one.high)}"
    else:
        words = short_number(one.middle)
    parts.append(f'<circle cx="{x}" cy="{y}" r="4"><title>{words}</title></circle>')
    if one.beside is not None:
        place = _place(one.beside, ticks)
        parts.append(
            f'<circle class="hollow" cx="{place}" cy="{y}" r="5">'
            f"<title>{short_number(one.beside)}</title></circle>"
        )
    return f'<g class="interval {one.kind}">{"".join(parts)}</g>'
