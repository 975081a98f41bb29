"""How long does encoding take? aeedge with all its checks, against bare onnxruntime and torch, for one row and many.

The nets are fresh, since speed does not depend on the weights' values. torch and onnxruntime get ready float32 arrays.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import fingerprint, interleaved, publish
from torch import nn

import aeedge
from aeedge_export import export_bundle

NETS = {"seed 784-32": (784, 32), "deep 784-256-64-32": (784, 256, 64, 32), "ad01 640-128×4-8": (640, *[128] * 4, 8)}
BATCHES = (1, 64, 1024, 16384)


def perceptron(widths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers)


def plain_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    table, seconds = [], {}
    for name, widths in NETS.items():
        torch.manual_seed(0)
        net = perceptron(widths)
        x = np.random.default_rng(0).random((max(BATCHES), widths[0]), dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.aeedge"
            export_bundle(encoder=net, path=path, example=x[:256])
            model = aeedge.load(path)
            one, default = plain_session(path / "encoder.onnx", 1), plain_session(path / "encoder.onnx", 0)
        for batch in BATCHES:
            rows = x[:batch]
            tensor = torch.from_numpy(rows)

            def by_torch(net: nn.Module = net, tensor: torch.Tensor = tensor) -> object:
                with torch.inference_mode():
                    return net(tensor).numpy()

            calls = {
                "aeedge": lambda rows=rows, model=model: model.encode(rows),
                "onnxruntime, one thread": lambda rows=rows, one=one: one.run(None, {"input": rows}),
                "onnxruntime, default": lambda rows=rows, default=default: default.run(None, {"input": rows}),
                "torch": by_torch,
            }
            found = interleaved(calls)
            seconds[f"{name}, {batch}"] = found
            best = min(found["onnxruntime, one thread"], found["onnxruntime, default"])
            table.append(
                [f"{name}, {batch} rows", *(f"{s * 1e6:,.1f}" for s in found.values()), f"{found['aeedge'] / best:.2f}"]
            )
    head = ["µs a call", "aeedge", "ort 1 thread", "ort default", "torch", "aeedge / best ort"]
    publish("encode_latency", {"machine": fingerprint("torch"), "seconds": seconds}, head, table)


if __name__ == "__main__":
    main()
