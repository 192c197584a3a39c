"""The report's style sheet: light and dark by the reader's setting, no outside resource."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f27; --soft: #5a6372; --line: #dfe3ea;
  --good: #14713d; --good-back: #e1f4e8; --bad: #a3320b; --bad-back: #fdebe3;
  --series-0: #2563c9; --series-1: #c2560a; --series-2: #14804a; --series-3: #7c3fc4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151b; --card: #1b2029; --ink: #e8ebf0; --soft: #9da7b7; --line: #303845;
    --good: #7fdba3; --good-back: #173726; --bad: #ffae8c; --bad-back: #43231a;
    --series-0: #74a9ff; --series-1: #ff9d57; --series-2: #5fd093; --series-3: #bf97ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 1280px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; }
h3 { font-size: .95rem; margin: 0 0 .4rem; }
.count, .empty { color: var(--soft); font-weight: normal; font-size: .9rem; }
.panel {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem;
}
.scroll { overflow-x: auto; padding: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tbody th { font-weight: 400; white-space: nowrap; }
tbody tr.section th { padding-top: .9rem; font-weight: 650; }
tbody tr.section + tr > * { border-top: 0; }
td { white-space: nowrap; }
td.model { font-weight: 650; }
td.none { color: var(--soft); }
dl.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .8rem 1.5rem;
  margin: 1rem 0 0;
}
dl.facts dt { color: var(--soft); font-size: .82rem; }
dl.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; }
.charts .panel { max-width: 640px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--soft); font-size: 13px; }
.chart .grid { stroke: var(--line); }
.chart .axis { stroke: var(--soft); }
.chart polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.chart circle { fill: currentColor; }
.chart .bar { fill: var(--series-0); }
.chart .interval { color: var(--soft); }
.chart .interval.right { color: var(--good); } .chart .interval.wrong { color: var(--bad); }
.chart circle.hollow { fill: none; stroke: var(--series-0); stroke-width: 1.5; }
.chart .dashed { stroke-dasharray: 5 4; }
.series-0 { color: var(--series-0); } .series-1 { color: var(--series-1); }
.series-2 { color: var(--series-2); } .series-3 { color: var(--series-3); }
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .5rem 0 0; padding: 0;
  list-style: none; font-size: .85rem; color: var(--soft);
}
.key {
  display: inline-block; width: 1.3em; margin-right: .45em; vertical-align: middle;
  border-top: 3px solid currentColor;
}
.key.dashed { border-top-style: dashed; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 1rem; }
.card {
  display: flex; flex-direction: column; margin: 0; overflow: hidden;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
.card img {
  display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #ffffff;
  border-bottom: 1px solid var(--line);
}
.card figcaption {
  flex: 1; display: flex; flex-direction: column; gap: .35rem; padding: .75rem .85rem;
}
.caption { font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
.given { font-size: .87rem; color: var(--soft); line-height: 1.35; overflow-wrap: anywhere; }
.verdict {
  display: flex; justify-content: space-between; align-items: center; margin-top: auto;
  font-size: .8rem;
}
.badge { padding: .1rem .55rem; border-radius: 99px; font-weight: 600; }
.right { color: var(--good); background: var(--good-back); }
.wrong { color: var(--bad); background: var(--bad-back); }
.score { color: var(--soft); font-variant-numeric: tabular-nums; }
@media print { body { background: none; } .card, .panel { break-inside: avoid; } }
"""
