"""Does a model leak memory, use CPU when idle, or give other results under load? Each run in its own process.

    memory     200 000 calls of encode, denoise and score with random numbers of rows, most of them few (log-uniform
               from 1 to 4 096, one in fifty uniform). Resident memory is sampled throughout; after a tenth of the
               calls a line is fitted to it, and "growth" is that line over the remaining calls
    idle       CPU time of the process in the seconds after its last call, for bulk and for single rows
    threads    eight threads call one model at once with random methods and numbers of rows; every result is compared
               with the result of a single thread

    python benchmarks/endurance.py [--part memory ...] [--calls N] [--seconds S] [--quick]

Results that differ end the run with an error: any bit of int8, and fp32 beyond the bundle's tolerance.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Table, apart, fingerprint, kept_as, publish_all
from comparison import workloads
from numpy.typing import NDArray

import aeedge
from aeedge.system.limits import resident_bytes
from aeedge.verification import deviation

CALLS, SECONDS, IDLE_SECONDS = 200_000, 60.0, 5.0
QUICK = (2_000, 2.0, 1.0)
MEMORY_NET, BUSY_NET = "seed", "deep"  # the first is small, so that many calls take minutes
MOST_ROWS, BULK_ROWS = 4096, 16_384
UNIFORM = 1 / 50  # of the calls
WARM_UP = 0.1  # of the calls
LOOKS = 2000
GROWTH_MB, IDLE_PERCENT = 1.0, 1.0  # limits
CALLERS, POOL = 8, 30
GOLDEN = {
    "encode": "latent",
    "denoise": "reconstruction",
    "score": "score",
}  # the output that a method's tolerance is for
Row = dict[str, Any]


def test_rows(folder: Path, count: int) -> NDArray[np.float32]:
    with np.load(folder / "rows.npz") as stored:
        test: NDArray[np.float32] = stored["test"]
    return np.resize(test, (count, *test.shape[1:]))


def sizes(calls: int, seed: int) -> NDArray[np.int64]:
    """Random numbers of rows: log-uniform, a few of them uniform."""
    dice = np.random.default_rng(seed)
    found = np.exp(dice.uniform(0, np.log(MOST_ROWS + 1), calls)).astype(np.int64)
    uniform = dice.random(calls) < UNIFORM
    found[uniform] = dice.integers(1, MOST_ROWS, uniform.sum(), endpoint=True)
    return np.clip(found, 1, MOST_ROWS)


def memory(folder: Path, what: str, calls: int) -> Row:
    """Call a method very often, and sample the memory between calls."""
    rows, planned = test_rows(folder, MOST_ROWS), sizes(calls, seed=0)
    every = max(1, calls // LOOKS)
    looks = np.ones((calls // every, 2))  # allocated before, so that only the model's memory can grow
    with aeedge.load(folder / "float32.aeedge", variant="fp32") as model:
        call, began = getattr(model, what), time.perf_counter()
        for i in range(calls):
            call(rows[: int(planned[i])])
            if i % every == every - 1:
                looks[i // every] = i, resident_bytes() or np.nan
            if i % (calls // 5) == calls // 5 - 1:
                print(f"memory: {what}, {i + 1:,} calls, {time.perf_counter() - began:.0f} s", flush=True)
    row = {"what": what, "calls": calls, "rows": int(planned.sum()), "seconds": time.perf_counter() - began}
    return row | grown(looks[looks[:, 0] >= WARM_UP * calls])


def grown(looks: NDArray[np.float64]) -> Row:
    """Growth of memory samples (calls so far, bytes): by a fitted line, last minus first, and the range."""
    at, size = looks[:, 0], looks[:, 1] / 1e6
    if not np.isfinite(size).all():
        return {"growth_mb": None, "last_minus_first_mb": None, "mb": None}  # not available on this system
    slope = np.polyfit(at - at[0], size, 1)[0]
    kept = {"growth_mb": float(slope * (at[-1] - at[0])), "last_minus_first_mb": float(size[-1] - size[0])}
    return kept | {"mb": [float(size.min()), float(size.max())]}


def idle(folder: Path, what: str, seconds: float) -> Row:
    """Percent of one core that the process uses after the last call."""
    count, times = (BULK_ROWS, 10) if what == "bulk" else (1, 1000)
    rows = test_rows(folder, count)
    with aeedge.load(folder / "float32.aeedge", variant="fp32") as model:
        for _ in range(times):
            model.encode(rows)
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(seconds)
        used = 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)
    return {"what": what, "rows": count, "calls": times, "seconds": seconds, "percent": used, "threads": model.threads}


class Known(NamedTuple):
    """A call, and its result on a single thread."""

    method: str
    rows: NDArray[np.float32]
    result: NDArray[np.float32]


class Tally(NamedTuple):
    """Counts of a thread: calls, results that differ in a bit, largest difference, results beyond tolerance."""

    calls: int
    differ: int
    off: float
    beyond: int


def threads(folder: Path, variant: str, seconds: float) -> Row:
    """Many threads call one model at once."""
    bundle, rows = folder / "float32.aeedge", test_rows(folder, MOST_ROWS)
    with aeedge.load(bundle, variant=variant, threads=1) as serial:
        counts = sizes(POOL, seed=1)
        pool = [Known(method, rows[-n:], getattr(serial, method)(rows[-n:])) for n in counts for method in GOLDEN]
    with aeedge.load(bundle, variant=variant) as model, ThreadPoolExecutor(CALLERS) as callers:
        if model.variant != variant:
            raise SystemExit(f"{bundle}: {model.variant} runs instead of {variant}")
        end = time.perf_counter() + seconds
        tallies = list(callers.map(lambda seed: caller(model, pool, seed, end), range(CALLERS)))
    calls, differ, off, beyond = (np.array(column) for column in zip(*tallies))
    row = {"what": variant, "callers": CALLERS, "seconds": seconds, "calls": int(calls.sum())}
    return row | {"differ": int(differ.sum()), "off": float(off.max()), "beyond_tolerance": int(beyond.sum())}


def caller(model: aeedge.Model, pool: Sequence[Known], seed: int, end: float) -> Tally:
    """One of the calling threads, until the end time."""
    dice, calls, differ, off, beyond = random.Random(seed), 0, 0, 0.0, 0
    tolerances = model.manifest.variants[model.variant].tolerance
    while time.perf_counter() < end:
        known = dice.choice(pool)
        got = getattr(model, known.method)(known.rows)
        calls += 1
        if np.array_equal(got, known.result):
            continue
        differ += 1
        off = max(off, float(np.abs(got - known.result).max() / np.abs(known.result).max()))
        what = GOLDEN[known.method]
        found = deviation(what, known.rows, got, known.result, tolerances[what], model.manifest.score)
        beyond += not found.ok
    return Tally(calls, differ, off, beyond)


def table_of_memory(rows: Sequence[Row]) -> Table:
    head = [
        "memory over calls of",
        "calls",
        "rows",
        "seconds",
        "growth, MB",
        "last - first, MB",
        "range, MB",
        "allowed",
    ]
    lines = []
    for row in rows:
        seen = ["not available"] * 3
        if row["mb"] is not None:
            low, high = row["mb"]
            seen = [f"{row['growth_mb']:+.2f}", f"{row['last_minus_first_mb']:+.2f}", f"{low:.1f} to {high:.1f}"]
        counts = [f"{row['calls']:,}", f"{row['rows']:,}", f"{row['seconds']:.0f}"]
        lines.append([row["what"], *counts, *seen, f"{GROWTH_MB:+.2f}"])
    return head, lines


def table_of_idleness(rows: Sequence[Row]) -> Table:
    head = ["idle after", "calls", "rows each", "seconds", "% of a core", "allowed"]
    lines = []
    for row in rows:
        counts = [f"{row['calls']:,}", f"{row['rows']:,}", f"{row['seconds']:.0f}"]
        lines.append([row["what"], *counts, f"{row['percent']:.2f}", f"{IDLE_PERCENT:.2f}"])
    return head, lines


def table_of_threads(rows: Sequence[Row]) -> Table:
    head = [
        f"{CALLERS} threads at once",
        "calls",
        "differ in a bit",
        "largest difference",
        "beyond tolerance",
        "allowed",
    ]
    return head, [
        [row["what"], f"{row['calls']:,}", f"{row['differ']:,}", f"{row['off']:.0e}", str(row["beyond_tolerance"]), "0"]
        for row in rows
    ]


PARTS = {"memory": table_of_memory, "idle": table_of_idleness, "threads": table_of_threads}


def measure(part: str, calls: int, seconds: float, idle_seconds: float) -> list[Row]:
    """All runs of a part, one after the other, each in its own process."""
    folders = apart(workloads.prepare, (MEMORY_NET, BUSY_NET), print)
    print(f"{part}: measuring", flush=True)
    if part == "memory":
        return [apart(memory, folders[MEMORY_NET], what, calls) for what in GOLDEN]
    if part == "idle":
        return [apart(idle, folders[BUSY_NET], what, idle_seconds) for what in ("bulk", "single rows")]
    return [apart(threads, folders[BUSY_NET], variant, seconds) for variant in ("fp32", "int8")]


def wrong(rows: Sequence[Row]) -> list[str]:
    """Variants whose results differ by more than allowed."""
    return [row["what"] for row in rows if row["beyond_tolerance"] or (row["what"] == "int8" and row["differ"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="this part only; may be given several times")
    parser.add_argument("--calls", type=int, default=CALLS, help="of each method, for memory (at least 100)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of calls by all threads")
    parser.add_argument("--quick", action="store_true", help="few calls and seconds: does it work?")
    asked = parser.parse_args()
    parts = [part for part in PARTS if part in (asked.part or PARTS)]
    plan = QUICK if asked.quick else (max(100, asked.calls), asked.seconds, IDLE_SECONDS)
    result: dict[str, Any] = {"machine": fingerprint(), "plan": plan}
    result |= {part: measure(part, *plan) for part in parts}
    tables = {f"{part.capitalize()}": PARTS[part](result[part]) for part in parts}
    shortened = asked.quick or plan != (CALLS, SECONDS, IDLE_SECONDS)
    publish_all(kept_as("endurance", shortened, parts if len(parts) < len(PARTS) else ()), result, tables)
    if differ := wrong(result.get("threads", ())):
        raise SystemExit(f"results of {' and '.join(differ)} change when several threads call the model")


if __name__ == "__main__":
    main()
