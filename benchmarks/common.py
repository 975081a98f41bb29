"""Shared by the benchmarks: interleaved timing, the machine's fingerprint, and results as JSON."""

from __future__ import annotations

import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from comparison.timing import ClockError, timed
from numpy.typing import NDArray

from aeedge.system.fingerprint import fingerprint
from aeedge.table import columns

__all__ = [
    "apart",
    "fingerprint",
    "interleaved",
    "kept_as",
    "progress",
    "publish",
    "publish_all",
    "raw",
    "speedups",
    "turns",
]

RESULTS = Path(__file__).parent / "results"
SIGNAL = (128.0, 32.0)  # mean and scale of signals as bytes
PAUSE = 0.06  # seconds; onnxruntime's pool spins for about 45 ms after its last call
WARM_UP = 0.02  # seconds; until the pool's threads are spread over the CPUs again
_TRIES = 5
Call = Callable[[], object]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
T = TypeVar("T")


def interleaved(calls: dict[str, Call], seconds: float = 0.2, rounds: int = 15) -> dict[str, float]:
    """Median seconds per call; the contenders are interleaved, so that a disturbance affects all alike."""
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


def turns(
    calls: Mapping[str, Call],
    seconds: float,
    rounds: int,
    *,
    pause: float = PAUSE,
    warm_up: float = WARM_UP,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Seconds per call by contender, one value per round; every round runs each contender once, in shuffled order.

    A turn begins with a pause, until the threads of the previous contender have stopped spinning: while they spin, the
    next contender's threads share the remaining CPUs, and stay there for a while. Then come calls that are not timed,
    until its own threads are awake. A turn in which the two clocks disagree is repeated.

    Raises:
        ClockError: the clocks disagree in every repetition.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    order, dice = list(calls), random.Random(seed)
    for _ in range(rounds):
        dice.shuffle(order)
        for name in order:
            found[name].append(_turn(calls[name], seconds, pause, warm_up))
    return found


def _turn(call: Call, seconds: float, pause: float, warm_up: float, tries: int = _TRIES) -> float:
    time.sleep(pause)
    end = time.perf_counter() + warm_up
    call()
    while time.perf_counter() < end:
        call()
    try:
        return timed(call, seconds).per_call
    except ClockError:
        if tries == 1:
            raise
        return _turn(call, seconds, pause, warm_up, tries - 1)


def speedups(found: Mapping[str, Sequence[float]], name: str, peer: str) -> list[float]:
    """Speedup over the peer, round by round, so that a disturbance of a whole round cancels out."""
    return [theirs / ours for theirs, ours in zip(found[peer], found[name])]


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a child process, so that its threads, imports and memory do not affect measurements here."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def progress(step: str) -> None:
    """What a benchmark does now, for whoever waits for it."""
    print(step, file=sys.stderr, flush=True)


def raw(rows: NDArray[Any], scaler: tuple[float, float]) -> NDArray[np.uint8]:
    """Rows as a sensor delivers them: bytes, from which the scaler (mean, scale) recovers the values."""
    return np.clip(np.rint(rows * scaler[1] + scaler[0]), 0, 255).astype(np.uint8)


def kept_as(name: str, quick: bool, parts: Collection[str] = ()) -> str:
    """Name of a result file: a quick or partial run never gets the name of a full one."""
    return f"{name}-quick" if quick else "-".join([name, *parts])


def publish(name: str, result: dict[str, Any], head: list[str], rows: list[list[str]]) -> None:
    """Print a table, and write table and numbers to results/."""
    publish_all(name, result, {"": (head, rows)})


def publish_all(name: str, result: dict[str, Any], tables: Mapping[str, Table]) -> None:
    """Print tables, each under its title, and write tables and numbers to results/."""
    blocks = [f"{title}\n\n{columns(*table)}" if title else columns(*table) for title, table in tables.items()]
    text = "\n\n".join(blocks)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result | {"table": text.splitlines()}, indent=1) + "\n")
    print(f"\nwritten to benchmarks/results/{name}.json")
