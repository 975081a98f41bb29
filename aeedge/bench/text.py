"""A result as text: tables of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aeedge.table import columns, human_bytes, pairs

_WIDTH = 80
_SIZES = 3  # numbers of samples in a table of bundles
_PHASES = {
    "start_ms": "start of Python",
    "import_numpy_ms": "import numpy",
    "import_aeedge_ms": "import aeedge",
    "load_ms": "load the bundle (with onnxruntime)",
    "first_call_ms": "first call",
    "start_to_first_result_ms": "start to first result",
}


def text(document: dict[str, Any]) -> str:
    """The whole result: what was measured on which machine, the numbers, and the findings."""
    parts = [_head(document)]
    if "phases" in document:
        parts.append(_phases(document["phases"]))
    if document["scenarios"]:
        parts.append(_scenarios(document["scenarios"]))
    if "FixedRate" in document["scenarios"]:
        parts.append(_rate(document["scenarios"]["FixedRate"]))
    if document.get("batches"):
        rows = [[f"{b['rows']:,}", number(b["us"]), f"{b['rows_per_second']:,.0f}"] for b in document["batches"]]
        parts.append(columns(["rows per call", "µs per call", "rows/s"], rows))
    if document.get("profile"):
        parts.append(_profile(document["profile"]))
    if "soak" in document:
        parts.append(_soak(document["soak"]))
    if document.get("comparison"):
        parts.append(_comparison(document))
    return "\n\n".join([*parts, verdict(document)])


def batch_text(document: dict[str, Any]) -> str:
    """Bundles beside each other: a table, or several where there are many numbers of samples, errors and findings."""
    measured = [entry for entry in document["bundles"] if "error" not in entry]
    head = f"{document['method']}, threads: {document['threads']}; µs are of a whole call, ± is of the median"
    parts = [f"{_wrapped(machine_line(document))}\n{head}"]
    sizes = [str(size) for size in document["at"]]
    for first in range(0, len(sizes), _SIZES) if measured else ():
        parts.append(_bundles(measured, sizes[first : first + _SIZES], about=first == 0))
    notes = [
        f"{entry['name']}: {entry['asked_variant']} is not right on this machine, {entry['variant']} was measured"
        for entry in measured
        if entry["variant"] != entry["asked_variant"]
    ]
    notes += [f"ERROR {entry['name']}: {entry['error']}" for entry in document["bundles"] if "error" in entry]
    return "\n\n".join([*parts, "\n".join([*map(_wrapped, notes), verdict(document)])])


def _bundles(entries: list[dict[str, Any]], sizes: list[str], *, about: bool) -> str:
    """A table of latencies; names that would make it too wide have lines of their own."""
    head = ["bundle", *(cell for size in sizes for cell in (f"µs, {int(size):,}", "±"))]
    rows = [
        [entry["name"]]
        + [cell for size in sizes for cell in (number(entry["latency_us"][size]), _noise(entry["noise"][size]))]
        for entry in entries
    ]
    if about:
        head[1:1] = ["variant"]
        head += ["size", "memory"]
        for entry, row in zip(entries, rows):
            memory = entry["memory_bytes"]
            row[1:1] = [entry["variant"]]
            row += [human_bytes(entry["size_bytes"]), "–" if memory is None else human_bytes(memory)]
    table = columns(head, rows)
    if max(map(len, table.splitlines())) <= _WIDTH:
        return table
    lines = columns(head, [["", *row[1:]] for row in rows]).splitlines()
    names = columns(["bundle"], [row[:1] for row in rows]).splitlines()[2:]
    return "\n".join([*lines[:2], *(line for pair in zip(names, lines[2:]) for line in pair)])


def _noise(value: float | None) -> str:
    return "–" if value is None else f"{value:.{1 if value < 0.1 else 0}%}"


def number(value: float | None) -> str:
    """About three digits; a dash for what the sample does not support."""
    if value is None:
        return "–"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}"


def verdict(document: dict[str, Any]) -> str:
    """The findings, one per line, and the status."""
    lines = [f"{f['grade'].upper()} {_place(f)}{f['message']}" for f in merged(document["findings"])]
    closing = {
        "valid": "VALID: no disturbance was found"
        if not any(f["grade"] == "warning" for f in document["findings"])
        else "VALID, with the warnings above",
        "invalid": "INVALID: do not use these numbers",
        "interrupted": "INTERRUPTED: these are the numbers until then",
    }
    if document.get("interrupted") and document["status"] == "invalid":
        lines.append(closing["interrupted"])
    return "\n".join([*(_wrapped(line) for line in lines), closing[document["status"]]])


def merged(findings: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Findings with the same code and grade as one, with the parts that they concern."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for finding in findings:
        key = finding["grade"], finding["code"]
        if key in groups:
            parts = groups[key]["part"].split(", ")
            groups[key]["part"] = ", ".join(dict.fromkeys([*parts, finding["part"]]))
        else:
            groups[key] = dict(finding)
    order = ("invalid", "warning", "note")
    return sorted(groups.values(), key=lambda f: order.index(f["grade"]))


def machine_line(document: dict[str, Any]) -> str:
    """Processor, CPUs and versions in one line."""
    m = document["machine"]
    versions = ", ".join(f"{name} {v or 'not installed'}" for name, v in m["versions"].items())
    return f"{m['processor']}, {m['cpus']} CPUs, {m['system'].split(' ')[0]}; Python {m['python']}, {versions}"


def _place(finding: dict[str, str]) -> str:
    return "" if finding["part"] == "machine" else f"({finding['part']}) "


def _wrapped(line: str) -> str:
    from textwrap import fill

    return fill(line, _WIDTH, subsequent_indent="  ")


def _head(document: dict[str, Any]) -> str:
    b = document["bundle"]
    shape, latent = ("×".join(map(str, b[key])) for key in ("input_shape", "latent_shape"))
    return "\n".join(
        [
            f"{b['path']}, id {b['id'][:12]}",
            f"{b['family']}, {b['variant']}: {shape} {b['input_dtype']} to {latent} latents",
            _wrapped(machine_line(document)),
            f"{document['method']}, {document['threads']} threads for many rows; {document['started_at']}",
        ]
    )


def _phases(phases: dict[str, Any]) -> str:
    rows = [(label, f"{number(phases[key]):>8} ms") for key, label in _PHASES.items()]
    warm_up = number(phases["warm_up_ms"])
    rows.append(("warm-up", f"{warm_up:>8} ms, number of calls: {phases['warm_up_calls']:.0f}"))
    rows.append(("steady state, one sample", f"{number(phases['steady_us']):>8} µs"))
    rows.append(("idle afterwards", f"{number(phases['idle_cpu_percent']):>8} % of one CPU"))
    memory = phases["memory_mb"]
    if memory["steady"] is not None:
        slope = phases["memory_slope_bytes_per_1000_calls"]
        rows.append(("memory once loaded", f"{number(memory['loaded']):>8} MB"))
        rows.append(("memory, steady state", f"{number(memory['steady']):>8} MB, {slope:+,.0f} bytes per 1,000 calls"))
    if memory["peak"] is not None:
        rows.append(("memory, peak", f"{number(memory['peak']):>8} MB (4 MiB of rows in one call)"))
    head = f"A fresh process (median of {phases['processes']})"
    return f"{head}\n{'─' * len(head)}\n{pairs(rows)}"


def _scenarios(scenarios: dict[str, Any]) -> str:
    rows = []
    for name, s in scenarios.items():
        values = [number(s[f"{p}_us"]) for p in ("p50", "p90", "p99", "p99.9")]
        rows.append([name, f"{s['rows_per_query']:,}", f"{s['queries']:,}", *values, f"{s['rows_per_second']:,.0f}"])
    table = columns(["µs", "rows", "queries", "p50", "p90", "p99", "p99.9", "rows/s"], rows)
    bounds = [
        f"{name} p{q} at most {number(s[f'early_stopping_p{q}_us'])} µs"
        for name, s in scenarios.items()
        for q in ("90", "99")
        if s.get(f"early_stopping_p{q}_us")
    ]
    return table + ("\n" + _wrapped(f"With 99 % confidence (early stopping): {', '.join(bounds)}") if bounds else "")


def _rate(s: dict[str, Any]) -> str:
    misses, due = s["deadline_misses"], s["queries_due"]
    parts = [
        f"At {s['rate_requested']:g} queries per second, timed from when each was due: ",
        f"{s['rate_achieved']:,.0f}/s answered, {misses:,} of {due:,} missed the deadline of ",
        f"{number(s['deadline_us'])} µs ({misses / due:.2%}); ",
        f"calls began {number(s['start_delay_p50_us'])} µs late (median).",
    ]
    return _wrapped("".join(parts))


def _profile(profile: dict[str, Any]) -> str:
    """Operators at one row and at many rows, matched by name: onnxruntime may choose others there."""
    one, many = profile["totals"]
    by_name: dict[tuple[str, str, str], dict[int, float]] = {}
    for o in profile["operators"]:
        by_name.setdefault((o["graph"], o["op_type"], o["name"]), {})[o["rows"]] = o["us"]
    rows = [
        [f"{graph} {op_type}", name[-22:]]
        + [
            cell
            for t in (one, many)
            for cell in (number(us.get(t["rows"])), _share(us.get(t["rows"]), t["operators_us"]))
        ]
        for (graph, op_type, name), us in by_name.items()
    ]
    for key, label in (("operators_us", "all operators"), ("run_us", "run of onnxruntime"), ("call_us", "whole call")):
        rows.append([label, "" if key != "call_us" else "not profiled", number(one[key]), "", number(many[key]), ""])
    return columns(["operator", "name", "µs, 1 row", "", f"µs, {many['rows']:,} rows", ""], rows)


def _share(us: float | None, total: float) -> str:
    return "" if us is None or not total else f"{us / total:.0%}"


def _soak(soak: dict[str, Any]) -> str:
    shown = soak["windows"][:: max(1, len(soak["windows"]) // 10)]
    rows = [
        [
            f"{w['at_s']:,.1f}",
            *(number(w[key]) for key in ("p50_us", "p99_us", "max_us")),
            f"{w['rows_per_second']:,.0f}",
            *(number(w[key]) for key in ("celsius", "mhz", "memory_mb")),
        ]
        for w in shown
    ]
    table = columns(["soak, s", "p50 µs", "p99 µs", "max µs", "rows/s", "°C", "MHz", "MB"], rows)
    drift = "" if soak["drift"] is None else f"\nmedian at the end / median at the start: {soak['drift']:.3f}"
    return table + drift


def _comparison(document: dict[str, Any]) -> str:
    rows = [
        [
            f"{c['rows']:,}" if c.get("rows") else c["scenario"],
            number(c["this_us"]),
            number(c["other_us"]),
            f"{c['ratio']['estimate']:.3f}",
            f"{c['ratio']['low']:.3f} to {c['ratio']['high']:.3f}",
            c["verdict"].replace("_", " "),
        ]
        for c in document["comparison"]
    ]
    other = document["compared_with"]
    head = ["rows per call", "µs, this", "µs, other", "ratio", "99 % interval", "this is"]
    return f"Compared with {other['path']} ({other['variant']}, id {other['id'][:12]})\n{columns(head, rows)}"
