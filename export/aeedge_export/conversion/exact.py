"""Rewrites of a canonical graph that onnxruntime runs faster; each computes the same.

| rewrite | for | why |
|---|---|---|
| `fold_normalization` | both | one pass over the data less per layer |
| `fold_scaler` | fp32 | Sub and Div read and write every raw value: 0.65 of the time of seed with uint8 input |
| `conv1d_as_conv2d` | both | onnxruntime has no fast Conv1d: 1.6x at batch 1, 2.4x at 1024 |
| `dense_as_convolution` | int8 | QLinearConv adds the bias while rescaling, QGemm before: 1.2x from batch 64 up |
| `folding.fold_width` | int8 | QLinearConv gathers each tap of a narrow layer separately: 1.9x (conv), 1.25x (ts) |

Measured and not worth a rewrite: Gemm with transB=1 or 0 and MatMul + Add take the same time at any
batch (onnxruntime fuses and packs them alike), and Relu, Sigmoid, Tanh, LeakyRelu fuse into Gemm and Conv as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from aeedge_export.conversion.editing import (
    add_weight,
    bias_of,
    bypass,
    closed,
    constant,
    node,
    only_consumer,
    opened,
    output_axis,
    per_channel,
    substitute,
    take_over,
    weight_of,
)
from aeedge_export.conversion.input_affine import input_affine

CONVOLUTIONS = ("Conv", "ConvTranspose")
ELEMENTWISE = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "HardSigmoid", "Clip")

_FAR = 64.0  # offsets this many times the scale are not folded: their products with the weights would cancel digits


def fold_normalization(model: ModelProto) -> ModelProto:
    """BatchNormalization into the Gemm, Conv or ConvTranspose before it; exact up to float32's last digits.

    Also into two of them whose sum is normalised, which onnxscript's rules, applied by torch's exporter, leave alone.
    """
    network = opened(model)
    for normalization in [n for n in network.graph if n.op_type == "BatchNormalization"]:
        layers = _summands(normalization.inputs[0])
        if not layers or any(not _can_be_scaled(layer) for layer in layers):
            continue
        numbers = [constant(value) for value in normalization.inputs[1:5]]
        gain, shift, mean, variance = (n.astype(np.float64) for n in numbers if n is not None)
        factor = gain / np.sqrt(variance + normalization.attributes.get_float("epsilon", 1e-5))
        for layer, offset in zip(layers, (shift - mean * factor, *[0.0 * shift] * (len(layers) - 1))):
            _scale_outputs(layer, factor, offset)
        bypass(normalization)
    return closed(network)


def _summands(value: ir.Value | None) -> list[ir.Node]:
    """The layer that computes a value, or the two whose sum it is; empty where other nodes read them too."""
    if value is None or (producer := value.producer()) is None or only_consumer(value) is None:
        return []
    if producer.op_type != "Add":
        return [producer]
    return [layer for summand in producer.inputs for layer in _summands(summand)]


def _can_be_scaled(layer: ir.Node) -> bool:
    if layer.op_type not in (*CONVOLUTIONS, "Gemm") or not weight_of(layer).size:
        return False
    return bool(layer.op_type != "ConvTranspose" or layer.attributes.get_int("group", 1) == 1)


def fold_scaler(model: ModelProto) -> ModelProto:
    """The input's Sub and Div (or Add, Mul) into the first layers, where that is exact up to the last digits.

    An offset cannot pass a convolution's zero padding, nor can a large one pass without loss of digits. Not for int8:
    features of different range in one u8 value would lose the smaller ones.
    """
    network = opened(model)
    stages = input_affine(network.graph)
    last = stages[-1]
    layers = last.value.consumers()
    names = {layer.op_type for layer in layers}
    if not layers or names - {"Gemm", "Conv"} or (last.offset.any() and names != {"Gemm"}):
        return model
    if np.abs(last.offset).max() > _FAR:
        return model
    for layer in layers:
        weight = weight_of(layer).astype(np.float64)
        axis = 1 - output_axis(layer)
        factor, offset = (_channels(array, weight.shape[axis], weight.ndim) for array in (last.factor, last.offset))
        if factor is None or offset is None:
            return model
        if offset.any():
            _set_bias(layer, weight @ offset if axis == 1 else weight.T @ offset)
        _set_weight(layer, weight * per_channel(factor, axis, weight.ndim))
    for stage in stages[1:]:
        producer = stage.value.producer()
        if producer is not None and producer.op_type != "Cast":
            bypass(producer)
    return closed(network)


def conv1d_as_conv2d(model: ModelProto) -> ModelProto:
    """One-dimensional convolutions as two-dimensional ones of height 1, with the elementwise nodes between them.

    A Squeeze follows each changed node, and remains where an unchanged node reads it; one that flattens needs none.
    """
    network = opened(model)
    graph = network.graph
    axis = add_weight(graph, "height", np.array([2], np.int64))
    images: dict[ir.Value, ir.Value] = {}
    for layer in list(graph):
        signal = layer.inputs[0] if layer.inputs else None
        convolution = layer.op_type in CONVOLUTIONS and weight_of(layer).ndim == 3
        if signal is None or not (convolution or (layer.op_type in ELEMENTWISE and signal in images)):
            continue
        if signal not in images:
            unsqueeze = node("Unsqueeze", [signal, axis], f"{signal.name}.wide", f"Unsqueeze_{signal.name}.wide")
            graph.insert_before(layer, unsqueeze)
            images[signal] = unsqueeze.outputs[0]
        if convolution:
            _widen(layer)
        image, name = layer.outputs[0], layer.outputs[0].name
        squeeze = node("Squeeze", [None, axis], str(name), f"Squeeze_{name}")
        take_over(squeeze.outputs[0], image)
        image.name, image.shape = f"{name}.wide", None
        squeeze.replace_input_with(0, image)
        layer.replace_input_with(0, images[signal])
        graph.insert_after(layer, squeeze)
        images[squeeze.outputs[0]] = image
        for flat in squeeze.outputs[0].consumers():
            if _flattens(flat):
                flat.replace_input_with(0, image)
    return closed(network)


def _flattens(layer: ir.Node) -> bool:
    """Whether a node makes rows of whatever shape flat: (n, ...) to (n, k)."""
    if layer.op_type == "Flatten":
        return bool(layer.attributes.get_int("axis", 1) == 1)
    target = constant(layer.inputs[1]) if layer.op_type == "Reshape" else None
    return target is not None and len(target) == 2 and target[1] != 0


def dense_as_convolution(model: ModelProto, layers: Collection[str]) -> ModelProto:
    """A run of Gemms, all but the last, as 1×1 convolutions over the rows of a batch: (n, k) as one image (1, k, n, 1).

    Every row is one pixel, so rows stay independent. The last Gemm stays, since only QGemm gives float32.
    Only runs all of whose Gemms are among `layers` are changed.
    """
    network = opened(model)
    graph = network.graph
    for run in _dense_runs(graph):
        if not {layer.name for layer in run} <= set(layers):
            continue
        axes, stem = add_weight(graph, "axes", np.array([0, 2], np.int64)), run[0].name
        down = node("Unsqueeze", [run[0].inputs[0], axes], f"{stem}.rows", f"{stem}.unsqueeze")
        image = node("Transpose", down.outputs, f"{stem}.image", f"{stem}.in", perm=[0, 3, 1, 2])
        back = node("Transpose", [run[-1].inputs[0]], f"{stem}.back", f"{stem}.out", perm=[0, 2, 3, 1])
        up = node("Squeeze", [back.outputs[0], axes], f"{stem}.flat", f"{stem}.squeeze")
        graph.insert_before(run[0], [down, image])
        graph.insert_before(run[-1], [back, up])
        run[0].replace_input_with(0, image.outputs[0])
        run[-1].replace_input_with(0, up.outputs[0])
        for layer in run[:-1]:
            weight = weight_of(layer)
            kernel = weight if output_axis(layer) == 0 else weight.T
            inputs = [layer.inputs[0], add_weight(graph, f"{layer.name}.kernel", kernel[:, :, None, None])]
            inputs += layer.inputs[2:]
            substitute([layer], [node("Conv", inputs, "", str(layer.name), kernel_shape=[1, 1])])
    return closed(network)


def _dense_runs(graph: ir.Graph) -> list[list[ir.Node]]:
    """Runs of two or more Gemms with only Relus between them."""
    runs: list[list[ir.Node]] = []
    for layer in graph:
        if layer.op_type != "Gemm" or not weight_of(layer).size:
            continue
        source = layer.inputs[0]
        assert source is not None
        relu = source.producer()
        before = relu.inputs[0] if relu is not None and relu.op_type == "Relu" else None
        follows = before is not None and runs and before.producer() is runs[-1][-1]
        if before is not None and follows and only_consumer(before) and only_consumer(source):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [run for run in runs if len(run) > 1]


def _widen(layer: ir.Node) -> None:
    """Turn a Conv or ConvTranspose of signals into one of images of height 1."""
    weight, attributes = weight_of(layer), layer.attributes
    assert layer.graph is not None
    layer.replace_input_with(1, add_weight(layer.graph, f"{layer.name}.kernel", weight[:, :, None, :]))
    attributes.add(ir.AttrInt64s("kernel_shape", [1, weight.shape[2]]))
    for name, neutral in (("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if (values := attributes.get_ints(name)) is not None:
            attributes.add(ir.AttrInt64s(name, [neutral, *values]))
    if (pads := attributes.get_ints("pads")) is not None:
        attributes.add(ir.AttrInt64s("pads", [0, pads[0], 0, pads[1]]))


def _scale_outputs(layer: ir.Node, factor: Any, shift: Any) -> None:
    """Change a layer to layer(x) * factor + shift, by output channel."""
    weight, bias = weight_of(layer).astype(np.float64), bias_of(layer)
    _set_weight(layer, weight * per_channel(factor, output_axis(layer), weight.ndim))
    bias = np.zeros(len(factor)) if bias is None else bias.astype(np.float64)
    _set_bias(layer, bias * factor + shift - bias)


def _set_weight(layer: ir.Node, weight: Any) -> None:
    assert layer.graph is not None
    layer.replace_input_with(1, add_weight(layer.graph, f"{layer.name}.weight", weight.astype(weight_of(layer).dtype)))


def _set_bias(layer: ir.Node, extra: Any) -> None:
    assert layer.graph is not None
    bias = bias_of(layer)
    total = extra if bias is None else bias.astype(np.float64) + extra
    layer.resize_inputs(3)
    layer.replace_input_with(2, add_weight(layer.graph, f"{layer.name}.bias", total.astype(weight_of(layer).dtype)))


def _channels(array: Any, count: int, rank: int) -> Any:
    """One value per input channel of a layer whose input has `rank` axes; None if the array is not of that form."""
    if array.size == 1:
        return np.full(count, float(array.ravel()[0]))
    aligned = (*[1] * (rank - array.ndim), *array.shape)
    return array.ravel() if aligned == (1, count, *[1] * (rank - 2)) else None
