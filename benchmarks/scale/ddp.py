"""Two processes against one on the same machine: the same loss, and how many rows a second.

    python benchmarks/scale/ddp.py             # a few minutes
    python benchmarks/scale/ddp.py --quick     # does not replace the result of the full size
    python benchmarks/scale/ddp.py --show

One process has one thread, and all CPUs as threads; two processes have one thread each. All take batches of the same
size in all, in turns. Times are of epochs but for the first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from shared import Rows, conditions, progress, publish, show

NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "table, 60-256-8": ((60,), {"latent": 8, "hidden": (256,), "noise": "none"}),
    "wide, 640-128×4-8": ((640,), {"latent": 8, "hidden": (128,) * 4, "noise": "none"}),
    "wide, 640-1024-512-32": ((640,), {"latent": 32, "hidden": (1024, 512), "noise": "none"}),
    "images, 1×20×32 conv2d": ((1, 20, 32), {"family": "conv2d", "latent": 16, "noise": "none"}),
}
WORK = """
import json, os, sys
import numpy as np
from aeedge_export import Autoencoder
given = json.loads(sys.argv[1])
params = {name: tuple(value) if isinstance(value, list) else value for name, value in given["params"].items()}
ae = Autoencoder(**params, device="cpu", random_state=0, patience=None).fit(np.load(given["rows"], mmap_mode="r"))
if os.environ.get("RANK", "0") == "0":
    with open(given["result"], "w") as file:
        json.dump(ae.history_, file)
"""


def train(processes: int, threads: int, params: dict[str, Any], rows: Path, folder: Path) -> list[dict[str, float]]:
    """The history of a training in so many processes."""
    script, result = folder / "work.py", folder / "history.json"
    script.write_text(WORK)
    given = {"params": {**params, "threads": threads}, "rows": str(rows), "result": str(result)}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), json.dumps(given)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True)
    found: list[dict[str, float]] = json.loads(result.read_text())
    return found


def measure(rows: int, epochs: int, rounds: int, batch_size: int) -> dict[str, Any]:
    """All networks, all numbers of processes."""
    cpus = os.cpu_count() or 1
    ways = {"one, 1 thread": (1, 1), f"one, {cpus} threads": (1, cpus), "two, 1 thread each": (2, 1)}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, (shape, params) in NETWORKS.items():
            file = Path(place) / "rows.npy"
            np.save(file, Rows(int(np.prod(shape)))(rows, 0).reshape(-1, *shape))
            asked = {**params, "epochs": epochs, "batch_size": batch_size}
            histories: dict[str, list[list[dict[str, float]]]] = {way: [] for way in ways}
            for number in range(rounds):
                for way, (processes, threads) in ways.items():
                    progress(f"{name}: {way}, round {number + 1} of {rounds}")
                    histories[way].append(train(processes, threads, asked, file, Path(place)))
            found[name] = {way: _result(rounds_of, rows) for way, rounds_of in histories.items()}
    return found


def _result(rounds: list[list[dict[str, float]]], rows: int) -> dict[str, float]:
    seconds = statistics.median(epoch["seconds"] for history in rounds for epoch in history[1:])
    last = rounds[0][-1]
    return {
        "epoch_seconds": seconds,
        "rows_a_second": 0.8 * rows / seconds,
        "train_loss": last["train_loss"],
        "validation_loss": last["validation_loss"],
    }


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Loss and speed of two processes beside one."""
    lines = []
    for name, ways in found.items():
        one, threads, two = ways.values()
        lines.append(
            [
                name,
                f"{one['validation_loss']:.6f}",
                f"{two['validation_loss']:.6f}",
                f"{100 * abs(two['validation_loss'] / one['validation_loss'] - 1):.4f} %",
                f"{one['rows_a_second']:,.0f}",
                f"{threads['rows_a_second'] / one['rows_a_second']:.2f}",
                f"{two['rows_a_second'] / one['rows_a_second']:.2f}",
            ]
        )
    return ["network", "loss of one", "of two", "differ by", "rows/s of one", "× with threads", "× with two"], lines


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, one round")
    parser.add_argument("--show", action="store_true", help="print the last result")
    given = parser.parse_args()
    if given.show:
        show("ddp")
        return
    size = {"rows": 20_000, "epochs": 3, "rounds": 1} if given.quick else {"rows": 30_000, "epochs": 4, "rounds": 2}
    before = conditions("torch")
    found = measure(**size, batch_size=256)
    title = f"Batches of 256 in all, {size['epochs']} epochs of {size['rows']:,} rows, a tenth of them for validation"
    name = "ddp-quick" if given.quick else "ddp"
    publish(name, {**before, **size, "networks": found}, {title: table(found)})


if __name__ == "__main__":
    main()
