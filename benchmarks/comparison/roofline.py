"""Roofline: the least time that a workload's operations and bytes need on this machine, and the share reached."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from comparison.networks import NETWORKS, cost
from comparison.processes import cpus, environment
from comparison.watch import Watch

ROWS = (1024, 16384)
_BYTES = {"float32": 4, "uint8": 1, "int8": 1, "int16": 2}


def machine(threads: str, log: Callable[[str], None], tries: int = 3) -> dict[str, Any]:
    """Peak float32 operations and bytes per second, read and copied, measured in a child process.

    The best of up to `tries` measurements; "disturbed" has the reason if other load disturbed them all.
    """
    chosen = cpus(threads)
    command = [sys.executable, "-m", "comparison.probe", json.dumps({"threads": len(chosen), "cpus": chosen})]
    best: dict[str, Any] = {}
    for _ in range(tries):
        watch = Watch(cpus("all"))
        done = subprocess.run(command, capture_output=True, text=True, env=environment(len(chosen)), check=True)
        found: dict[str, float] = json.loads(done.stdout)
        load = watch.stop(found.pop("cpu"))
        best |= {key: max(value, best.get(key, 0.0)) for key, value in found.items()}
        best["disturbed"] = load.describe() if load.disturbed else None
        if not load.disturbed:
            break
        log(f"  disturbed: {load.describe()}")
    return best


def least_seconds(workload: str, rows: int, loads: str, peak: dict[str, Any]) -> tuple[float, str]:
    """The shortest time in which this machine can encode `rows` samples in float32, and what limits it.

    Bytes that any implementation moves: samples in, latents out, weights once.
    """
    found = cost(NETWORKS[workload])
    moved = rows * (found.values_in * _BYTES[loads] + 4 * found.values_out) + 4 * found.weights
    by_work, by_memory = rows * found.flops / peak["flops"], moved / peak["read"]
    return max(by_work, by_memory), "arithmetic" if by_work >= by_memory else "memory"


def attained(cell: dict[str, Any], loads: str, peak: dict[str, Any]) -> dict[str, Any]:
    """The share of the limit that a measured cell reaches; int8 arithmetic may exceed 1."""
    least, limit = least_seconds(cell["workload"], cell["batch"], loads, peak)
    return {key: cell[key] for key in ("workload", "threads", "contender", "batch")} | {
        "share": least / cell["seconds"],
        "limit": limit,
    }
