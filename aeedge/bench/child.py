"""What a fresh process does and reports: import, load, first call, warm-up, steady state, memory, idleness.

Run by `phases.py`; the times up to here are taken before this module is imported.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench.statistics import slope
from aeedge.loading import load
from aeedge.system.limits import resident_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.model import Model

_STEADY_CALLS = 200
_KEPT = 2**18  # latencies that are kept
_LOOKS = 20  # at the memory
_WARM = 1.25  # warmed up once calls take at most this multiple of the steady median
_BULK_VALUES = 2**20


def main(moments: dict[str, int], arguments: list[str]) -> None:
    """Measure and print one line of JSON. `moments`: nanoseconds at which numpy and aeedge were there."""
    path, variant, threads, what, seconds = arguments
    sizes = {"imported": resident_bytes()}
    begin = time.perf_counter_ns()
    model = load(path, variant=variant, threads=int(threads))
    loaded = time.perf_counter_ns()
    sizes["loaded"] = resident_bytes()
    sample = np.zeros((model.latent_size,) if what == "decode" else model.input.shape, _dtype(model, what))
    call = getattr(model, what)
    asked = time.perf_counter_ns()
    call(sample)
    first = time.perf_counter_ns()
    result: dict[str, Any] = {
        "start_ms": (moments["python"] - moments["spawned"]) / 1e6,
        "import_numpy_ms": (moments["numpy"] - moments["python"]) / 1e6,
        "import_aeedge_ms": (moments["aeedge"] - moments["numpy"]) / 1e6,
        "load_ms": (loaded - begin) / 1e6,
        "first_call_ms": (first - asked) / 1e6,
        "start_to_first_result_ms": (time.monotonic_ns() - moments["spawned"]) / 1e6,
    }
    call(np.zeros((max(2, _BULK_VALUES // sample.size), *sample.shape), sample.dtype))  # starts the threads
    peak = _peak()  # before this program computes anything of its own
    result |= _steady(call, sample, float(seconds))
    sizes["steady"] = resident_bytes()
    result["idle_cpu_percent"] = _idle()
    result["memory_mb"] = {name: size and size / 1e6 for name, size in sizes.items()} | {"peak": peak}
    model.close()
    print(json.dumps(result))


def _steady(call: Any, sample: Any, seconds: float) -> dict[str, Any]:
    """Single samples for a while: the median, how many calls it took to get near it, the growth of memory."""
    took = array("q", bytes(8 * _KEPT))  # allocated before, so that what grows is the model's
    grown: list[tuple[int, int | None]] = []
    count, begin = 0, time.perf_counter_ns()
    last = look = begin
    while last - begin < seconds * 1e9 or count < _STEADY_CALLS:
        call(sample)
        now = time.perf_counter_ns()
        took[count % _KEPT] = now - last
        last, count = now, count + 1
        if now >= look:
            grown.append((count, resident_bytes()))
            look, last = now + int(seconds * 1e9 / _LOOKS), time.perf_counter_ns()
    latencies = np.frombuffer(took, np.int64)[: min(count, _KEPT)]
    steady = float(np.median(latencies))
    warm = _warm_up(latencies, steady) if count <= _KEPT else 0
    known = [(calls, size) for calls, size in grown[_LOOKS // 4 :] if size is not None]
    return {
        "warm_up_calls": warm,
        "warm_up_ms": float(latencies[:warm].sum()) / 1e6,
        "steady_us": steady / 1e3,
        "steady_calls": count,
        "memory_slope_bytes_per_1000_calls": slope(*zip(*known)) * 1000 if len(known) > 2 else None,
    }


def _warm_up(latencies: NDArray[np.int64], steady: float) -> int:
    """Calls until five in a row are, in the median, near the steady state."""
    near = np.median(np.lib.stride_tricks.sliding_window_view(latencies[:10_000], 5), axis=1) <= _WARM * steady
    return int(np.argmax(near)) + 1 if near.any() else len(near)


def _idle(seconds: float = 1.0) -> float:
    """Percent of one core that the process uses while nobody calls it."""
    time.sleep(0.05)
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)


def _dtype(model: Model, what: str) -> str:
    return "float32" if what == "decode" else model.input.dtype


def _peak() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
