"""Does `aeedge bench` agree with MLPerf's LoadGen? The same bundle, SingleStream and Offline, interleaved.

LoadGen calls a Python function for every query and expects one response object per sample. That overhead is measured
with a model that does nothing, on both sides, and subtracted: what remains is the time of `encode`. In Offline a sample
of LoadGen is a block of 64 rows, so that 384 response objects do not take longer than 24 576 rows; each is issued once,
and the rows are encoded in memory order, which Offline allows.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np
from common import fingerprint, publish
from comparison.networks import NETWORKS, encoder
from numpy.typing import NDArray

import aeedge
from aeedge.bench.scenarios import OFFLINE_ROWS, back_to_back, offline
from aeedge.bench.statistics import early_stopping
from aeedge.system.clock import Clock
from aeedge_export import export_bundle

ROUNDS, SECONDS = 5, 2.0
SINGLES = 1024  # rows that are used in turn as the single sample, on both sides
BLOCKS = OFFLINE_ROWS // 64
Encode = Callable[[NDArray[Any]], object]


def by_loadgen(encode: Encode, rows: NDArray[Any], single: bool, folder: str) -> str:
    """LoadGen's summary of a run."""

    def issue(queries: list[Any]) -> None:
        encode(rows[queries[0].index] if single else rows)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0) for query in queries])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream if single else loadgen.TestScenario.Offline
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = 1024 if single else BLOCKS
    settings.performance_issue_unique = not single
    settings.min_duration_ms = int(SECONDS * 1000) if single else 0
    settings.single_stream_expected_latency_ns = 10_000
    settings.offline_expected_qps = 1
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = folder, False
    log = loadgen.LogSettings()
    log.log_output, log.enable_trace = output, False
    system = loadgen.ConstructSUT(issue, lambda: None)
    samples = SINGLES if single else BLOCKS
    library = loadgen.ConstructQSL(samples, samples, lambda samples: None, lambda samples: None)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, log, "")
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    return (Path(folder) / "mlperf_log_summary.txt").read_text()


def number(summary: str, label: str) -> float:
    found = re.search(re.escape(label) + r"\s*[:=]\s*([0-9.e+]+)", summary)
    if found is None:
        raise SystemExit(f"LoadGen's summary has no {label!r}:\n{summary}")
    return float(found[1])


def measured_by_loadgen(encode: Encode, rows: NDArray[Any], folder: str) -> dict[str, float]:
    """Microseconds by LoadGen: median and p90 estimate of one sample, all rows in one query."""
    single = by_loadgen(encode, rows, True, folder)
    many = by_loadgen(encode, rows, False, folder)
    return {
        "single p50": number(single, "50.00 percentile latency (ns)") / 1e3,
        "single p90, early stopping": number(single, "Early stopping 90.0th percentile estimate") / 1e3,
        "24 576 rows": 1e6 * BLOCKS / number(many, "Samples per second"),
    }


def measured_by_aeedge(encode: Encode, rows: NDArray[Any]) -> dict[str, float]:
    """The same by the code of `aeedge bench`."""
    single = back_to_back(encode, list(rows[:SINGLES]), 1, SECONDS, Clock()).latencies / 1e3
    many = offline(encode, rows, 0.2, Clock()).latencies[:1] / 1e3  # one query, as LoadGen issues it
    estimate = early_stopping(single, 90)
    assert estimate is not None
    return {
        "single p50": float(np.median(single)),
        "single p90, early stopping": estimate,
        "24 576 rows": float(np.median(many)),
    }


def main() -> None:
    rows = np.random.default_rng(0).random((OFFLINE_ROWS, 784), dtype=np.float32)
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep.aeedge"
        export_bundle(encoder=encoder(NETWORKS["deep"]), path=path, example=rows[:256])
        model = aeedge.load(path)
        model.encode(rows)
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "LoadGen": lambda: measured_by_loadgen(model.encode, rows, folder),
            "LoadGen, no model": lambda: measured_by_loadgen(lambda x: None, rows, folder),
            "aeedge bench": lambda: measured_by_aeedge(model.encode, rows),
            "aeedge bench, no model": lambda: measured_by_aeedge(lambda x: None, rows),
        }
        for _ in range(ROUNDS):
            for name, run in runs.items():
                for what, us in run().items():
                    found.setdefault(what, {}).setdefault(name, []).append(us)
    table = []
    for what, by_name in found.items():
        us = {name: statistics.median(values) for name, values in by_name.items()}
        reference, own = us["LoadGen"] - us["LoadGen, no model"], us["aeedge bench"] - us["aeedge bench, no model"]
        table.append([what, *(f"{value:,.1f}" for value in us.values()), f"{own / reference:.2f}"])
    head = ["µs per query", *next(iter(found.values())), "encode: bench / LoadGen"]
    publish("loadgen_reference", {"machine": fingerprint("mlcommons-loadgen"), "microseconds": found}, head, table)


if __name__ == "__main__":
    main()
