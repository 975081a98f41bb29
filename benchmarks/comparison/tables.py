"""Markdown of a run: all tables for results/."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from pathlib import Path

from comparison.networks import NETWORKS
from comparison.records import Line, Records, write_text

PEER = "onnxruntime"
_THREADS = {"one": "one thread", "all": "all threads"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers aligned right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def microseconds(seconds: float) -> str:
    """Three digits or more."""
    value = seconds * 1e6
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def document(records: Records) -> str:
    """All tables of a run."""
    parts = ["# Runtime comparison\n", _machine(records), headline(records)]
    for workload in records.names("workload"):
        parts.append(f"## {workload}: {NETWORKS[workload].title}\n")
        parts += [_speed(records, workload, threads) for threads in _THREADS]
        parts.append(f"![time relative to onnxruntime]({{name}}-{workload}.svg)\n")
    parts += ["## Quality\n", _quality(records), "## Roofline\n", _limits(records)]
    parts += ["## Not measured\n", _out(records)] if records.of("out") else []
    return "\n".join(parts)


def _machine(records: Records) -> str:
    machine, settings = records.of("machine")[0], records.of("settings")[0]
    versions = ", ".join(f"{name} {number or 'not installed'}" for name, number in machine["versions"].items())
    vector = ", ".join(machine["vector"]) or "no known vector instructions"
    kind = "A quick run, an indication only. " if settings["quick"] else ""
    return (
        f"{kind}{machine['processor']}, {machine['cpus']} CPUs ({vector}), {machine['system']}, Python "
        f"{machine['python']}; {versions}. Written by `benchmarks/runtimes.py`; method and caveats: "
        "`benchmarks/README.md`.\n"
    )


def _speed(records: Records, workload: str, threads: str) -> str:
    """Microseconds per call by contender and batch; the fastest (not PCA) in bold, disturbed cells marked."""
    cells = records.of("speed", workload=workload, threads=threads)
    batches = list(dict.fromkeys(cell["batch"] for cell in cells))
    networks = [cell for cell in cells if not _another_model(cell["contender"])]
    best = {batch: min((c["seconds"] for c in networks if c["batch"] == batch), default=None) for batch in batches}
    rows = []
    for contender in dict.fromkeys(cell["contender"] for cell in cells):
        row = [contender]
        for batch in batches:
            found = [cell for cell in cells if cell["batch"] == batch and cell["contender"] == contender]
            row.append(_cell(found[0], best[batch]) if found else "")
        rows.append(row)
    text = table([f"µs per call, {_THREADS[threads]}", *(_samples(batch) for batch in batches)], rows)
    reasons = sorted({cell["disturbed"] for cell in cells if cell["disturbed"]})
    return text + (f"\n~ disturbed: {reasons[-1]}, and similar.\n" if reasons else "")


def _samples(count: int) -> str:
    return f"{count:,} sample" + "s" * (count > 1)


def _cell(cell: Line, best: float | None) -> str:
    text = microseconds(cell["seconds"])
    text = f"**{text}**" if cell["seconds"] == best else text
    return f"~{text}" if cell["disturbed"] else text


def _quality(records: Records) -> str:
    rows = [
        [f"{line['workload']}: {line['contender']}", _error(line["error"]), f"{line['mse']:.4g}", f"{line['auc']:.4f}"]
        for line in records.of("quality")
    ]
    head = ["contender", "largest error of a latent", "reconstruction error", "AUC of anomalous samples"]
    return table(head, rows) + (
        "\nLatents against torch, relative to the largest latent. Reconstruction error: mean squared, of test samples, "
        "decoded by torch in fp32; PCA, which is another model, by its inverse.\n"
    )


def _error(error: float) -> str:
    return f"{error:.0e}" if error < 1e-3 else f"{error:.1%}"


def _limits(records: Records) -> str:
    peaks = [
        [
            f"{line['threads']} ({line['cpus']} CPU{'s' * (line['cpus'] > 1)})",
            *(f"{line[key] / 1e9:,.1f}" for key in ("flops", "read", "copy")),
        ]
        for line in records.of("peak")
    ]
    rows = [
        [
            f"{line['workload']}, {_THREADS[line['threads']]}, {line['batch']:,} samples: {line['contender']}",
            f"{line['share']:.0%}",
            line["limit"],
        ]
        for line in records.of("roofline")
    ]
    disturbed = "".join(
        f"\n~ too low, disturbed with {line['threads']}: {line['disturbed']}.\n"
        for line in records.of("peak")
        if line.get("disturbed")
    )
    return (
        table(["threads", "sgemm, GFLOP/s", "memory read, GB/s", "copied, GB/s"], peaks)
        + disturbed
        + "\n100 % is the least time for the float32 operations at the speed of sgemm, or for reading the samples from "
        "memory. int8 arithmetic exceeds it, and so do samples that are still in a cache.\n\n"
        + table(["aeedge, and the fastest other with the same outputs", "reached", "limited by"], rows)
    )


def _out(records: Records) -> str:
    found = {(line["contender"], line["reason"]): None for line in records.of("out")}
    return "\n".join(f"- {contender}: {reason}" for contender, reason in found) + "\n"


def headline(records: Records) -> str:
    """The short table: speed relative to bare onnxruntime, outputs, cold start, memory and size."""
    columns = [("one", 1), ("one", 64), ("all", 1024), ("all", 16384)]
    columns = [column for column in columns if records.of("speed", threads=column[0], batch=column[1])]
    head = ["speed relative to onnxruntime", *(f"{_samples(batch)}, {_THREADS[threads]}" for threads, batch in columns)]
    head += ["same outputs", "cold start, ms", "memory, MB", "installed, MB"]
    rows = []
    all_workloads = len(records.names("workload"))
    contenders = dict.fromkeys(line["contender"] for line in records.of("speed", threads="all"))
    for contender in contenders | dict.fromkeys(records.names("contender")):
        ratios = [_ratios(records, contender, threads, batch) for threads, batch in columns]
        few = "" if max(map(len, ratios)) == all_workloads else f" ({max(map(len, ratios))} networks)"
        rows.append([contender + few, *map(_mean, ratios), _same(records, contender), *_costs(records, contender)])
    networks = ", ".join(records.names("workload"))
    started = next((line["workload"] for line in records.of("start")), "")
    note = f"\nGeometric means over the networks {networks}; cold start and memory of {started}.\n" if started else ""
    return table(head, rows) + note


def _ratios(records: Records, contender: str, threads: str, batch: int) -> list[float]:
    """Speed relative to bare onnxruntime, for each workload."""
    cells = records.of("speed", contender=contender, threads=threads, batch=batch)
    peers = {cell["workload"]: cell for cell in records.of("speed", contender=PEER, threads=threads, batch=batch)}
    return [peers[c["workload"]]["seconds"] / c["seconds"] for c in cells if c["workload"] in peers]


def _mean(ratios: Sequence[float]) -> str:
    return f"{exp(sum(map(log, ratios)) / len(ratios)):.2f}" if ratios else ""


def _same(records: Records, contender: str) -> str:
    lines = records.of("check", contender=contender)
    if _another_model(contender):
        return "another model"
    worst = max((line["error"] for line in lines), default=0.0)
    return "yes" if worst < 1e-3 else f"within {worst:.0%}"


def _another_model(contender: str) -> bool:
    return contender.endswith("PCA")


def _costs(records: Records, contender: str) -> list[str]:
    start = next((line for line in records.of("start", contender=contender) if "seconds" in line), None)
    size = next((line for line in records.of("size", contender=contender) if "bytes" in line), None)
    first = [f"{start['seconds'] * 1e3:,.0f}", f"{start['peak_bytes'] / 1e6:,.0f}"] if start else ["", ""]
    return [*first, f"{size['bytes'] / 1e6:,.0f}" if size else ""]


def write(records: Records, path: Path) -> None:
    """Write all tables to one file; the pictures are expected beside it."""
    write_text(path, document(records).replace("{name}", path.stem))
