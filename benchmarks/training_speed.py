"""Epochs per second: aeedge against Keras' fit and a plain torch loop, 784-32-784, batch 256, cross-entropy.

60 000 rows of uniform noise (the work does not depend on the values), no validation. Keras runs with TensorFlow in a
separate environment, which this script creates. All are interleaved, epoch by epoch.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import numpy as np
import torch
from common import fingerprint, publish
from torch import nn

from aeedge_export import Autoencoder

ROWS, ROUNDS = 60_000, 7
KERAS = ["keras==3.15.1", "tensorflow-cpu==2.21.0"]
ENVIRONMENT = Path(__file__).parent.parent / ".venvs" / "keras"

KERAS_LOOP = f"""
import sys, time, numpy as np, keras
X = np.random.default_rng(0).random(({ROWS}, 784), dtype=np.float32)
rows = keras.Input((784,))
latent = keras.layers.Dense(32, "relu")(rows)
net = keras.Model(rows, keras.layers.Dense(784, "sigmoid")(latent))
net.compile("adam", "binary_crossentropy")
for line in sys.stdin:
    began = time.perf_counter()
    net.fit(X, X, batch_size=256, epochs=1, verbose=0)
    print(time.perf_counter() - began, flush=True)
"""


def keras_process() -> subprocess.Popen[str]:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        print("creating an environment for Keras")
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *KERAS], check=True)
    return subprocess.Popen(
        [str(python), "-c", KERAS_LOOP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def one_line(stream: IO[str] | None) -> float:
    assert stream is not None
    return float(stream.readline())


def plain_torch(X: np.ndarray) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 784))
    return net, torch.optim.Adam(net.parameters(), fused=True), torch.from_numpy(X)


def torch_epoch(net: nn.Module, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
    began = time.perf_counter()
    order = torch.randperm(len(rows))
    for start in range(0, len(rows), 256):
        batch = rows[order[start : start + 256]]
        optimizer.zero_grad(set_to_none=True)
        nn.functional.binary_cross_entropy_with_logits(net(batch), batch).backward()
        optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    X = np.random.default_rng(0).random((ROWS, 784), dtype=np.float32)
    keras, (net, optimizer, rows) = keras_process(), plain_torch(X)
    seconds: dict[str, list[float]] = {"aeedge": [], "plain torch": [], "Keras": []}

    def others(state: object) -> None:
        seconds["plain torch"].append(torch_epoch(net, optimizer, rows))
        assert keras.stdin is not None
        print("go", file=keras.stdin, flush=True)
        seconds["Keras"].append(one_line(keras.stdout))

    ae = Autoencoder(
        latent=32,
        hidden=(),
        latent_activation="relu",
        output="sigmoid",
        loss="bce",
        scaling="none",
        batch_size=256,
        epochs=ROUNDS + 1,
        schedule="constant",
        learning_rate=1e-3,
        gradient_clip=None,
        validation=0,
        calibration=0,
        random_state=0,
    ).fit_rows(X, on_epoch=others)
    keras.kill()
    seconds["aeedge"] = [epoch["seconds"] for epoch in ae.history_]
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first warms up
    table = [
        [name, f"{1 / spent:.2f}", f"{medians['Keras'] / spent:.2f}×", f"{medians['plain torch'] / spent:.2f}×"]
        for name, spent in medians.items()
    ]
    result = {"machine": fingerprint("torch"), "peers": KERAS, "seconds_per_epoch": seconds}
    publish("training_speed", result, ["", "epochs per second", "of Keras", "of plain torch"], table)


if __name__ == "__main__":
    main()
