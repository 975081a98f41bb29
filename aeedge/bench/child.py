"""Measured in a fresh process: import, load, first call, warm-up, steady state, memory, CPU time while idle.

Run by `phases.py`; the times before this module is imported are measured there.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench.statistics import slope
from aeedge.loading import load
from aeedge.runtime.session import warm_up
from aeedge.system.limits import read_text, resident_bytes
from aeedge.system.timing import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray


_STEADY_CALLS = 200
_KEPT = 2**18  # latencies that are kept: the first ones
_PARTS = 20  # of the steady state; memory is read after each
_WARM = 1.25  # warm once calls take at most this multiple of the steady median
_BULK_VALUES = 2**20


def main(moments: dict[str, int], arguments: list[str]) -> None:
    """Measure and print one line of JSON. `moments`: when Python, numpy and aeedge were ready, in nanoseconds."""
    path, variant, threads, method, seconds = arguments
    sizes = {"imported": resident_bytes()}
    begin = time.perf_counter_ns()
    model = load(path, variant=variant, threads=int(threads))
    loaded = time.perf_counter_ns()
    sizes["loaded"] = resident_bytes()
    latent = method == "decode"
    sample = np.zeros(model.latent_shape if latent else model.input.shape, "f4" if latent else model.input.dtype)
    many = np.zeros((max(2, _BULK_VALUES // sample.size), *sample.shape), sample.dtype)
    if model.input.missing is not None:  # zero may be the code of a missing value
        sample += np.float32(1 / 3)
        many += np.float32(1 / 3)
    call = getattr(model, method)
    called = time.perf_counter_ns()
    call(sample)
    first = time.perf_counter_ns()
    result: dict[str, Any] = {
        "start_ms": (moments["python"] - moments["spawned"]) / 1e6,
        "import_numpy_ms": (moments["numpy"] - moments["python"]) / 1e6,
        "import_aeedge_ms": (moments["aeedge"] - moments["numpy"]) / 1e6,
        "load_ms": (loaded - begin) / 1e6,
        "first_call_ms": (first - called) / 1e6,
        "start_to_first_result_ms": (time.monotonic_ns() - moments["spawned"]) / 1e6,
    }
    call(many)  # starts the threads
    peak = _peak()  # before this program allocates more
    steady, sizes["steady"] = _steady(call, sample, float(seconds))
    result |= steady
    result["idle_cpu_percent"] = _idle()
    sizes["peak"] = peak and max(peak, *(size or 0 for size in sizes.values()))  # memory may also grow when steady
    result["memory_mb"] = {name: size and size / 1e6 for name, size in sizes.items()}
    model.close()
    print(json.dumps(result))


def added_memory(arguments: list[str]) -> None:
    """Print how many bytes of resident memory a bundle adds to a process in which onnxruntime ran another graph.

    `arguments`: path, variant, threads or "auto", method, and dtype and shape (JSON) of the rows of a call. The rows
    are there before; what the call returns is released.
    """
    path, variant, threads, method, dtype, shape = arguments
    rows = np.full(json.loads(shape), 1 / 3 if dtype == "float32" else 1, dtype)  # zero may be a missing value's code
    warm_up()
    before = resident_bytes()
    with load(path, variant=variant, threads=threads if threads == "auto" else int(threads)) as model:
        getattr(model, method)(rows)
        after = resident_bytes()
    print(json.dumps({"bytes": None if before is None or after is None else max(0, after - before)}))


def _steady(call: Any, sample: Any, seconds: float) -> tuple[dict[str, Any], int | None]:
    """Single samples for a while: the median, how many calls it took to get near it, the growth of memory.

    Also the memory at the end, without what is kept here.
    """
    before = resident_bytes()
    kept = np.full(_KEPT, -1)  # allocated and touched before, so that what grows is the model's
    own = (resident_bytes() or 0) - (before or 0)
    grown: list[tuple[int, int]] = []
    count, part_ns = 0, int(seconds * 1e9 / _PARTS)
    for part in range(_PARTS):
        durations = repeat(call, [sample], least_ns=part_ns, least_calls=_STEADY_CALLS // _PARTS)
        kept[count : count + len(durations)] = durations[: max(0, _KEPT - count)]
        count += len(durations)
        del durations
        size = resident_bytes()
        if size is not None and part >= _PARTS // 4:
            grown.append((count, size))
    latencies = kept[:count]
    steady = float(np.median(latencies))
    warm = _warm_up(latencies, steady)
    found = {
        "warm_up_calls": warm,
        "warm_up_ms": float(latencies[:warm].sum()) / 1e6,
        "steady_us": steady / 1e3,
        "steady_calls": count,
        "memory_slope_bytes_per_1000_calls": slope(*zip(*grown)) * 1000 if len(grown) > 2 else None,
    }
    return found, grown[-1][1] - own if grown else None


def _warm_up(latencies: NDArray[np.int64], steady: float) -> int:
    """Calls until five in a row are, in the median, near the steady state."""
    near = np.median(np.lib.stride_tricks.sliding_window_view(latencies[:10_000], 5), axis=1) <= _WARM * steady
    return int(np.argmax(near)) + 1 if near.any() else len(near)


def _idle(seconds: float = 1.0) -> float:
    """Percent of one core that the process uses while it is idle."""
    time.sleep(0.05)
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)


def _peak() -> int | None:
    """Bytes that this program has occupied at most.

    From /proc where there is one: Linux begins the maximum that getrusage reports with the memory of the process that
    started this one.
    """
    for line in read_text("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
