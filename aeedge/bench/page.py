"""A result as one self-contained HTML page: verdict, tiles, tables, and charts that a phone can show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from aeedge.bench import svg
from aeedge.bench.text import compared_with as other_bundle
from aeedge.bench.text import (
    comparison_table,
    human_time,
    latencies,
    machine_line,
    merged,
    number,
    phase_rows,
    profile_table,
    rate_sentence,
    scenario_unit,
    time_unit,
    verdict,
)
from aeedge.bench.text import text as as_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #4a5568; --rule: #d9dee5; --paper: #ffffff;
  --card: #f4f6f9; --c1: #0b62a8; --c2: #b04a00; --c3: #00734f; --c8: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a3adbb; --rule: #333c48; --paper: #14181e;
  --card: #1d232b; --c1: #6db3f2; --c2: #ff9e57; --c3: #4fc79a; --c8: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 56rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .3rem 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.status { border-left: 4px solid var(--c3); background: var(--card); padding: .5rem .9rem; margin: 1rem 0; }
.status.invalid { border-color: var(--c8); } .status.interrupted { border-color: var(--c2); }
.status ul { margin: .2rem 0 0; padding-left: 1.2rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tiles div { flex: 1 1 8.4rem; background: var(--card); padding: .6rem .8rem; border-radius: .4rem; }
.tiles dt, .tiles dd { margin: 0; } .tiles dt, .tiles .soft { font-size: 13px; }
.tiles dd { font-size: 1.35rem; font-weight: 600; line-height: 1.35; overflow-wrap: anywhere; }
.tiles dd.soft { font-weight: 400; line-height: 1.4; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem 0 .25rem 1.4rem; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; vertical-align: bottom; } td { white-space: nowrap; } tbody th { font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
.notes :is(th, td):last-child { text-align: left; padding-left: .4rem; white-space: normal; }
@media (max-width: 36rem) { table { font-size: 13px; width: 100%; } th, td { padding-left: .7rem; } }
.wide { overflow-x: auto; }
.pair { display: grid; gap: 1rem 2rem; }
@media (min-width: 48rem) { .pair { grid-template-columns: 1fr 1fr; } }
figure { margin: .4rem 0 0; max-width: 30rem; } figcaption { color: var(--soft); font-size: 13px; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.35; } summary { cursor: pointer; margin-top: 2.2rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 13px; fill: var(--ink); stroke: var(--paper); stroke-width: 4px; paint-order: stroke; }
svg .axis { fill: var(--soft); }
.grid { stroke: var(--rule); } .tick { stroke: var(--soft); } .bar { fill: var(--c1); }
.mark { fill: none; stroke: var(--c2); stroke-width: 1.3; }
.line { fill: none; stroke: var(--c1); stroke-width: 2; } .dot { fill: var(--c1); }
.line.c2 { stroke: var(--c2); stroke-dasharray: 5 2; } .dot.c2 { fill: var(--c2); }
"""
_LABELS = ("p50", "p90", "p99", "p99.9")
_OF_SOAK = {"memory_mb": "resident memory, MB", "celsius": "temperature, °C", "mhz": "clock frequency, MHz"}


def page(document: dict[str, Any]) -> str:
    """The complete page."""
    b = document["bundle"]
    title = f"{b['name']}: latency of {document['method']}"
    parts = [f"<h1>{escape(title)}</h1>", _status(document), _tiles(document), _about(document)]
    if document.get("comparison"):
        parts += _comparison(document)
    if document["scenarios"]:
        parts += ["<h2>Latency and throughput</h2>", _scenarios(document["scenarios"])]
    for name, scenario in document["scenarios"].items():
        parts += _scenario(name, scenario)
    if document.get("batches"):
        parts += _batches(document["batches"])
    if document.get("soak", {}).get("windows"):
        parts += _soak(document["soak"])
    if "phases" in document:
        parts.append(f"<h2>A fresh process, median of {document['phases']['processes']}</h2>")
        parts.append(_table(["phase", "median", "unit"], phase_rows(document["phases"]), "a fresh process", "notes"))
    if document.get("profile"):
        head, rows = profile_table(document["profile"])
        parts += ["<h2>Operators</h2>", _table([cell or "share" for cell in head], rows, "operators")]
    text = f'<pre role="region" tabindex="0" aria-label="the result as text">{escape(as_text(document))}</pre>'
    parts.append(f"<details><summary>The same as text</summary>{text}</details>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body>"
        "</html>\n"
    )


