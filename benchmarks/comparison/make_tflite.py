"""Write .tflite files of networks, fp32 and full int8, from their weights: `make_tflite.py FOLDER ...`.

Runs in a separate environment with tensorflow and this folder's networks.py alone. The int8 network has int8 input and
output, quantised with calibration samples.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent.parent))
from comparison.networks import NETWORKS, Network, shapes

keras = tf.keras


def build(net: Network, weights: dict[str, np.ndarray]) -> Any:
    """The same network in Keras, channels last."""
    sizes = shapes(net)
    x = inputs = keras.Input((*net.shape[1:], net.shape[0]) if len(net.shape) > 1 else net.shape)
    for i, (layer, before) in enumerate(zip(net.layers, sizes)):
        weight, bias = weights[f"{i}.weight"], weights[f"{i}.bias"]
        activation = "relu" if layer.relu else None
        if layer.kind == "dense":
            x = keras.layers.Flatten()(x) if len(before) > 1 else x
            made = keras.layers.Dense(layer.out, activation=activation)
            x = made(x)
            made.set_weights([channels_last(weight, before).T, bias])
        else:
            plane = len(before) == 3
            x = (keras.layers.ZeroPadding2D if plane else keras.layers.ZeroPadding1D)(layer.kernel // 2)(x)
            conv = keras.layers.Conv2D if plane else keras.layers.Conv1D
            made = conv(layer.out, layer.kernel, strides=layer.stride, activation=activation)
            x = made(x)
            made.set_weights([np.moveaxis(weight, (0, 1), (-1, -2)), bias])
    return keras.Model(inputs, x)


def beside_linear_path(weights: dict[str, np.ndarray]) -> Any:
    """A dense encoder with one hidden layer, and a linear path beside it, as `Autoencoder` exports it."""
    x = keras.Input(weights["hidden.weight"].shape[1:])
    dense = {name: keras.layers.Dense(len(weights[f"{name}.bias"])) for name in ("hidden", "latent", "path")}
    dense["hidden"].activation = keras.activations.relu
    latent = dense["latent"](dense["hidden"](x)) + dense["path"](x)
    for name, layer in dense.items():
        layer.set_weights([weights[f"{name}.weight"].T, weights[f"{name}.bias"]])
    return keras.Model(x, latent)


def channels_last(weight: np.ndarray, before: tuple[int, ...]) -> np.ndarray:
    """(out, in) weights of a dense layer behind a convolution, for input that was flattened channels last."""
    return np.moveaxis(weight.reshape(-1, *before), 1, -1).reshape(-1, prod(before))


def convert(model: Any, rows: np.ndarray | None) -> bytes:
    """fp32, or with calibration samples int8 throughout."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if rows is not None:

        def examples() -> Iterator[list[np.ndarray]]:
            for i in range(len(rows)):
                yield [rows[i : i + 1]]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    data: bytes = converter.convert()
    return data


def make(folder: Path) -> None:
    """Write fp32.tflite and int8.tflite to a workload's folder, or to one with the weights of `beside_linear_path`."""
    with np.load(folder / "weights.npz") as stored:
        weights = dict(stored)
    if "path.weight" in weights:
        model = beside_linear_path(weights)
    else:
        model = build(NETWORKS[json.loads((folder / "workload.json").read_text())["workload"]], weights)
    with np.load(folder / "rows.npz") as stored:
        rows = stored["calibration"]
    rows = np.ascontiguousarray(np.moveaxis(rows, 1, -1)) if rows.ndim > 2 else rows
    for name, calibration in (("fp32.tflite", None), ("int8.tflite", rows)):
        part = folder / f"{name}.part"
        part.write_bytes(convert(model, calibration))
        part.rename(folder / name)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        make(Path(given))
