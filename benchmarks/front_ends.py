"""Microseconds of one Fourier transform and its power: as one product, as two, and by ONNX's own operators.

    python benchmarks/front_ends.py

The numbers are in docs/decisions/0019-front-ends.md.
"""

import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import onnx.helper as oh
import onnx.numpy_helper as onh
import onnxruntime
import torch
from onnx import TensorProto

from aeedge_export.conversion.graph import frozen, to_onnx
from aeedge_export.networks import front_ends

FRAMES = [
    (128, 1),
    (256, 1),
    (512, 1),
    (1024, 1),
    (1024, 5),
    (2048, 1),
    (4096, 1),
]  # samples, frames half of that apart
WAYS = ("one product", "two products", "STFT", "DFT")
SECONDS, BATCH = 0.25, 64


class Power(torch.nn.Module):
    """Windows (n, samples) to power spectra (n, frames, lines)."""

    def __init__(self, n: int, frames: int, direct: bool) -> None:
        super().__init__()
        with mock.patch.multiple(front_ends, _DIRECT=2**20 if direct else 0, _MOST_COLUMNS=2**20):
            self.transform = front_ends._Fourier(n, n // 2 + 1, taper=front_ends.hann(n))
        self.register_buffer("places", torch.arange(frames)[:, None] * (n // 2) + torch.arange(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.transform.power(x.unsqueeze(1) if len(self.places) == 1 else x[..., self.places])


def by_operator(kind: str, n: int, samples: int) -> bytes:
    """The same with STFT, or of one frame with DFT."""
    weights = {"axis": np.array([-1]), "hop": np.array(n // 2), "n": np.array(n)}
    weights["taper"] = front_ends.hann(n).astype(np.float32)
    if kind == "STFT":
        nodes = [
            oh.make_node("Unsqueeze", ["x", "axis"], ["u"]),
            oh.make_node("STFT", ["u", "hop", "taper", "n"], ["y"], onesided=1),
        ]
    else:
        nodes = [
            oh.make_node("Mul", ["x", "taper"], ["tapered"]),
            oh.make_node("Unsqueeze", ["tapered", "axis"], ["u"]),
            oh.make_node("DFT", ["u"], ["y"], axis=1, onesided=1),
        ]
    nodes += [oh.make_node("Mul", ["y", "y"], ["s"]), oh.make_node("ReduceSum", ["s", "axis"], ["p"], keepdims=0)]
    ends = [
        oh.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["b", samples]), ("p", None))
    ]
    graph = oh.make_graph(nodes, "power", ends[:1], ends[1:], [onh.from_array(v, k) for k, v in weights.items()])
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def microseconds(call: Callable[[], object]) -> float:
    """The fastest of the calls of a quarter of a second."""
    call()
    fastest, end = np.inf, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter_ns()
        call()
        fastest = min(fastest, time.perf_counter_ns() - began)
    return fastest / 1e3


def measured(way: str, n: int, frames: int) -> tuple[float, float, int]:
    """Microseconds of a window alone and of one of 64, and the bytes of the graph."""
    x = np.random.default_rng(0).normal(size=(BATCH, n + (frames - 1) * (n // 2))).astype(np.float32)
    if way in ("STFT", "DFT"):
        graph = by_operator(way, n, x.shape[1])
    else:
        module = frozen(Power(n, frames, way == "one product"))
        graph = to_onnx(module, torch.from_numpy(x), "features").SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    one, many = (microseconds(lambda rows=rows: session.run(None, {name: rows})) for rows in (x[:1], x))
    return one, many / BATCH, len(graph)


def main() -> None:
    """Print a table."""
    print(
        f"onnxruntime {onnxruntime.__version__}, one thread; µs of a window alone / of one in {BATCH}, kB of the graph"
    )
    for n, frames in FRAMES:
        for way in WAYS if frames == 1 else WAYS[:3]:
            one, each, size = measured(way, n, frames)
            print(
                f"{n:>5} samples, {frames} frames, {way:12}: {one:7.1f} / {each:6.1f} µs, {size / 1000:9,.0f} kB",
                flush=True,
            )


if __name__ == "__main__":
    main()
