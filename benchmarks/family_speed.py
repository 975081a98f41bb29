"""What does the training loop cost? Epochs per second of every family, against a plain torch loop on the same network.

MNIST-sized rows of noise, batch 64. The plain loop has no validation, schedule, seeds or history. The two are
interleaved, an epoch each; aeedge also runs without validation.
"""

from __future__ import annotations

import statistics
import time
import warnings

import numpy as np
import torch
from common import fingerprint, publish

from aeedge_export import Autoencoder
from aeedge_export.networks import build
from aeedge_export.networks.base import Network

ROWS, ROUNDS, BATCH = 4000, 8, 64
FAMILIES = ("dense", "sparse", "contractive", "vae", "conv2d", "conv1d")


def plain_epoch(net: Network, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
    began = time.perf_counter()
    net.train()
    order = torch.randperm(len(rows))
    for start in range(0, len(rows), BATCH):
        batch = rows[order[start : start + BATCH]]
        optimizer.zero_grad(set_to_none=True)
        net.training_loss(batch, batch).backward()
        optimizer.step()
    return time.perf_counter() - began


def measure(family: str, X: np.ndarray) -> tuple[list[float], list[float]]:
    """Seconds per epoch of aeedge and of the plain loop."""
    plain: list[float] = []
    peer: list[object] = []
    ae = Autoencoder(family, latent=32, epochs=ROUNDS, batch_size=BATCH, validation=0, calibration=0, random_state=0)

    def take_turn(_: object) -> None:
        if not peer:
            net = build(family, ae.network_.design, 0)
            peer.extend([net, torch.optim.AdamW(net.parameters(), fused=True), torch.from_numpy(ae.scaler_(X))])
        plain.append(plain_epoch(*peer))

    ae.fit_rows(X, on_epoch=take_turn)
    return [epoch["seconds"] for epoch in ae.history_], plain


def main() -> None:
    warnings.simplefilter("ignore")
    noise = np.random.default_rng(0).random((ROWS, 784)).astype(np.float32).round(1)
    table, seconds = [], {}
    for family in FAMILIES:
        X = noise.reshape({"conv2d": (-1, 1, 28, 28), "conv1d": (-1, 28, 28)}.get(family, (-1, 784)))
        ours, plain = measure(family, X)
        seconds[family] = {"aeedge": ours, "plain torch": plain}
        a, b = statistics.median(ours[1:]), statistics.median(plain[1:])
        table.append([family, f"{1 / a:.2f}", f"{1 / b:.2f}", f"{b / a:.2f}"])
    head = ["epochs per second", "aeedge", "plain torch", "ratio"]
    publish("family_speed", {"machine": fingerprint("torch"), "seconds": seconds}, head, table)


if __name__ == "__main__":
    main()
