"""Bundles whose input is windows of a signal, made without torch: a linear network, PCA of the windows."""

import hashlib
import io
from types import MappingProxyType

import numpy as np

from aeedge.bundle.manifest import FileEntry, InputSpec, Manifest, ScoreSpec, SignalSpec, Tolerance, Variant
from aeedge.signals.window import window as windows_of
from helpers.onnx_bytes import message, model, number, tensor
from helpers.tampering import add_calibration

_ELEMENTS = {"float32": 1, "uint8": 2, "int16": 5}


def machine(count, channels=2, seed=0, noise=0.05, rate=100.0):
    """A recording of a machine that turns: sines of a few frequencies in all channels, and noise; (count, channels)."""
    rng, t = np.random.default_rng(seed), np.arange(count) / rate
    waves = np.stack([np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in (3.0, 7.0)], 1)
    mixed = waves @ np.random.default_rng(5).normal(size=(2, channels))
    return (mixed + noise * rng.normal(size=(count, channels))).astype(np.float32)


def signal_bundle(
    path, recording=None, signal=None, *, latents=6, dtype="float32", rate=0.05, identity=False, score="mse"
):
    """Write a bundle of windows of a recording (samples, signal.width); returns its path.

    The first half fits the network, the second calibrates at the false-alarm rate `rate`, None for no calibration. With
    `identity` the network reconstructs its input, as far as float32 goes. `score`: "mse" or "robust", of one scale.
    """
    signal = signal or SignalSpec(("x", "y"), window=32, hop=8, rate=100.0)
    recording = machine(4000, signal.width) if recording is None else recording
    half, size = len(recording) // 2, signal.window * signal.width
    fit = windows_of(recording[:half], signal.window, signal.hop)
    flat = fit.reshape(len(fit), size).astype(np.float64)
    mean = flat.mean(0)
    basis = np.eye(size) if identity else np.linalg.svd(flat - mean, full_matrices=False)[2][:latents]
    down, up = basis.T.astype(np.float32), basis.astype(np.float32)
    graphs = {
        "encoder": _encoder(down, (-mean @ basis.T).astype(np.float32), signal, dtype),
        "decoder": _decoder(up, mean.astype(np.float32), signal),
    }
    scale = np.maximum(fit.astype(np.float64).std((0, 1)), 1e-3).astype(np.float32)

    def outputs(x):
        x = np.asarray(x, np.float32)
        z = (x.reshape(len(x), size) - mean) @ basis.T
        back = (z @ basis + mean).reshape(x.shape)
        score = np.square((x - back) / scale).mean((1, 2))
        return {"latent": z, "reconstruction": back, "score": score}

    rows = fit[:: max(1, len(fit) // 16)][:16]
    found = {"input": rows.astype(dtype)}
    found |= {f"fp32.{name}": values.astype(np.float32) for name, values in outputs(rows).items()}
    key = hashlib.sha256(repr((signal, dtype)).encode() + down.tobytes() + mean.tobytes()).hexdigest()
    path.mkdir()
    entries = {
        role: _write(path / f"{role}.onnx", model(graph, {"aeedge.id": key, "aeedge.role": role}))
        for role, graph in graphs.items()
    }
    size_of = float(np.abs(found["fp32.latent"]).max())
    tolerance = {
        "latent": Tolerance(1e-3, 1e-4 * size_of),
        "reconstruction": Tolerance(1e-3, 1e-2),
        "score": Tolerance(1e-2, 1e-2),
    }
    manifest = Manifest(
        id=key,
        name="machine",
        family="dense",
        input=InputSpec((signal.window, signal.width), dtype, signal=signal),
        latent_shape=(len(basis),),
        variants={"fp32": Variant(entries["encoder"], entries["decoder"], tolerance)},
        default_variant="fp32",
        golden=_write(path / "golden.npz", _archive(found)),
        score=ScoreSpec(score, scale),
        opset=17,
        min_onnxruntime="1.12.1",
        training=MappingProxyType({"channels": "last"}),
    )
    (path / "manifest.json").write_text(manifest.dumps(), encoding="utf-8")
    if rate is not None:
        rest = windows_of(recording[half:], signal.window, signal.hop)
        add_calibration(path, outputs(rest)["score"].astype(np.float32), false_alarm_rate=rate)
    return path


def _encoder(weights, bias, signal, dtype):
    """Windows (n, window, width) to latents (n, k)."""
    cast = _node("Cast", ["x"], "f", message(5, message(1, "to") + number(3, 1) + number(20, 2)))
    flat = _node("Flatten", ["f"], "t")
    product = _node("Gemm", ["t", "w", "b"], "y")
    shapes = (_value(11, "x", (signal.window, signal.width), dtype), _value(12, "y", weights.shape[1:]))
    return cast + flat + product + _rest(weights, bias) + b"".join(shapes)


def _decoder(weights, bias, signal):
    """Latents (n, k) to windows (n, window, width)."""
    shape = np.array([-1, signal.window, signal.width], "<i8")
    target = number(1, 3) + number(2, 7) + message(8, "s") + message(9, shape.tobytes())
    product, back = _node("Gemm", ["x", "w", "b"], "t"), _node("Reshape", ["t", "s"], "y")
    shapes = (_value(11, "x", weights.shape[:1]), _value(12, "y", (signal.window, signal.width)))
    return product + back + _rest(weights, bias) + message(5, target) + b"".join(shapes)


def _node(kind, inputs, output, attributes=b""):
    return message(1, b"".join(message(1, i) for i in inputs) + message(2, output) + message(4, kind) + attributes)


def _rest(weights, bias):
    return message(2, "g") + message(5, tensor("w", weights)) + message(5, tensor("b", bias))


def _value(field, name, shape, dtype="float32"):
    sizes = message(1, message(2, "n")) + b"".join(message(1, number(1, size)) for size in shape)
    return message(field, message(1, name) + message(2, message(1, number(1, _ELEMENTS[dtype]) + message(2, sizes))))


def _archive(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write(path, data):
    path.write_bytes(data)
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))
