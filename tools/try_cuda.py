"""Tries the training on CUDA: float32, bf16, torch.compile, and a process of torchrun with nccl, beside the CPU.

    python tools/try_cuda.py [--epochs 5] [--rows 50000]

Prints a table of losses and times, and exits with 1 where a loss is off by more than 1 % (bf16: 3 %) from the CPU's.
Needs the project's packages alone. torch.compile takes triton, which comes with torch for CUDA, and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aeedge_export import Autoencoder

NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "dense": ((640,), {"latent": 16, "hidden": [512, 256], "normalization": "batch"}),
    "vae": ((60,), {"family": "vae", "latent": 8}),
    "conv2d": ((1, 16, 16), {"family": "conv2d", "latent": 16}),
}
WAYS: dict[str, dict[str, Any]] = {
    "cpu": {"device": "cpu"},
    "cuda": {"device": "cuda"},
    "cuda bf16": {"device": "cuda", "precision": "bf16"},
    "cuda compile": {"device": "cuda", "compile": True},
    "cuda bf16 compile": {"device": "cuda", "precision": "bf16", "compile": True},
    "cuda nccl": {"device": "cuda"},
    "cuda nccl auto": {"device": "auto"},
}


def rows_of(shape: tuple[int, ...], count: int) -> Any:
    """Made-up rows (count, *shape), the same for a shape."""
    rng = np.random.default_rng(int(np.prod(shape)))
    causes = np.tanh(rng.normal(size=(count, 8)))
    found = causes @ rng.normal(size=(8, int(np.prod(shape)))) + 0.3 * rng.normal(size=(count, int(np.prod(shape))))
    return found.astype(np.float32).reshape(-1, *shape)


def train(name: str, way: str, count: int, epochs: int) -> dict[str, Any]:
    """Train in this process."""
    shape, params = NETWORKS[name]
    options = params | WAYS[way] | {"epochs": epochs, "batch_size": 256, "random_state": 0, "patience": None}
    X = rows_of(shape, count)
    began = time.perf_counter()
    history = Autoencoder(**options).fit(X).history_
    return {
        "loss": history[-1]["validation_loss"],
        "seconds": time.perf_counter() - began,
        "epoch": min(epoch["seconds"] for epoch in history),
        "backend": torch.distributed.get_backend() if torch.distributed.is_initialized() else "",
    }


def apart(name: str, way: str, count: int, epochs: int) -> dict[str, Any]:
    """Train in a process of its own, which torchrun starts for nccl."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"] if "nccl" in way else []
        given = json.dumps([name, way, count, epochs])
        command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--one", given, "--result", str(result)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode or not result.is_file():
            return {"error": done.stderr.strip()[-1500:]}
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def main() -> int:
    """Print the table. Gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--only", nargs="*", default=list(WAYS), metavar="WAY", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        given.result.write_text(json.dumps(train(*json.loads(given.one))))
        return 0
    if not torch.cuda.is_available() and any("cuda" in way for way in given.only):
        print("there is no CUDA device here; --only cpu tries the rest")
        return 1
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no CUDA'}")
    print(f"{'network':8} {'':18} {'loss':>10} {'of the CPU':>11} {'an epoch':>9} {'in all':>8}  backend")
    failed = False
    for name in NETWORKS:
        reference = None
        for way in given.only:
            found = apart(name, way, given.rows, given.epochs)
            if "error" in found:
                failed = True
                print(f"{name:8} {way:18} FAILED\n{found['error']}", flush=True)
                continue
            reference = found["loss"] if reference is None else reference
            ratio = found["loss"] / reference
            off = abs(ratio - 1) > (0.03 if "bf16" in way else 0.01)
            failed |= off
            print(
                f"{name:8} {way:18} {found['loss']:10.5f} {ratio:11.4f} {found['epoch']:8.3f}s {found['seconds']:7.1f}s"
                f"  {found['backend']}{'  OFF' if off else ''}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
