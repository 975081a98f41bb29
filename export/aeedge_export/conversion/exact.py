"""Rewrites of a canonical graph that onnxruntime runs faster; each computes the same.

| rewrite | for | why |
|---|---|---|
| `fold_normalization` | both | one pass over the data less a layer; usually done by torch's exporter already |
| `fold_scaler` | fp32 | Sub and Div read and write every raw value: 0.65 of the time of seed with uint8 input |
| `conv1d_as_conv2d` | both | onnxruntime has no fast Conv1d: 1.6x at batch 1, 2.4x at 1024 |
| `dense_as_convolution` | int8 | QLinearConv adds the bias while rescaling, QGemm before: 1.2x from batch 64 up |
| `folding.fold_width` | int8 | QLinearConv gathers each tap of a narrow layer by itself: 1.9x (conv), 1.25x (ts) |

Measured and not worth a rewrite: Gemm with transB=1 or 0 and MatMul + Add take the same time at any
batch (onnxruntime fuses and packs them alike), and Relu, Sigmoid, Tanh, LeakyRelu fuse into Gemm and Conv as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx.helper
from onnx import ModelProto, NodeProto

from aeedge_export.conversion.editing import Graph, attribute, copy_of, set_attribute
from aeedge_export.conversion.input_affine import input_stages

CONVOLUTIONS = ("Conv", "ConvTranspose")
ELEMENTWISE = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "HardSigmoid", "Clip")

_FAR = 64.0  # offsets this many times the scale are not folded: their products with the weights would cancel digits


def fold_normalization(model: ModelProto) -> ModelProto:
    """BatchNormalization into the Gemm, Conv or ConvTranspose before it; exact up to float32's last digits.

    Also into two of them whose sum is normalised.
    """
    graph = Graph.of(model)
    for node in [n for n in graph.nodes if n.op_type == "BatchNormalization"]:
        layers = _summands(graph, node.input[0])
        if not layers or any(not _can_be_scaled(graph, layer) for layer in layers):
            continue
        gain, shift, mean, variance = (graph.weights[name].astype(np.float64) for name in node.input[1:5])
        factor = gain / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        for layer, offset in zip(layers, (shift - mean * factor, *[0.0 * shift] * (len(layers) - 1))):
            _scale_outputs(graph, layer, factor, offset)
        graph.remove(node, node.input[0])
    return graph.model(model)


def _summands(graph: Graph, value: str) -> list[NodeProto]:
    """The layer that computes a value, or the two whose sum it is; empty if they have other consumers."""
    producer = graph.producer(value)
    if producer is None or graph.only_consumer(value) is None:
        return []
    if producer.op_type != "Add":
        return [producer]
    return [layer for name in producer.input for layer in _summands(graph, name)]


def _can_be_scaled(graph: Graph, layer: NodeProto) -> bool:
    if layer.op_type not in (*CONVOLUTIONS, "Gemm") or graph.constant(layer.input[1]) is None:
        return False
    return bool(layer.op_type != "ConvTranspose" or attribute(layer, "group", 1) == 1)


def fold_scaler(model: ModelProto) -> ModelProto:
    """The input's Sub and Div (or Add, Mul) into the first layers, where that is exact up to the last digits.

    An offset cannot pass a convolution's zero padding, nor can a large one pass without loss of digits. Not for int8:
    features of different range in one u8 value would lose the smaller ones.
    """
    graph = Graph.of(model)
    *_, last = input_stages(graph)
    layers = graph.consumers(last.value)
    names = {layer.op_type for layer in layers}
    if not layers or names - {"Gemm", "Conv"} or (last.offset.any() and names != {"Gemm"}):
        return model
    if np.abs(last.offset).max() > _FAR:
        return model
    stages = [n for n in graph.nodes if n.output[0] in {s.value for s in input_stages(graph)[1:]}]
    for layer in layers:
        weight = graph.weights[layer.input[1]].astype(np.float64)
        axis = 0 if layer.op_type == "Gemm" and not attribute(layer, "transB", 0) else 1
        factor, offset = (_channels(array, weight.shape[axis]) for array in (last.factor, last.offset))
        if factor is None or offset is None:
            return model
        if offset.any():
            extra = weight @ offset if axis == 1 else weight.T @ offset
            _set_bias(graph, layer, extra)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        _set_weight(graph, layer, weight * factor.reshape(shape))
    for node in stages:
        if node.op_type != "Cast":
            graph.remove(node, node.input[0])
    return graph.model(model)


def conv1d_as_conv2d(model: ModelProto) -> ModelProto:
    """One-dimensional convolutions as two-dimensional ones of height 1, with what is elementwise between them."""
    graph = Graph.of(model)
    wide: dict[str, str] = {}
    nodes: list[NodeProto] = []
    axis = graph.add_weight("height", np.array([2], np.int64))

    def shaped(kind: str, value: str, output: str) -> NodeProto:
        return onnx.helper.make_node(kind, [value, axis], [output], f"{kind}_{output}")

    for node in graph.nodes:
        flat = node.op_type in CONVOLUTIONS and graph.weights[node.input[1]].ndim == 3
        if flat and node.input[0] not in wide:
            wide[node.input[0]] = f"{node.input[0]}.wide"
            nodes.append(shaped("Unsqueeze", node.input[0], wide[node.input[0]]))
        if flat or (node.op_type in ELEMENTWISE and node.input[0] in wide):
            changed = _widened(graph, node) if flat else copy_of(node)
            wide[node.output[0]] = changed.output[0] = f"{node.output[0]}.wide"
            changed.input[0] = wide[node.input[0]]
            nodes.append(changed)
            continue
        made = {name for other in nodes for name in other.output}
        made.add(graph.input.name)
        nodes += [shaped("Squeeze", wide[name], name) for name in node.input if name in wide and name not in made]
        nodes.append(node)
    if graph.output.name in wide:
        nodes.append(shaped("Squeeze", wide[graph.output.name], graph.output.name))
    graph.nodes = nodes
    return graph.model(model)


def dense_as_convolution(model: ModelProto, layers: Collection[str]) -> ModelProto:
    """A run of Gemms, all but the last, as 1×1 convolutions over the rows of a batch: (n, k) as one image (1, k, n, 1).

    Every row is one pixel, so rows stay independent. The last Gemm stays, since only QGemm gives float32.
    Only runs all of whose Gemms are among `layers` are changed.
    """
    graph = Graph.of(model)
    for run in _dense_runs(graph):
        if not {node.name for node in run} <= set(layers):
            continue
        axes = graph.add_weight("axes", np.array([0, 2], np.int64))
        first, stem = run[0].input[0], run[0].name
        down = [
            onnx.helper.make_node("Unsqueeze", [first, axes], [f"{stem}.rows"], f"{stem}.unsqueeze"),
            onnx.helper.make_node("Transpose", [f"{stem}.rows"], [f"{stem}.image"], f"{stem}.in", perm=[0, 3, 1, 2]),
        ]
        end = run[-1].input[0]
        up = [
            onnx.helper.make_node("Transpose", [end], [f"{stem}.back"], f"{stem}.out", perm=[0, 2, 3, 1]),
            onnx.helper.make_node("Squeeze", [f"{stem}.back", axes], [f"{stem}.flat"], f"{stem}.squeeze"),
        ]
        for node in run[:-1]:
            weight = graph.weights[node.input[1]]
            matrix = weight if attribute(node, "transB", 0) else weight.T
            name = graph.add_weight(f"{node.name}.kernel", matrix[:, :, None, None])
            source = f"{stem}.image" if node is run[0] else node.input[0]
            inputs = [source, name, *node.input[2:]]
            conv = onnx.helper.make_node("Conv", inputs, node.output, node.name, kernel_shape=[1, 1])
            graph.nodes[graph.nodes.index(node)] = conv
        at = next(i for i, n in enumerate(graph.nodes) if n.name == run[0].name)
        graph.nodes[at:at] = down
        at = graph.nodes.index(run[-1])
        graph.nodes[at:at] = up
        run[-1].input[0] = f"{stem}.flat"
    return graph.model(model)


def _dense_runs(graph: Graph) -> list[list[NodeProto]]:
    """Runs of two or more Gemms with only Relus between them."""
    runs: list[list[NodeProto]] = []
    for node in graph.nodes:
        if node.op_type != "Gemm" or graph.constant(node.input[1]) is None:
            continue
        before = graph.producer(node.input[0])
        before = graph.producer(before.input[0]) if before is not None and before.op_type == "Relu" else None
        if (
            runs
            and before is runs[-1][-1]
            and graph.only_consumer(before.output[0])
            and graph.only_consumer(node.input[0])
        ):
            runs[-1].append(node)
        else:
            runs.append([node])
    return [run for run in runs if len(run) > 1]


def _widened(graph: Graph, node: NodeProto) -> NodeProto:
    """A Conv or ConvTranspose of signals as one of images of height 1."""
    wide = copy_of(node)
    weight = graph.weights[node.input[1]]
    wide.input[1] = graph.add_weight(f"{node.name}.kernel", weight[:, :, None, :])
    set_attribute(wide, "kernel_shape", [1, weight.shape[2]])
    for name, neutral in (("strides", 1), ("dilations", 1), ("output_padding", 0)):
        if (values := attribute(node, name)) is not None:
            set_attribute(wide, name, [neutral, *values])
    if (pads := attribute(node, "pads")) is not None:
        set_attribute(wide, "pads", [0, pads[0], 0, pads[1]])
    return wide


def _scale_outputs(graph: Graph, layer: NodeProto, factor: Any, shift: Any) -> None:
    """layer(x) * factor + shift, by output channel, as the layer itself."""
    weight = graph.weights[layer.input[1]].astype(np.float64)
    plain = layer.op_type == "Gemm" and not attribute(layer, "transB", 0)
    axis = 1 if plain or layer.op_type == "ConvTranspose" else 0
    _set_weight(graph, layer, weight * factor.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]))
    bias = graph.weights[layer.input[2]].astype(np.float64) if len(layer.input) > 2 else np.zeros(len(factor))
    _set_bias(graph, layer, bias * factor + shift - bias)


def _set_weight(graph: Graph, layer: NodeProto, weight: Any) -> None:
    layer.input[1] = graph.add_weight(f"{layer.name}.weight", weight.astype(np.float32))


def _set_bias(graph: Graph, layer: NodeProto, extra: Any) -> None:
    bias = graph.weights[layer.input[2]].astype(np.float64) + extra if len(layer.input) > 2 else extra
    name = graph.add_weight(f"{layer.name}.bias", bias.astype(np.float32))
    del layer.input[2:]
    layer.input.append(name)


def _channels(array: Any, count: int) -> Any:
    """One value an input channel; None if the array is not of that form."""
    if array.size == 1:
        return np.full(count, float(array.ravel()[0]))
    return array.ravel() if array.size == count else None
