"""Mixed precision and torch.compile: seconds of an epoch, and the loss, beside float32.

    python benchmarks/scale/precision.py [--device cuda]     # minutes
    python benchmarks/scale/precision.py --quick             # does not replace the result of the full size
    python benchmarks/scale/precision.py --show

One thread on the CPU. The trainings take turns; an epoch's time is the median of all but the first, in which
torch.compile compiles. `repaid after` is the number of epochs after which the compiling has paid.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import torch
from shared import Rows, conditions, progress, publish, show

from aeedge_export import Autoencoder

NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "table, 60-256-8": ((60,), {"latent": 8, "hidden": (256,), "noise": "none"}),
    "dense, 640-1024-512-32": ((640,), {"latent": 32, "hidden": (1024, 512), "noise": "none"}),
    "conv2d, 1×20×32": ((1, 20, 32), {"family": "conv2d", "latent": 16, "noise": "none"}),
}
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "compile": {"compile": True},
    "bf16, compile": {"precision": "bf16", "compile": True},
}


def measure(rows: int, epochs: int, rounds: int, device: str) -> dict[str, Any]:
    """All networks, all ways."""
    found: dict[str, Any] = {}
    for name, (shape, params) in NETWORKS.items():
        X = Rows(int(np.prod(shape)))(rows, 0).reshape(-1, *shape)
        histories: dict[str, list[list[dict[str, float]]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way, options in WAYS.items():
                progress(f"{name}: {way}, round {number + 1} of {rounds}")
                ae = Autoencoder(
                    **params, **options, epochs=epochs, batch_size=256, device=device, threads=1, random_state=0
                )
                histories[way].append(ae.fit(X).history_)
        found[name] = {
            way: {
                "epoch_seconds": statistics.median(epoch["seconds"] for one in of_way for epoch in one[1:]),
                "first_epoch_seconds": statistics.median(one[0]["seconds"] for one in of_way),
                "validation_loss": of_way[0][-1]["validation_loss"],
            }
            for way, of_way in histories.items()
        }
    return found


def table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Each way beside float32."""
    lines = []
    for name, ways in found.items():
        usual = ways["fp32"]
        for way, one in ways.items():
            ratio = one["epoch_seconds"] / usual["epoch_seconds"]
            lost = one["first_epoch_seconds"] - usual["first_epoch_seconds"]
            gained = usual["epoch_seconds"] - one["epoch_seconds"]
            repaid = f"{max(0.0, lost) / gained:,.0f} epochs" if gained > 0 else "never"
            lines.append(
                [
                    name,
                    way,
                    f"{1000 * one['epoch_seconds']:,.0f} ms",
                    f"{ratio:.2f}",
                    f"{lost:.1f} s" if "compile" in way else "",
                    repaid if "compile" in way else "",
                    f"{one['validation_loss']:.5f}",
                ]
            )
    return ["network", "", "an epoch", "of fp32", "compiling", "repaid after", "validation loss"], lines


def main() -> None:
    """Measure, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, …")
    parser.add_argument("--quick", action="store_true", help="fewer rows, one round")
    parser.add_argument("--show", action="store_true", help="print the last result")
    given = parser.parse_args()
    name = "precision" if given.device == "cpu" else f"precision-{given.device}"
    if given.show:
        show(name)
        return
    size = {"rows": 10_000, "epochs": 4, "rounds": 1} if given.quick else {"rows": 15_000, "epochs": 5, "rounds": 1}
    before = conditions("torch") | {"device": given.device}
    if given.device == "cuda":
        before["gpu"] = torch.cuda.get_device_name()
    found = measure(**size, device=given.device)
    title = f"{size['rows']:,} rows, batches of 256, {given.device}"
    publish(name + ("-quick" if given.quick else ""), {**before, **size, "networks": found}, {title: table(found)})


if __name__ == "__main__":
    main()
