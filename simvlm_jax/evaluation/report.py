"""One self-contained HTML page: figures beside their controls, curves, and captioned images."""

import base64
import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from simvlm_jax.pages.charts import Points, line_chart, short_number
from simvlm_jax.pages.page import page

# A metric named `<metric><suffix>` is a control and stands in the same row as `<metric>`.
CONTROLS = {
    "_shuffled": "images shuffled",
    "_masked": "grey images",
    "_without_image": "without image",
    "_most_frequent": "most frequent answer",
    "_maximum": "best possible",
}
SHARES = (
    "exact_match",
    "accuracy",
    "distinct_ratio",
    "most_frequent_share",
)  # in [0, 1], printed in percent


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and what the model made of it.

    Attributes:
      image_png: The image as PNG bytes; empty for an example without an image.
      split: Heading under which it is shown.
      prefix: Text that the model was given beside the image, or "".
      caption: What it said.
      reference: What it should have said.
      correct: Whether that counts as equal.
      score: Log probability, normalised or not.
    """

    image_png: bytes
    split: str
    prefix: str
    caption: str
    reference: str
    correct: bool
    score: float


def write_report(
    path: str | Path,
    title: str,
    metrics: Mapping[str, Any],
    curves: Mapping[str, Points],
    samples: Sequence[Sample],
) -> None:
    """Writes the page; every text in it is escaped, for captions come from strangers.

    Args:
      path: Where to; missing folders are made.
      title: Heading.
      metrics: Numbers and texts, nested by section. A section with controls (see `CONTROLS`)
        becomes rows of the table (its texts aside), everything else a list of facts. Example:
        `{"steps": 100, "variants": {"exact_match": 0.5, "exact_match_shuffled": 0.02}}`.
      curves: Name to (step, value) points. Names that agree after their last "/" share a chart:
        "train/loss" and "concepts/loss" are the two lines of "loss".
      samples: Shown by split, in the order given.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(title, metrics, curves, samples), encoding="utf-8")


def _page(
    title: str,
    metrics: Mapping[str, Any],
    curves: Mapping[str, Points],
    samples: Sequence[Sample],
) -> str:
    sections, facts = _split_metrics(metrics)
    body = "\n".join(
        part
        for part in (
            f"<h1>{escape(title)}</h1>",
            _facts(facts),
            _table(sections),
            _charts(curves),
            *_galleries(samples),
        )
        if part
    )
    return page(title, body)


def _split_metrics(metrics: Mapping[str, Any]) -> tuple[dict[str, dict], dict[str, Any]]:
    """The figures of sections that hold a control, and everything else by its dotted name."""
    sections, facts = {}, {}
    for section, value in metrics.items():
        leaves = _flatten(value) if isinstance(value, Mapping) else {}
        controlled = any(leaf.endswith(suffix) for leaf in leaves for suffix in CONTROLS)
        for name, item in (leaves or {"": value}).items():
            if controlled and not isinstance(item, str):
                sections.setdefault(section, {})[name] = item
            else:
                facts[f"{section}.{name}" if name else section] = item
    return sections, facts


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{leaf}": item for leaf, item in _flatten(value).items()}
        else:
            flat[str(name)] = value
    return flat


def _readable(name: str) -> str:
    return escape(name.replace("_", " ").replace(".", " · "))


def _formatted(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return escape(str(value))
    if not math.isfinite(value):
        return "not finite"
    if any(share in name for share in SHARES):
        return f"{100 * value:.1f} %"
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _facts(facts: Mapping[str, Any]) -> str:
    items = [
        f"<div><dt>{_readable(name)}</dt><dd>{_formatted(name, value)}</dd></div>"
        for name, value in facts.items()
    ]
    return f'<dl class="facts">{"".join(items)}</dl>' if items else ""


def _table(sections: Mapping[str, Mapping[str, Any]]) -> str:
    if not sections:
        return ""
    used = [
        suffix
        for suffix in CONTROLS
        if any(name.endswith(suffix) for leaves in sections.values() for name in leaves)
    ]
    headings = "".join(f'<th scope="col">{CONTROLS[suffix]}</th>' for suffix in used)
    rows = []
    for section, leaves in sections.items():
        rows.append(
            f'<tr class="section"><th scope="rowgroup" colspan="{len(used) + 2}">'
            f"{_readable(section)}</th></tr>"
        )
        rows.extend(_row(metric, leaves, used) for metric in _metric_names(leaves))
    return (
        '<h2>Results beside their controls</h2>\n<div class="panel scroll"><table><thead><tr>'
        f'<th scope="col">Metric</th><th scope="col">model</th>{headings}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _metric_names(leaves: Mapping[str, Any]) -> list[str]:
    """Names without their control's suffix, each once, in the order of first appearance."""
    names = []
    for leaf in leaves:
        for suffix in CONTROLS:
            leaf = leaf.removesuffix(suffix)
        names.append(leaf)
    return list(dict.fromkeys(names))


def _row(metric: str, leaves: Mapping[str, Any], suffixes: Sequence[str]) -> str:
    cells = []
    for suffix in ("", *suffixes):
        name = metric + suffix
        if name in leaves:
            kind = "" if suffix else ' class="model"'
            cells.append(f"<td{kind}>{_formatted(name, leaves[name])}</td>")
        else:
            cells.append('<td class="none">–</td>')
    hint = ' <span class="count">lower is better</span>' if "loss" in metric else ""
    return f'<tr><th scope="row">{_readable(metric)}{hint}</th>{"".join(cells)}</tr>'


def _charts(curves: Mapping[str, Points]) -> str:
    grouped: dict[str, dict[str, Points]] = {}
    for name, points in curves.items():
        prefix, _, quantity = name.rpartition("/")
        grouped.setdefault(quantity, {})[prefix or quantity] = points
    panels = [
        f'<div class="panel"><h3>{_readable(quantity)}</h3>{line_chart(quantity, series)}</div>'
        for quantity, series in grouped.items()
    ]
    return f'<h2>Curves</h2>\n<div class="charts">{"".join(panels)}</div>' if panels else ""


def _galleries(samples: Sequence[Sample]) -> list[str]:
    by_split: dict[str, list[Sample]] = {}
    for sample in samples:
        by_split.setdefault(sample.split, []).append(sample)
    galleries = []
    for split, members in by_split.items():
        correct = sum(sample.correct for sample in members)
        galleries.append(
            f'<h2>{escape(split)} <span class="count">{correct} of the {len(members)} shown '
            f'are right</span></h2>\n<div class="cards">{"".join(map(_card, members))}</div>'
        )
    return galleries


def _card(sample: Sample) -> str:
    image = ""
    if sample.image_png:
        data = base64.b64encode(sample.image_png).decode("ascii")
        label = escape(sample.reference)
        image = f'<img alt="{label}" src="data:image/png;base64,{data}">'
    prefix = f'<div class="given">prefix: {escape(sample.prefix)}</div>' if sample.prefix else ""
    kind, verdict = ("right", "✓ right") if sample.correct else ("wrong", "✗ other")
    return (
        f'<figure class="card">{image}<figcaption>'
        f'{prefix}<div class="caption">{escape(sample.caption) or "(nothing)"}</div>'
        f'<div class="given">reference: {escape(sample.reference)}</div>'
        f'<div class="verdict"><span class="badge {kind}">{verdict}</span>'
        f'<span class="score">score {short_number(sample.score)}</span></div>'
        "</figcaption></figure>\n"
    )
