"""How much faster is int8? The int8 encoder on raw bytes against fp32 `session.run`, one thread, interleaved.

The five networks of the runtime comparison, exported with uint8 input (signals as bytes around 128) within the quality
limits. fp32 is torch's export as it is, on float32 input scaled beforehand. `int8 run` is onnxruntime on aeedge's
graph, `int8 encode` is aeedge with its checks, LiteRT is its full-integer network with int8 input.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import SIGNAL, fingerprint, interleaved, publish, raw
from comparison import tflite, workloads
from comparison.contenders.by_litert import Contender
from comparison.networks import NETWORKS

import aeedge
from aeedge_export import export_bundle
from aeedge_export.conversion.graph import to_onnx

BATCHES = (1, 64, 256, 1024, 4096)


def session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def contenders(name: str, folder: Path, bundle: Path) -> Callable[[int], dict[str, Callable[[], object]]]:
    """Calls by name for a number of rows."""
    scaler = (0.0, 255.0) if NETWORKS[name].pixels else SIGNAL
    down, up = workloads.autoencoder(name, folder / "weights.pt")
    with np.load(folder / "rows.npz") as stored:
        known, test = stored["calibration"], stored["test"]
    manifest = export_bundle(
        encoder=down, decoder=up, path=bundle, example=raw(known, scaler), scaler=scaler, variants="all"
    )
    if "int8" not in manifest.variants:
        raise SystemExit(f"{name}: no int8 variant")
    fp32 = session(to_onnx(down, torch.from_numpy(test[:2]), "encoder").SerializeToString())
    int8 = session((bundle / "encoder.int8.onnx").read_bytes())
    model, plain = aeedge.load(bundle, variant="int8", threads=1), aeedge.load(bundle, variant="fp32", threads=1)
    lite = Contender(str(folder), {"file": "int8.tflite"}, 1)

    def calls(batch: int) -> dict[str, Callable[[], object]]:
        rows = np.resize(test, (batch, *test.shape[1:]))
        pixels, prepared = raw(rows, scaler), lite.prepare(rows)
        return {
            "fp32 run": lambda: fp32.run(None, {"input": rows}),
            "int8 run": lambda: int8.run(None, {"input": pixels}),
            "int8 encode": lambda: model.encode(pixels),
            "fp32 encode": lambda: plain.encode(pixels),
            "LiteRT int8": lambda: lite.encode(prepared),
        }

    return calls


def main() -> None:
    folders = workloads.prepare(NETWORKS, print)
    if reason := tflite.make(folders.values(), print):
        raise SystemExit(reason)
    table, seconds = [], {}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, folder in folders.items():
            calls = contenders(name, folder, Path(scratch) / f"{name}.aeedge")
            for batch in BATCHES:
                found = seconds[f"{name}, {batch}"] = interleaved(calls(batch), seconds=0.1, rounds=9)
                fp32 = found["fp32 run"]
                ratios = [f"{fp32 / s:.2f}" for what, s in found.items() if what != "fp32 run"]
                table.append([f"{name}, {batch:,} rows", f"{fp32 * 1e6:,.0f}", *ratios])
    head = ["fp32 run = 1", "its µs", "int8 run", "int8 encode", "fp32 encode, uint8 input", "LiteRT int8"]
    publish("int8_speed", {"machine": fingerprint("torch", "ai-edge-litert"), "seconds": seconds}, head, table)


if __name__ == "__main__":
    main()
