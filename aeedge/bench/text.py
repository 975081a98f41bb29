"""A result as text: tables of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
        parts.append(_wrapped(rate_sentence(document["scenarios"]["FixedRate"])))
    if document.get("batches"):
        unit, scale = time_unit(b["us"] for b in document["batches"])
        rows = [
            [f"{b['rows']:,}", number(b["us"] / scale), f"{b['rows_per_second']:,.0f}"] for b in document["batches"]
        ]
        parts.append(columns(["rows per call", f"{unit} per call", "rows/s"], rows))
    if document.get("profile"):
        parts.append(columns(*profile_table(document["profile"])))
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


def time_unit(microseconds: Iterable[float | None]) -> tuple[str, float]:
    """One unit for times that stand together, and how many microseconds it has: µs, ms or s by their geometric mean."""
    logs = [math.log10(us) for us in microseconds if us and us > 0]
    middle = sum(logs) / len(logs) if logs else 0.0
    return ("s", 1e6) if middle >= 6 else ("ms", 1e3) if middle >= 3 else ("µs", 1.0)


def latencies(scenario: dict[str, Any]) -> tuple[str, list[float | None]]:
    """The unit of a scenario's percentiles, and these in it: p50, p90, p99, p99.9."""
    found = [scenario[f"{key}_us"] for key in ("p50", "p90", "p99", "p99.9")]
    unit, scale = scenario_unit(scenario)
    return unit, [None if us is None else us / scale for us in found]


def scenario_unit(scenario: dict[str, Any]) -> tuple[str, float]:
    """The unit of a scenario's percentiles; of its mean where it has too few queries for them."""
    keys = ("p50", "p90", "p99", "p99.9") if scenario["p50_us"] else ("mean",)
    return time_unit(scenario[f"{key}_us"] for key in keys)


def human_time(us: float | None) -> str:
    """A time with its unit."""
    unit, scale = time_unit([us])
    return "–" if us is None else f"{number(us / scale)} {unit}"


def number(value: float | None) -> str:
    """About three digits; a dash for what the sample does not support."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
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
    rows = [(name, f"{value:>8} {rest}") for name, value, rest in phase_rows(phases)]
    head = f"A fresh process (median of {phases['processes']})"
    return f"{head}\n{'─' * len(head)}\n{pairs(rows)}"


def phase_rows(phases: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, number, and unit with what else there is to say."""
    rows = [(label, number(phases[key]), "ms") for key, label in _PHASES.items()]
    rows.append(("warm-up", number(phases["warm_up_ms"]), f"ms, number of calls: {phases['warm_up_calls']:.0f}"))
    unit, scale = time_unit([phases["steady_us"]])
    rows.append(("steady state, one sample", number(phases["steady_us"] / scale), unit))
    rows.append(("idle afterwards", number(phases["idle_cpu_percent"]), "% of one CPU"))
    memory = phases["memory_mb"]
    if memory["steady"] is not None:
        slope = phases["memory_slope_bytes_per_1000_calls"]
        rows.append(("memory once loaded", number(memory["loaded"]), "MB"))
        rows.append(("memory, steady state", number(memory["steady"]), f"MB, {slope:+,.0f} bytes per 1,000 calls"))
    if memory["peak"] is not None:
        rows.append(("memory, peak", number(memory["peak"]), "MB (4 MiB of rows in one call)"))
    return rows


def _scenarios(scenarios: dict[str, Any]) -> str:
    rows = []
    for name, s in scenarios.items():
        unit, values = latencies(s)
        counts = f"{s['rows_per_query']:,}", f"{s['queries']:,}"
        rows.append([f"{name}, {unit}", *counts, *map(number, values), f"{s['rows_per_second']:,.0f}"])
    table = columns(["latency", "rows", "queries", "p50", "p90", "p99", "p99.9", "rows/s"], rows)
    bounds = [
        f"{name} p{q} at most {human_time(s[f'early_stopping_p{q}_us'])}"
        for name, s in scenarios.items()
        for q in ("90", "99")
        if s.get(f"early_stopping_p{q}_us")
    ]
    return table + ("\n" + _wrapped(f"With 99 % confidence (early stopping): {', '.join(bounds)}") if bounds else "")


