"""What the benchmarks share: taking turns, the machine's fingerprint, and results as JSON."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aeedge.bench.fingerprint import fingerprint
from aeedge.table import columns

__all__ = ["fingerprint", "interleaved", "publish"]

RESULTS = Path(__file__).parent / "results"


def interleaved(calls: dict[str, Callable[[], object]], seconds: float = 0.2, rounds: int = 15) -> dict[str, float]:
    """Median seconds a call; the contenders take turns, so that a disturbance hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            count, began = 0, time.perf_counter()
            while (spent := time.perf_counter() - began) < seconds:
                call()
                count += 1
            found[name].append(spent / count)
    return {name: statistics.median(values) for name, values in found.items()}


def publish(name: str, result: dict[str, Any], head: list[str], rows: list[list[str]]) -> None:
    """Print a table, and keep table and numbers in results/."""
    table = columns(head, rows)
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result | {"table": table.splitlines()}, indent=1) + "\n")
    print(f"\nkept in benchmarks/results/{name}.json")
