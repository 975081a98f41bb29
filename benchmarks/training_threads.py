"""Does training choose the right number of threads? "auto" against one and all, idle and beside a neighbour.

Ten epochs of five small networks, fits in shuffled order, medians. The neighbour is one process in an endless loop. On
an idle machine a short fit during which other processes were busy is repeated. Beside a neighbour all threads are tried
once, and stopped after a limit. Rows are synthetic: the work does not depend on the values.

    python benchmarks/training_threads.py [--quick] [--workload digits ...]
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from common import PAUSE, RESULTS, fingerprint, kept_as, progress
from comparison.records import Line, Records, write_text
from comparison.tables import table

from aeedge.system.clock import Clock
from aeedge.system.conditions import judge, read
from aeedge_export import Autoencoder

NAME = "training_threads"
EPOCHS, ROUNDS, QUICK_ROUNDS, TRIES = 10, 7, 2, 3
LONG = 6.0  # seconds of a fit that is not repeated
LIMIT = {True: 5.0, False: 12.0}  # seconds for all threads beside a neighbour, quick and full
CONTENDERS = {"auto": "auto", "one": 1, "all": torch.get_num_threads()}
WORKLOADS = ("digits", "table", "conv1d", "mnist dense", "conv2d")


def data(workload: str) -> tuple[np.ndarray, str]:
    """Rows and the family for them."""
    rng = np.random.default_rng(0)
    if workload == "table":
        return (rng.normal(size=(2000, 4)) @ rng.normal(size=(4, 20)) + 0.1 * rng.normal(size=(2000, 20))), "dense"
    if workload == "conv1d":
        return np.cumsum(rng.normal(size=(940, 8, 60)), axis=2).astype(np.float32), "conv1d"
    if workload == "digits":
        return np.clip(rng.normal(0, 10, (1797, 64)).round(), 0, 16).astype(np.float32), "dense"
    shape = (5000, 784) if workload == "mnist dense" else (1000, 1, 28, 28)
    pixels = np.clip(rng.normal(-100, 150, shape), 0, 255).astype(np.uint8)  # as in MNIST most are 0
    return pixels, "dense" if workload == "mnist dense" else "conv2d"


def fit(workload: str, threads: int | str, rows: tuple[np.ndarray, str] | None = None) -> tuple[float, str]:
    """Seconds, and the number of threads with its reason."""
    warnings.simplefilter("ignore")
    X, family = rows or data(workload)
    ae = Autoencoder(family, epochs=EPOCHS, patience=None, device="cpu", threads=threads, calibration=0, random_state=0)
    began = time.perf_counter()
    ae.fit(X)
    return time.perf_counter() - began, ae.run_.state.threads


def undisturbed(workload: str, threads: int | str, rows: tuple[np.ndarray, str]) -> tuple[float, str, bool]:
    """`fit` while other processes are quiet, as far as a few tries can have it."""
    clock = Clock()
    for _ in range(TRIES):
        before = read(clock)
        seconds, chosen = fit(workload, threads, rows)
        calm = not any(finding.grade == "invalid" for finding in judge(before, read(clock)))
        if calm or seconds > LONG:
            break
    return seconds, chosen, calm


@contextmanager
def neighbour() -> Iterator[None]:
    """Another process that is always busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(records: Records, workload: str, state: str, rounds: int) -> None:
    """All contenders in turn; all threads only on an idle machine."""
    rows, dice = data(workload), random.Random(0)
    names = [name for name in CONTENDERS if state == "idle" or name != "all"]
    found: dict[str, list[Any]] = {name: [] for name in names}
    fit(workload, 1, rows)  # imports, caches
    for _ in range(rounds):
        dice.shuffle(names)
        for name in names:
            time.sleep(PAUSE)
            once = undisturbed if state == "idle" else fit
            found[name].append(once(workload, CONTENDERS[name], rows))
    for name, fits in found.items():
        seconds, chosen = [one[0] for one in fits], [one[1] for one in fits]
        disturbed = sum(not calm for *_, calm in fits) if state == "idle" else None
        records.add(
            "time", workload=workload, state=state, threads=name, seconds=seconds, chosen=chosen, disturbed=disturbed
        )


