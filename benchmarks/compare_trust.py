"""How often are the verdicts of `aeedge bench --compare` and `--baseline` right? Counted on this machine.

A bundle against itself must be "no_difference"; with 5 % more time per call it must be "slower". Both sides of a
comparison are called through the same wrapper, which waits for a share of the call's time: 0 or 5 %. For
`--baseline`, a bundle is measured in fresh processes and each result compared with the one before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import fingerprint, publish
from comparison.networks import NETWORKS, encoder

import aeedge
from aeedge.bench.baseline import against
from aeedge.bench.compare import compare
from aeedge.system.clock import Clock
from aeedge_export import export_bundle

if TYPE_CHECKING:
    from aeedge.bench.scenarios import Call

SAME, SLOWED, BASELINES = 100, 20, 21
SECONDS = 1.0


@contextmanager
def opened(path: Path, share: float) -> Iterator[Call]:
    """The bundle's `encode`, made slower by a share of its time."""
    with aeedge.load(path, check="size") as model:

        def call(rows: Any) -> None:
            begin = time.perf_counter_ns()
            model.encode(rows)
            end = begin + (time.perf_counter_ns() - begin) * (1 + share)
            while time.perf_counter_ns() < end:
                pass

        yield call


def compared(path: Path, rows: int, share: float, runs: int) -> Counter[str]:
    data = np.random.default_rng(0).random((max(rows, 64), 784), dtype=np.float32)
    queries = list(data) if rows == 1 else [data]
    return Counter(
        compare(lambda: opened(path, share), lambda: opened(path, 0.0), queries, rows, SECONDS, Clock()).verdict
        for _ in range(runs)
    )


def kept(path: Path, runs: int) -> Counter[str]:
    """Verdicts of runs in fresh processes, each against the run before."""
    documents = []
    command = [sys.executable, "-m", "aeedge", "bench", str(path), "--quick", "--seconds", "2", "--json"]
    command += ["--scenario", "SingleStream"]
    for _ in range(runs):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        documents.append(json.loads(done.stdout))
    found: Counter[str] = Counter()
    for before, after in pairwise(documents):
        if "invalid" in (before["status"], after["status"]):
            found["invalid"] += 1
            continue
        against(after, before, "the run before")
        found[after["comparison"][0]["verdict"]] += 1
    return found


def main() -> None:
    counted: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep.aeedge"
        export_bundle(encoder=encoder(NETWORKS["deep"]), path=path, example=np.random.default_rng(0).random((256, 784)))
        for rows in (1, 1024):
            counted[f"--compare, itself, {rows} rows"] = compared(path, rows, 0.0, SAME)
            counted[f"--compare, 5 % slower, {rows} rows"] = compared(path, rows, 0.05, SLOWED)
        counted["--baseline, itself, 1 row"] = kept(path, BASELINES)
    verdicts = ("faster", "no_difference", "slower", "invalid")
    table = [[what, *(str(found[v]) for v in verdicts)] for what, found in counted.items()]
    publish("compare_trust", {"machine": fingerprint(), "counted": counted}, ["verdicts", *verdicts], table)


if __name__ == "__main__":
    main()
