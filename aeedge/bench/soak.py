"""A long run of single samples, in bounded memory: does the latency drift?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench import scenarios
from aeedge.bench.statistics import percentiles
from aeedge.system import conditions
from aeedge.system.clock import Clock
from aeedge.system.limits import resident_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bench.scenarios import Call

_WINDOWS = 60
_SHORTEST, _LONGEST = 0.5, 30.0  # seconds of a window; the latencies of one window are in memory


def soak(
    call: Call, queries: Sequence[NDArray[Any]], seconds: float, clock: Clock, progress: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Measure window after window: latency, rows per second, temperature, frequency, memory.

    Returns:
        The document, in which `drift` is the median latency of the last fifth of the windows divided by that of the
        first fifth; and whether Ctrl-C ended the run.
    """
    length = min(max(seconds / _WINDOWS, _SHORTEST), _LONGEST)
    windows: list[dict[str, Any]] = []
    begin, interrupted = clock.now(), False
    while not interrupted and (spent := (clock.now() - begin) / 1e9) < seconds:
        run = scenarios.back_to_back(call, queries, 1, min(length, seconds - spent), clock)
        interrupted = run.interrupted
        if len(run.latencies):
            windows.append({"at_s": round(spent, 3)} | _window(run))
            progress(f"soak {spent:.0f} of {seconds:.0f} s, median {windows[-1]['p50_us']:.1f} µs")
    fifth = max(1, len(windows) // 5)
    ends = [float(np.median([w["p50_us"] for w in part])) for part in (windows[:fifth], windows[-fifth:]) if part]
    drift = ends[1] / ends[0] if len(windows) > 4 else None
    return {"seconds": (clock.now() - begin) / 1e9, "drift": drift, "windows": windows}, interrupted


def _window(run: scenarios.Run) -> dict[str, Any]:
    found = percentiles(run.latencies / 1e3)
    memory = resident_bytes()
    return {
        "p50_us": float(np.median(run.latencies)) / 1e3,
        "p99_us": found["p99"],
        "max_us": float(run.latencies.max()) / 1e3,
        "rows_per_second": len(run.latencies) / max(run.seconds, 1e-9),
        "celsius": conditions.celsius(),
        "mhz": conditions.frequency(),
        "memory_mb": memory and memory / 1e6,
    }