def measure_all_threads(records: Records, workload: str, limit: float) -> None:
    """All threads beside a neighbour, in a process that is stopped after `limit` seconds of training."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_fit, args=(theirs, workload), daemon=True)
    process.start()
    ours.recv()  # imports are done
    seconds = ours.recv() if ours.poll(limit) else None
    process.kill()
    process.join()
    records.add("time", workload=workload, state="neighbour", threads="all", seconds=[seconds], limit=limit)


def _send_fit(pipe: Any, workload: str) -> None:
    rows = data(workload)
    pipe.send("ready")
    pipe.send(fit(workload, CONTENDERS["all"], rows)[0])


def median(records: Records, workload: str, state: str, threads: str) -> float | None:
    """Seconds of a cell; None where the limit was reached."""
    seconds = records.of("time", workload=workload, state=state, threads=threads)[0]["seconds"]
    return None if None in seconds else statistics.median(seconds)


def ratio(records: Records, workload: str, state: str) -> float:
    """Time of "auto" relative to one thread, on an idle machine to the better of one and all."""
    peers = ("one", "all") if state == "idle" else ("one",)
    times = [median(records, workload, state, name) for name in ("auto", *peers)]
    return times[0] / min(time for time in times[1:] if time is not None)  # type: ignore[operator]


def document(records: Records) -> str:
    machine, settings = records.of("machine")[0], records.of("settings")[0]
    parts = [
        "# Threads of training\n",
        f"{'A quick run, an indication only. ' if settings['quick'] else ''}{machine['processor']}, "
        f"{machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}, torch "
        f"{machine['versions']['torch']}. Seconds of a fit of {EPOCHS} epochs, medians of {settings['rounds']}. "
        "Written by `benchmarks/training_threads.py`.\n",
    ]
    limits = {"idle": "the better of the two, at most 1.05", "neighbour": "one thread, at most 1.3"}
    for state, limit in limits.items():
        peers = ["one thread", f"all ({settings['all']})"]
        head = [f"{state}", "auto", *peers, f"auto relative to {limit}", "chosen"]
        lines = [_line(records, workload, state) for workload in records.names("workload", "time")]
        parts.append(table(head, lines))
    disturbed = sum(line.get("disturbed") or 0 for line in records.of("time"))
    parts.append(f"{disturbed} fits on the idle machine were disturbed by other processes.\n")
    return "\n".join(parts)


def _line(records: Records, workload: str, state: str) -> list[str]:
    times = {name: median(records, workload, state, name) for name in CONTENDERS}
    limit = records.of("time", workload=workload, state=state, threads="all")[0].get("limit")
    cells = [f"> {limit:.0f}" if seconds is None else f"{seconds:.2f}" for seconds in times.values()]
    auto: Line = records.of("time", workload=workload, state=state, threads="auto")[0]
    numbers = [text.split()[0] for text in auto["chosen"]]
    counts = ", ".join(f"{number} ({numbers.count(number)}×)" for number in sorted(set(numbers)))
    return [workload, *cells, f"{ratio(records, workload, state):.2f}", counts]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds; about a minute")
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=[], help="only these")
    asked = parser.parse_args()
    rounds = QUICK_ROUNDS if asked.quick else ROUNDS
    records = Records()
    records.add("machine", **fingerprint("torch"))
    records.add("settings", quick=asked.quick, rounds=rounds, epochs=EPOCHS, all=CONTENDERS["all"])
    for workload in asked.workload or WORKLOADS:
        progress(f"{workload}, idle")
        measure(records, workload, "idle", rounds)
        progress(f"{workload}, beside a neighbour")
        with neighbour():
            measure(records, workload, "neighbour", rounds)
            measure_all_threads(records, workload, LIMIT[asked.quick])
    text = document(records)
    print(text)
    name = kept_as(NAME, asked.quick, [part.replace(" ", "-") for part in asked.workload])
    records.write(RESULTS / f"{name}.jsonl")
    write_text(RESULTS / f"{name}.md", text)
    print(f"written to benchmarks/results/{name}.md and .jsonl")


if __name__ == "__main__":
    main()