def _status(document: dict[str, Any]) -> str:
    lines = [f"{f['grade']}: {f['message']} ({f['part']})" for f in merged(document["findings"])]
    said = [
        escape(line) for line in verdict(document).splitlines() if line.startswith(("INTERRUPTED", "INVALID:", "VALID"))
    ]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines)
    closing = f"<strong>{'<br>'.join(said)}</strong>"
    return f'<div class="status {document["status"]}">{closing}{f"<ul>{listed}</ul>" if listed else ""}</div>'


def _about(document: dict[str, Any]) -> str:
    b = document["bundle"]
    shape, latent = ("×".join(map(str, b[key])) for key in ("input_shape", "latent_shape"))
    lines = (
        f"{b['family']}, {b['variant']}: {shape} {b['input_dtype']} to {latent} latents; id {b['id'][:12]}",
        machine_line(document),
        document["started_at"],
    )
    return f'<p class="soft">{"<br>".join(map(escape, lines))}</p>'


def _tiles(document: dict[str, Any]) -> str:
    """What one wants to know first."""
    scenarios, machine = document["scenarios"], document["machine"]
    tiles = []
    for c in document.get("comparison", []):
        name = c.get("scenario") or f"{c['rows']:,} sample{'s' * (c['rows'] > 1)} a call"
        interval = f"times the other's time ({c['ratio']['low']:.3f} to {c['ratio']['high']:.3f})"
        said = c["verdict"].replace("_", " ")
        tiles.append((f"{name}: {said}", f"{c['ratio']['estimate']:.3f}", interval))
    if one := scenarios.get("SingleStream"):
        tiles.append(("Median, one sample", human_time(one["p50_us"]), f"of {one['queries']:,} queries"))
        enough = "1 of 100 is slower" if one["p99_us"] else "too few queries to say"
        tiles.append(("p99, one sample", human_time(one["p99_us"]), enough))
    rates = [(s["rows_per_second"], s["rows_per_query"]) for s in scenarios.values()]
    rates += [(b["rows_per_second"], b["rows"]) for b in document.get("batches", [])]
    if rates:
        rate, samples = max(rates)
        tiles.append(("Throughput, at most", f"{svg.label(rate)}/s", f"samples, {samples:,} a call"))
    if rate := scenarios.get("FixedRate"):
        missed = f"{rate['deadline_misses'] / rate['queries_due']:.2%}"
        tiles.append(
            (f"Too late at {rate['rate_requested']:g}/s", missed, f"deadline {human_time(rate['deadline_us'])}")
        )
    if (drift := document.get("soak", {}).get("drift")) is not None:
        tiles.append(("Soak, end / start", f"{drift:.3f}×", "median latency"))
    tiles.append(("Threads", str(document["threads"]), "for many samples"))
    tiles.append(("Machine", machine["processor"], f"{machine['cpus']} CPUs, {machine['system'].split(' ')[0]}"))
    return '<dl class="tiles">{}</dl>'.format(
        "".join(
            f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class="soft">{escape(note)}</dd></div>'
            for name, value, note in tiles
        )
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], about: str, style: str = "") -> str:
    """A table with headers of rows and columns, which scrolls where it is too wide."""
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(about)}">'
        f'<table class="{style}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _scenarios(scenarios: dict[str, Any]) -> str:
    """A column for each scenario, whose times have one unit."""
    found = [latencies(s) for s in scenarios.values()]
    rows = [
        ["samples a query", *(f"{s['rows_per_query']:,}" for s in scenarios.values())],
        ["queries", *(f"{s['queries']:,}" for s in scenarios.values())],
        *([name, *(number(values[i]) for _, values in found)] for i, name in enumerate(_LABELS)),
        ["mean", *(number(s["mean_us"] / scenario_unit(s)[1]) for s in scenarios.values())],
        ["samples/s", *(f"{s['rows_per_second']:,.0f}" for s in scenarios.values())],
    ]
    return _table(["", *(f"{name}, {unit}" for name, (unit, _) in zip(scenarios, found))], rows, "latency by scenario")


