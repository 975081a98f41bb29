"""A result as one self-contained HTML page: tables, histograms, time series, throughput by batch size."""

from __future__ import annotations

from html import escape
from typing import Any

from aeedge.bench import svg
from aeedge.bench.text import machine_line, merged, number, verdict
from aeedge.bench.text import text as as_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --rule: #d9dee5; --paper: #fff; --accent: #1f6fb2;
  --warn: #c7562b; --good: #1d7a46; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --rule: #333c48; --paper: #14181e;
  --accent: #66b0ee; --warn: #f0986e; --good: #62c98f; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem;
  margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.status { border-left: 4px solid var(--good); padding: .3rem .8rem; margin: 1rem 0; }
.status.invalid { border-color: var(--bad); } .status.interrupted { border-color: var(--warn); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid var(--rule); }
.wide { overflow-x: auto; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; color: var(--soft); }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.35; }
svg { width: 100%; height: auto; } .bar { fill: var(--accent); } .line { fill: none; stroke: var(--accent);
  stroke-width: 1.8; } .dot { fill: var(--accent); }
.grid { stroke: var(--rule); stroke-width: 1; } .axis { fill: var(--soft); font-size: 11px; }
@media (max-width: 36rem) { .axis { font-size: 18px; } table { font-size: 13px; } }
"""


def page(document: dict[str, Any]) -> str:
    """The complete page."""
    b = document["bundle"]
    title = f"{b['name']}: latency of {document['method']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(machine_line(document))}<br>{escape(b["variant"])}, {document["threads"]} threads '
        f"for many rows, id {b['id'][:12]}, {document['started_at']}</p>",
        _status(document),
    ]
    if document["scenarios"]:
        parts += ["<h2>Scenarios</h2>", _scenarios(document["scenarios"])]
    for name, scenario in document["scenarios"].items():
        parts += _scenario(name, scenario)
    if document.get("batches"):
        points = [(b["rows"], b["rows_per_second"]) for b in document["batches"]]
        parts += [
            "<h2>Batch sizes</h2>",
            '<p class="soft">Throughput in rows per second, by rows per call.</p>',
            svg.line(points, "rows per second by rows per call", log=True),
        ]
    if document.get("soak", {}).get("windows"):
        windows = document["soak"]["windows"]
        points = [(w["at_s"], w["p50_us"]) for w in windows]
        parts += [
            "<h2>Soak</h2>",
            '<p class="soft">Median latency in µs of each window, over time in seconds.</p>',
            svg.line(points, "latency in µs over seconds", log=False),
        ]
    parts += ["<h2>Full result as text</h2>", f"<pre>{escape(as_text(document))}</pre>"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _status(document: dict[str, Any]) -> str:
    lines = [f"{f['grade']}: {f['message']} ({f['part']})" for f in merged(document["findings"])]
    closing = verdict(document).splitlines()[-1]
    listed = "".join(f"<br>{escape(line)}" for line in lines)
    return f'<p class="status {document["status"]}"><strong>{escape(closing)}</strong>{listed}</p>'


def _scenarios(scenarios: dict[str, Any]) -> str:
    keys = ("p50", "p90", "p99", "p99.9")
    head = "".join(f"<th>{name}</th>" for name in ("", "rows", "queries", *(f"{k} µs" for k in keys), "rows/s"))
    rows = [
        f"<tr><td>{name}</td><td>{s['rows_per_query']:,}</td><td>{s['queries']:,}</td>"
        + "".join(f"<td>{number(s[f'{k}_us'])}</td>" for k in keys)
        + f"<td>{s['rows_per_second']:,.0f}</td></tr>"
        for name, s in scenarios.items()
    ]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _scenario(name: str, s: dict[str, Any]) -> list[str]:
    points = [(w["at_s"], w["p50_us"]) for w in s["series"]]
    return [
        f"<h2>{name}</h2>",
        '<p class="soft">Number of queries by latency in µs (square-root scale, so that rare values are visible).</p>',
        svg.bars(s["histogram_us"]["edges"], s["histogram_us"]["counts"], "queries by latency in µs"),
        '<p class="soft">Median latency in µs over time in seconds.</p>',
        svg.line(points, "latency in µs over seconds", log=False),
    ]
