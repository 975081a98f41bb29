"""Trains on a folder of .npy shards that is larger than memory: how many rows a second, how much memory, and how long
the step waits for rows, beside a training on rows in memory.

    python benchmarks/scale/shards.py [--quick | --gigabytes N] [--dense] [--work FOLDER] [--table]

The shards are sparse: of each 8 MB, 1 MB of rows is written, and the rest are holes, which read as rows of zeros. They
are read like any file, but need an eighth of the disk; --dense writes all rows. Each training is a process of its own,
in which no more than 2 GB may be allocated (RLIMIT_DATA; files that are mapped into memory do not count).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from shared import Rows, conditions, progress, publish, show

WIDTH, SHARDS, BLOCK, WRITTEN = 640, 40, 2**23, 8
LIMIT = 2 * 10**9
RESIDENT = 300_000  # rows
NETWORK = {"latent": 8, "hidden": (128, 128, 128, 128), "random_state": 0, "threads": 1, "noise": "none"}


def write(folder: Path, gigabytes: float, dense: bool) -> int:
    """A folder of shards of so many bytes in all; gives the number of rows."""
    pool = Rows(WIDTH)(BLOCK // (4 * WIDTH), 0)
    rows = int(gigabytes * 1e9) // (4 * WIDTH * SHARDS)
    part = pool if dense else pool[: len(pool) // WRITTEN]
    for number in range(SHARDS):
        path = folder / f"part-{number:03d}.npy"
        np.lib.format.open_memmap(path, "w+", np.float32, (rows, WIDTH)).flush()
        with path.open("r+b") as stream:
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            origin = stream.tell()
            for first in range(0, rows, len(pool)):
                stream.seek(origin + first * 4 * WIDTH)
                stream.write(np.roll(part, number + first, axis=0)[: rows - first].tobytes())
    return rows * SHARDS


class Memory:
    """Samples what this process uses: its peak of memory of its own, and of all that is mapped."""

    def __init__(self) -> None:
        self.peak = {"RssAnon": 0, "VmRSS": 0}
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> None:
        """Take what is used now into account."""
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in self.peak:
                self.peak[name] = max(self.peak[name], int(value.split()[0]) * 1024)

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.02)


def train(folder: str, rows: int | None, limit: int | None, epochs: int) -> dict[str, Any]:
    """Train on all shards, or with `rows` on so many of them in memory; runs in a process of its own."""
    import resource

    import torch

    import aeedge_export.fitting as fitting
    from aeedge_export import Autoencoder, Shards

    torch.set_num_threads(1)
    memory = Memory()
    memory.look()
    before = dict(memory.peak)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    placed: list[Any] = []
    place: Callable[..., Any] = fitting.place_rows

    def remembered(*arguments: Any) -> Any:
        placed.append(place(*arguments))
        return placed[-1]

    fitting.place_rows = remembered
    shards = Shards(folder)
    X: Any = shards if rows is None else shards[np.linspace(0, len(shards) - 1, rows).astype(np.intp)]
    began = time.perf_counter()
    model = Autoencoder(**NETWORK, epochs=epochs, patience=None).fit(X)
    whole = time.perf_counter() - began
    training = sum(epoch["seconds"] for epoch in model.history_)
    began = time.perf_counter()
    model.evaluate(X)
    return {
        "rows": len(X),
        "bytes": X.nbytes,
        "trained_rows": placed[0].count,
        "epochs": epochs,
        "rows_a_second": epochs * placed[0].count / training,
        "epoch_seconds": training / epochs,
        "before_seconds": whole - training,  # statistics, samples, start at PCA, calibration
        "evaluation_seconds": time.perf_counter() - began,
        "waited_share": getattr(placed[0], "waited", 0.0) / training,
        "imports": before,
        "peak": memory.peak,
        "allocation_limit": limit,
        "validation_loss": model.history_[-1]["validation_loss"],
    }


def apart(*arguments: Any) -> dict[str, Any]:
    """`train` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(train, arguments)
    return found


def measure(gigabytes: float, dense: bool, where: Path | None) -> dict[str, Any]:
    """Write shards, train on them and on rows in memory, and remove them."""
    folder = Path(tempfile.mkdtemp(prefix="shards-", dir=where))
    try:
        before = conditions("torch")
        progress(f"writing {gigabytes:g} GB, {'dense' if dense else 'sparse'}")
        write(folder, gigabytes, dense)
        progress("training on rows in memory")
        rounds = max(1, round(gigabytes * 1e9 / (4 * WIDTH * RESIDENT) / 5))  # about a fifth of the time
        resident = apart(str(folder), RESIDENT, None, rounds)
        progress(f"{json.dumps(resident)}\ntraining on shards")
        streamed = apart(str(folder), None, LIMIT, 1)
        progress(json.dumps(streamed))
        on_disk = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    finally:
        shutil.rmtree(folder)
    return {
        **before,
        "on_disk": on_disk,
        "network": "640-128×4-8",
        "resident": resident,
        "streamed": streamed,
        "ratio": streamed["rows_a_second"] / resident["rows_a_second"],
    }


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The trainings beside each other."""
    rows = [
        [
            name,
            f"{found['rows']:,}",
            f"{found['bytes'] / 1e9:.2f} GB",
            f"{found['rows_a_second']:,.0f}",
            f"{found['before_seconds']:.0f} s",
            f"{found['epoch_seconds']:.0f} s",
            f"{100 * found['waited_share']:.1f} %",
            f"{found['peak']['RssAnon'] / 1e9:.2f} GB",
            f"{found['peak']['VmRSS'] / 1e9:.2f} GB",
        ]
        for name, found in ((name, result[name]) for name in ("resident", "streamed"))
    ]
    head = ["rows are", "rows", "size", "rows/s", "before", "an epoch", "waited", "own memory", "resident memory"]
    return head, rows


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 GB; does not replace the result of 20 GB")
    parser.add_argument("--gigabytes", type=float, help="of all shards, 20 by default; likewise")
    parser.add_argument("--dense", action="store_true", help="write all rows to the disk")
    parser.add_argument("--work", type=Path, help="folder to write to; the shards are removed afterwards")
    parser.add_argument("--table", action="store_true", help="print the last result")
    given = parser.parse_args()
    size = given.gigabytes or (2.0 if given.quick else 20.0)
    name = "shards" if size >= 20 else "shards-quick"
    if given.table:
        show(name)
        return
    result = measure(size, given.dense, given.work)
    publish(name, result, {"Training, one thread; memory as sampled every 20 ms": table(result)})
    print(f"streamed rows take {1 / result['ratio']:.2f} of the time of rows in memory")


if __name__ == "__main__":
    main()