def _scenario(name: str, s: dict[str, Any]) -> list[str]:
    """Histogram and latency over time beside each other, in the unit of the scenario."""
    unit, scale = scenario_unit(s)
    values = latencies(s)[1]
    edges = [edge / scale for edge in s["histogram_us"]["edges"][:-1]]
    *counts, above = s["histogram_us"]["counts"]
    marks = [(label, value, number(value)) for label, value in zip(_LABELS, values) if value and value > 0]
    what = f"{s['rows_per_query']:,} sample{'s' * (s['rows_per_query'] > 1)} a query"
    caption = (
        f"Queries by latency up to the 99.9th percentile; {above:,} above, up to {human_time(s['max_us'])}."
        if above
        else "All queries by latency."
    )
    return [
        f"<h2>{name}: {what}</h2>",
        f"<p>{escape(rate_sentence(s))}</p>" if name == "FixedRate" else "",
        '<div class="pair">',
        _figure(
            svg.bars(edges, counts, marks, (f"latency of a query, {unit}", "queries (√ scale)")),
            caption,
        ),
        _over_time(s["series"], unit, scale, f"Each point is one of {len(s['series'])} equal parts of the run."),
        "</div>",
    ]


def _over_time(windows: Sequence[dict[str, Any]], unit: str, scale: float, caption: str) -> str:
    """Median, and the 99th percentile where all windows have one, otherwise the largest latency."""
    key, name = ("p99_us", "p99") if all(w["p99_us"] is not None for w in windows) else ("max_us", "largest")
    times, clock = _clock([w["at_s"] for w in windows])
    drawn = [svg.Line("median", "c1", [(at, w["p50_us"] / scale) for at, w in zip(times, windows)])]
    if any(w[key] != w["p50_us"] for w in windows):  # the same where each window is one query
        drawn.append(svg.Line(name, "c2", [(at, w[key] / scale) for at, w in zip(times, windows)]))
    return _figure(svg.lines(drawn, (f"time, {clock}", f"latency, {unit}")), caption)


def _clock(seconds: Sequence[float]) -> tuple[list[float], str]:
    """Moments of a run in seconds, minutes or hours."""
    scale, name = (3600, "hours") if seconds[-1] > 10_800 else (60, "minutes") if seconds[-1] > 180 else (1, "seconds")
    return [at / scale for at in seconds], name


def _batches(batches: Sequence[dict[str, Any]]) -> list[str]:
    unit, scale = time_unit(b["us"] for b in batches)
    rates = [(b["rows"], b["rows_per_second"]) for b in batches]
    times = [(b["rows"], b["us"] / scale) for b in batches]
    across = "samples a call"
    return [
        "<h2>Samples a call</h2>",
        '<div class="pair">',
        _figure(
            svg.lines([svg.Line("throughput", "c1", rates)], (across, "samples per second"), log=True),
            "Throughput grows until a call's own cost no longer counts.",
        ),
        _figure(
            svg.lines([svg.Line("time", "c1", times)], (across, f"time of a call, {unit}"), log=True),
            "Median time of a call.",
        ),
        "</div>",
    ]


def _soak(soak: dict[str, Any]) -> list[str]:
    windows = soak["windows"]
    unit, scale = time_unit(w["p50_us"] for w in windows)
    times, clock = _clock([w["at_s"] for w in windows])
    length = "" if soak["drift"] is None else f"Median at the end / at the start: {soak['drift']:.3f}."
    figures = [_over_time(windows, unit, scale, length)]
    for key, title in _OF_SOAK.items():
        points = [(at, w[key]) for at, w in zip(times, windows) if w[key] is not None]
        if points:
            line = svg.Line(title, "c1", points)
            figures.append(
                _figure(svg.lines([line], (f"time, {clock}", title), from_zero=False), "At each window's end.")
            )
    return ["<h2>Soak: one sample a query, for long</h2>", '<div class="pair">', *figures, "</div>"]


def _comparison(document: dict[str, Any]) -> list[str]:
    found = [
        (
            c.get("scenario") or f"{c['rows']:,} sample{'s' * (c['rows'] > 1)} a call",
            c["ratio"]["estimate"],
            c["ratio"]["low"],
            c["ratio"]["high"],
        )
        for c in document["comparison"]
    ]
    head, rows = comparison_table(document)
    return [
        "<h2>Comparison</h2>",
        f"<p>{escape(other_bundle(document))}</p>",
        _figure(
            svg.ratios(found, "time, as a multiple of the other's (lower is better)"),
            "Dots with 99 % intervals; an interval that contains 1 is no difference.",
        ),
        _table(head, rows, "comparison"),
    ]
