"""The ablation's results as a Markdown table and as a page."""

from collections.abc import Mapping
from html import escape
from typing import Any

from simvlm_jax.ablation.results import missing
from simvlm_jax.ablation.statistics import HOLDS, OPEN, REVERSED
from simvlm_jax.pages.intervals import Interval, interval_chart
from simvlm_jax.pages.page import page

COLUMNS = (
    "row", "what differs", "steps", "score, mean (each seed)", "difference, 95 % interval",
    "paper", "paper's difference", "the paper's order",
)  # fmt: skip
CONTROLS = {
    "shuffled": "the base row with every image exchanged for another drawing's",
    "most_frequent": "the commonest training answer to each question",
}


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row's cells, as `COLUMNS` has them; scores and differences in percent and points."""
    scores = [seed["score"] for seed in row["seeds"]]
    each = ", ".join("missing" if score is None else f"{100 * score:.1f}" for score in scores)
    mean = "missing" if row["mean"] is None else f"{100 * row['mean']:.1f}"
    return [
        row["title"],
        row["differs"] or "–",
        f"{row['steps']:,}",
        f"{mean} ({each})",
        _difference(row),
        f"{row['paper']:.2f}",
        "–" if row["paper_difference"] is None else f"{row['paper_difference']:+.2f}",
        row["verdict"] or "–",
    ]


def _difference(row: Mapping[str, Any]) -> str:
    found = row["difference"]
    if found is None:
        return "–" if row["verdict"] is None else "missing"
    if found["low"] is None:
        return f"{100 * found['mean']:+.1f} (one pair)"
    ends = f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f}"
    fewer = f", {found['pairs']} pairs" if found["pairs"] < len(row["seeds"]) else ""
    return f"{100 * found['mean']:+.1f} ({ends}{fewer})"


def remarks(results: Mapping[str, Any]) -> list[str]:
    """Sentences below the table: what an order is, what the controls score, what is missing."""
    verdicts = [row["verdict"] for row in results["rows"] if row["verdict"]]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in (HOLDS, REVERSED, OPEN))
    orders = ", ".join(f"{count} {name}" for name, count in results["orders"].items())
    found = [
        "Scores are in percent, differences in points. A difference is to the first row, seed by "
        "seed (the same seed has the same initial key and order of data); its interval is "
        f"Student's t at 95 %. An order counts only where the interval excludes zero: {counts}.",
        f"Between all pairs of rows the paper's orders are: {orders}. Intervals are not corrected "
        "for their number.",
    ]
    found += [
        f"{words[0].upper()}{words[1:]}: {100 * results['controls'][name]:.1f} %."
        for name, words in CONTROLS.items()
        if name in results["controls"]
    ]
    flops = [row["flops"] for row in results["rows"] if row["steps"]]
    if flops:
        found.append(
            f"Every row that pretrains spends {min(flops) / 1e12:.2f} to {max(flops) / 1e12:.2f} "
            "TFLOP on it, by its own shapes; steps differ by what one costs."
        )
    if gone := missing(results):
        found.append(f"Missing: {'; '.join(gone)}.")
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """The table and its remarks, as `docs/ablations.md` holds them."""
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    lines += [_line(cells(row)) for row in results["rows"]]
    return "\n".join([*lines, "", *(f"{remark}\n" for remark in remarks(results))]).rstrip() + "\n"


def _line(texts) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def html(results: Mapping[str, Any]) -> str:
    """A page with the picture of all differences, the table and its remarks."""
    shown = [
        Interval(
            row["title"],
            100 * row["difference"]["mean"],
            *(_percent(row["difference"][end]) for end in ("low", "high")),
            beside=row["paper_difference"],
            kind={HOLDS: "right", REVERSED: "wrong"}.get(row["verdict"], ""),
        )
        for row in results["rows"]
        if row["difference"]
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>\n"
        for row in results["rows"]
    )
    parts = [
        "<h1>Ablation</h1>",
        "<h2>Difference to the first row, in points</h2>",
        f'<div class="panel">{interval_chart("Differences", shown, "here", "paper")}</div>',
        f'<h2>Table</h2><div class="panel scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
        *(f"<p>{escape(remark)}</p>" for remark in remarks(results)),
    ]
    return page("Ablation", "\n".join(parts))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
