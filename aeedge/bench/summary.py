"""A scenario's latencies as numbers for the document, and findings on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench.statistics import early_stopping, histogram, least_count, percentiles
from aeedge.system.conditions import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bench.scenarios import Run

HEADLINES = {"SingleStream": 90.0, "MultiStream": 99.0}  # the percentile that MLPerf reports
_WINDOWS = 60
_TREND = 0.15


def summarise(name: str, runs: list[Run]) -> dict[str, Any]:
    """Percentiles in microseconds, rows per second, one median per load, a histogram and a time series."""
    latencies = np.concatenate([run.latencies for run in runs]) / 1e3
    rows, seconds = runs[0].rows, sum(run.seconds for run in runs)
    result: dict[str, Any] = {
        "queries": len(latencies),
        "rows_per_query": rows,
        "seconds": seconds,
        "rows_per_second": rows * len(latencies) / max(seconds, 1e-9),
        "mean_us": float(latencies.mean()),
        "min_us": float(latencies.min()),
        "max_us": float(latencies.max()),
    }
    result |= {f"{key}_us": value for key, value in percentiles(latencies).items()}
    if name in HEADLINES:
        estimate = early_stopping(latencies, HEADLINES[name])
        result[f"early_stopping_p{HEADLINES[name]:g}_us"] = estimate
    result["loads_us"] = [float(np.median(run.latencies)) / 1e3 for run in runs if len(run.latencies)]
    return result | {
        "histogram_us": histogram(latencies),
        "series": series(latencies, seconds if runs[0].due else None),
    }


def series(latencies: NDArray[np.float64], seconds: float | None = None) -> list[dict[str, float | None]]:
    """Median, 99th percentile and largest latency of equal parts of a run, and when each began.

    The percentile is None in parts of too few queries for it (see `least_count`).

    Args:
        latencies: in microseconds.
        seconds: length of a run with queries at a fixed rate; None where each began when the previous one was answered.
    """
    parts = np.array_split(latencies, min(_WINDOWS, len(latencies)))
    starts = np.cumsum([0.0] + [float(part.sum()) for part in parts[:-1]]) / 1e6
    if seconds is not None:
        starts = np.linspace(0, seconds, len(parts), endpoint=False)
    return [
        {
            "at_s": round(float(at), 4),
            "p50_us": float(np.median(part)),
            "p99_us": percentiles(part)["p99"],
            "max_us": float(part.max()),
        }
        for at, part in zip(starts, parts)
    ]


def too_few(name: str, count: int) -> Finding | None:
    """A finding if a scenario has too few queries for the percentile that it reports."""
    if name not in HEADLINES or count >= (least := least_count(HEADLINES[name])):
        return None
    text = f"{count} queries are too few for the p{HEADLINES[name]:g} of {name}, which needs {least}; raise --seconds"
    return Finding("invalid", "samples", text)


def trend(name: str, latencies: NDArray[np.int64]) -> Finding | None:
    """A finding if the run became slower or faster."""
    if name == "FixedRate" or len(latencies) < 30:
        return None
    thirds = np.array_split(latencies, 3)
    change = float(np.median(thirds[2])) / max(float(np.median(thirds[0])), 1.0) - 1
    if abs(change) <= _TREND:
        return None
    text = f"the last third of the run was {abs(change):.0%} {'slower' if change > 0 else 'faster'} than the first"
    return Finding("warning", "trend", text)
