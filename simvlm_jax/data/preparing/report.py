"""What a preparation did, as one HTML page: counts, distributions, samples, refused records."""

import base64
import io
from collections.abc import Mapping
from html import escape

import numpy as np
from PIL import Image

from simvlm_jax.data import pillow_images
from simvlm_jax.data.preparing import examples
from simvlm_jax.data.preparing.examining import KEPT, REFUSED
from simvlm_jax.data.sources import Records, Unreadable
from simvlm_jax.errors import UserError
from simvlm_jax.pages.charts import bar_chart, short_number
from simvlm_jax.pages.page import page

BINS = 24
WIDE = 20.0  # a largest value so many times the smallest is drawn over powers of ten
PERCENTILES = (1, 5, 50, 95, 99)
SAMPLES, REFUSED_SHOWN = 48, 12
THUMBNAIL = 160  # pixels
SHOWN = 200  # characters of a caption
LABELS = {
    "width": "width, pixels",
    "height": "height, pixels",
    "aspect": "width / height",
    "bytes": "bytes of the image",
    "characters": "characters of the caption",
    "tokens": "tokens of the caption",
}


def distribution(values: np.ndarray) -> dict:
    """Describes numbers.

    Args:
      values: [n], n > 0, none negative.

    Returns:
      `least`, `most`, `mean`, `percentiles`, and a histogram: `edges`, `counts`, and whether the
      edges are `logarithmic`.
    """
    low, high = float(values.min()), float(values.max())
    logarithmic = low > 0 and high > WIDE * low
    space = np.geomspace if logarithmic else np.linspace
    edges = space(low, high if high > low else low + 1, BINS + 1)
    edges[0], edges[-1] = low, max(high, edges[-1])  # rounding must not lose the ends
    counts, _ = np.histogram(values, edges)
    found = np.percentile(values, PERCENTILES, method="nearest")
    return {
        "least": round(low, 4),
        "most": round(high, 4),
        "mean": round(float(values.mean()), 4),
        "percentiles": {
            str(p): round(float(v), 4) for p, v in zip(PERCENTILES, found, strict=True)
        },
        "edges": [round(float(edge), 4) for edge in edges],
        "counts": [int(count) for count in counts],
        "logarithmic": logarithmic,
    }


def pairs_page(name: str, summary: Mapping, findings, records: Records, settings) -> str:
    """Draws the report on image-text pairs.

    Args:
      name: of the data set.
      summary: as `pairs.prepare_pairs` makes it.
      findings: of every record, a `choosing.Findings`.
      records: the input, for the samples.
      settings: a `pairs.Settings`.

    Returns:
      A self-contained page; every text of the data in it is escaped.
    """
    generator = np.random.default_rng(settings.seed)
    kept = np.flatnonzero(findings.rows["outcome"] == KEPT)
    sample = np.sort(generator.permutation(len(kept))[:SAMPLES])
    cards = [_card(records, int(kept[place]), settings.source) for place in sample]
    refused = [
        _card(records, index, settings.source, findings.causes[findings.rows["cause"][index]])
        for index in _refused(findings)
    ]
    body = [
        f"<h1>{escape(name)}</h1>",
        _facts({**summary["records"], **summary["outcomes"], **summary["formats"]}),
        _table("Why records are left out", "cause", "records", summary["causes"].items()),
        charts(summary["distributions"]),
        _table("Most frequent captions", "caption", "records", summary["frequent_captions"]),
        _gallery(f"{len(cards)} kept records, drawn at random", cards),
        _gallery("Some refused records", refused),
    ]
    return page(f"{name}: prepared data", "\n".join(part for part in body if part))


def documents_page(name: str, summary: Mapping) -> str:
    """Draws the report on documents."""
    body = [
        f"<h1>{escape(name)}</h1>",
        _facts({**summary["records"], **summary["outcomes"]}),
        _facts({key: f"{100 * value:.2f} %" for key, value in summary["pad_share"].items()}),
        _table("Why documents are left out", "cause", "documents", summary["causes"].items()),
    ]
    return page(f"{name}: prepared data", "\n".join(part for part in body if part))


def charts(distributions: Mapping[str, Mapping]) -> str:
    """Draws a panel for each distribution."""
    panels = []
    for name, found in distributions.items():
        spans = ", ".join(f"{p} %: {short_number(v)}" for p, v in found["percentiles"].items())
        chart = bar_chart(LABELS[name], found["edges"], found["counts"], found["logarithmic"])
        panels.append(
            f'<div class="panel"><h3>{LABELS[name]}</h3>{chart}<p class="count">{spans}</p></div>'
        )
    return f'<h2>Kept records</h2>\n<div class="charts">{"".join(panels)}</div>'


def shortened(text: str | bytes | Unreadable) -> str:
    """Returns the beginning of a text of any length and content, printable."""
    if isinstance(text, Unreadable):
        return ""
    if isinstance(text, bytes):
        text = text[: 4 * SHOWN].decode("utf-8", "replace")
    start = "".join(c if c.isprintable() else " " for c in text[:SHOWN])
    return start + "…" * (len(text) > SHOWN)


def thumbnail(image: bytes) -> str:
    """Returns a small JPEG as a data URI, or "" for what cannot be decoded."""
    try:
        picture = pillow_images.decode(image)
    except UserError:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    pixels = pillow_images.render(picture, (picture.height, picture.width))
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _refused(findings) -> list[int]:
    """A few refused records: the first of each cause, then others."""
    refused = np.flatnonzero(findings.rows["outcome"] == REFUSED)
    _, first = np.unique(findings.rows["cause"][refused], return_index=True)
    order = [*np.sort(first), *range(min(len(refused), 2 * REFUSED_SHOWN))]
    return [int(refused[place]) for place in dict.fromkeys(order)][:REFUSED_SHOWN]


def _card(records: Records, index: int, source, cause: str = "") -> str:
    (record,) = records.read([index])
    shard, key = records.name(index)
    example = examples.parse(record)
    image = caption = ""
    if not isinstance(example, Unreadable):
        content = examples.one_value(example, source.image_name)
        image = "" if isinstance(content, Unreadable) else thumbnail(content)
        caption = shortened(examples.one_value(example, source.text_name))
    picture = f'<img alt="{escape(caption)}" src="{image}">' if image else ""
    badge = f'<span class="badge wrong">{escape(cause)}</span>' if cause else ""
    place = escape(f"{shard.rpartition('/')[2]}: {shortened(key)}")
    return (
        f'<figure class="card">{picture}<figcaption><div class="caption">'
        f'{escape(caption) or "(nothing)"}</div><div class="given">{place}</div>{badge}'
        "</figcaption></figure>\n"
    )


def _facts(facts: Mapping) -> str:
    items = [
        f"<div><dt>{escape(str(name))}</dt><dd>"
        f"{f'{value:,}' if isinstance(value, int) else escape(str(value))}</dd></div>"
        for name, value in facts.items()
    ]
    return f'<dl class="facts">{"".join(items)}</dl>'


def _table(title: str, first: str, second: str, rows) -> str:
    lines = [f"<tr><td>{escape(str(name))}</td><td>{count:,}</td></tr>" for name, count in rows]
    if not lines:
        return ""
    return (
        f'<h2>{title}</h2>\n<div class="panel scroll"><table><thead><tr><th scope="col">{first}'
        f'</th><th scope="col">{second}</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
        "</div>"
    )


def _gallery(title: str, cards: list[str]) -> str:
    return f'<h2>{escape(title)}</h2>\n<div class="cards">{"".join(cards)}</div>' if cards else ""