def rate_sentence(s: dict[str, Any]) -> str:
    """What FixedRate found, in a sentence."""
    misses, due = s["deadline_misses"], s["queries_due"]
    parts = [
        f"At {s['rate_requested']:g} queries per second, timed from when each was due: ",
        f"{s['rate_achieved']:,.0f}/s answered, {misses:,} of {due:,} missed the deadline of ",
        f"{human_time(s['deadline_us'])} ({misses / due:.2%}); ",
        f"calls began {human_time(s['start_delay_p50_us'])} late (median).",
    ]
    return "".join(parts)


def profile_table(profile: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: operators at one row and at many, matched by name, for onnxruntime may choose others there."""
    one, many = profile["totals"]
    by_name: dict[tuple[str, str, str], dict[int, float]] = {}
    for o in profile["operators"]:
        by_name.setdefault((o["graph"], o["op_type"], o["name"]), {})[o["rows"]] = o["us"]
    units = [time_unit([t["call_us"]]) for t in (one, many)]

    def shown(us: float | None, scale: float) -> str:
        return number(None if us is None else us / scale)

    rows = [
        [f"{graph} {op_type}", name[-22:]]
        + [
            cell
            for t, (_, scale) in zip((one, many), units)
            for cell in (shown(us.get(t["rows"]), scale), _share(us.get(t["rows"]), t["operators_us"]))
        ]
        for (graph, op_type, name), us in by_name.items()
    ]
    for key, label in (("operators_us", "all operators"), ("run_us", "run of onnxruntime"), ("call_us", "whole call")):
        totals = [shown(t[key], scale) for t, (_, scale) in zip((one, many), units)]
        rows.append([label, "" if key != "call_us" else "not profiled", totals[0], "", totals[1], ""])
    return ["operator", "name", f"{units[0][0]}, 1 row", "", f"{units[1][0]}, {many['rows']:,} rows", ""], rows


def _share(us: float | None, total: float) -> str:
    return "" if us is None or not total else f"{us / total:.0%}"


def _soak(soak: dict[str, Any]) -> str:
    shown = soak["windows"][:: max(1, len(soak["windows"]) // 10)]
    keys = ("p50_us", "p99_us", "max_us")
    units = [time_unit(w[key] for w in shown) for key in keys]
    rows = [
        [
            f"{w['at_s']:,.1f}",
            *(number(w[key] and w[key] / scale) for key, (_, scale) in zip(keys, units)),
            f"{w['rows_per_second']:,.0f}",
            *(number(w[key]) for key in ("celsius", "mhz", "memory_mb")),
        ]
        for w in shown
    ]
    head = [f"{name} {unit}" for name, (unit, _) in zip(("p50", "p99", "max"), units)]
    table = columns(["soak, s", *head, "rows/s", "°C", "MHz", "MB"], rows)
    drift = "" if soak["drift"] is None else f"\nmedian at the end / median at the start: {soak['drift']:.3f}"
    return table + drift


def _comparison(document: dict[str, Any]) -> str:
    return f"{compared_with(document)}\n{columns(*comparison_table(document))}"


def compared_with(document: dict[str, Any]) -> str:
    """What this bundle is compared with."""
    other = document["compared_with"]
    return f"Compared with {other['path']} ({other['variant']}, id {other['id'][:12]})"


def comparison_table(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows."""
    rows = []
    for c in document["comparison"]:
        unit, scale = time_unit([c["this_us"], c["other_us"]])
        rows.append(
            [
                f"{c['rows']:,}" if c.get("rows") else c["scenario"],
                f"{number(c['this_us'] / scale)} {unit}",
                f"{number(c['other_us'] / scale)} {unit}",
                f"{c['ratio']['estimate']:.3f}",
                f"{c['ratio']['low']:.3f} to {c['ratio']['high']:.3f}",
                c["verdict"].replace("_", " "),
            ]
        )
    return ["rows per call", "this", "other", "ratio", "99 % interval", "this is"], rows
