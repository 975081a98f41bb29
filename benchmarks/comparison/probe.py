"""The machine's peak float32 operations and memory bandwidth, with a given number of threads.

python -m comparison.probe '{"threads": 2, "cpus": [0, 1]}'
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_SIDE = 2048
_BYTES = 2**28  # larger than any cache


def best(call: Callable[[], object], seconds: float = 1.0) -> float:
    """Seconds of the fastest call."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def sgemm() -> float:
    """Operations per second of a large float32 matrix product; the BLAS library has its own threads."""
    a = np.random.default_rng(0).random((_SIDE, _SIDE), dtype=np.float32)
    out = np.empty_like(a)
    return 2 * _SIDE**3 / best(lambda: np.matmul(a, a, out=out))


def bandwidth(threads: int) -> dict[str, float]:
    """Bytes per second when reading, and when copying (each byte counts as read and as written)."""
    source, target = np.ones(_BYTES // 4, np.float32), np.zeros(_BYTES // 4, np.float32)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads)))
    with ThreadPoolExecutor(threads) as pool:
        read = best(lambda: list(pool.map(lambda part: part[0].max(), parts)))
        copy = best(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return {"read": _BYTES / read, "copy": 2 * _BYTES / copy}


def main() -> None:
    """Measure and print as JSON."""
    order = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cpus"])
    found = {"flops": sgemm(), **bandwidth(order["threads"])}
    print(json.dumps(found | {"cpu": time.process_time()}))


if __name__ == "__main__":
    main()
