"""A float graph and the ranges of its values, to the same graph in QDQ form, which onnxruntime runs on integers.

Standard ONNX (opset 13 or later): u8 activations, s8 symmetric weights with a scale per output channel, int32 biases.
Chosen by measurement (docs/decisions/0009-int8.md):

- Only what an integer layer reads is quantised. A Gemm that none follows keeps its result in float32: onnxruntime's
  QGemm scales its int32 sums itself, so latents and reconstructions are not rounded to 256 steps.
- A ReLU ahead of a quantisation is dropped: zero point 0 clips at 0 by itself.
- Reshapes and the like work on bytes, so they follow the quantisation.
- Raw bytes with one scale are a quantised value already, and float rows with one scale are quantised as they come.

Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Nagel et al. 2021, https://arxiv.org/abs/2106.08295.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.helper
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from aeedge_export.conversion.editing import Graph, attribute, copy_of
from aeedge_export.conversion.input_affine import input_stages, is_bytes, is_int16, one_value
from aeedge_export.quantization.affine import Affine, Floats, centred, fits_zero, quantized_weight, sums

INTEGER_LAYERS = ("Gemm", "Conv")
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")  # the same values, elsewhere

Range = tuple[float, float]


@dataclass(frozen=True)
class Code:
    """A quantised value: its name, and value = affine(bytes) + shift; `shift` broadcasts to a row."""

    name: str
    affine: Affine
    shift: NDArray[np.float64]


def layers_of(model: ModelProto) -> list[str]:
    """Names of the layers that onnxruntime can run on integers, in order."""
    graph = Graph.of(model)
    return [n.name for n in graph.nodes if n.op_type in INTEGER_LAYERS and graph.constant(n.input[1]) is not None]


def quantize(
    model: ModelProto,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    *,
    biases: Mapping[str, Floats] | None = None,
    weights: Mapping[str, Floats] | None = None,
    safe: bool = True,
) -> ModelProto:
    """The QDQ form of a model.

    Args:
        model: float graph with one input; nodes have names.
        ranges: least and largest of every value, by name.
        layers: names of the layers to run on integers; all others stay as they are.
        biases, weights: by layer name, instead of the model's own (bias correction, better rounding).
        safe: choose weights whose sums cannot saturate on x86 without VNNI.
    """
    writer = _Writer(Graph.of(model), ranges, frozenset(layers), biases or {}, weights or {}, safe)
    return writer.write(model)


@dataclass
class _Writer:
    """Copies nodes in order, integer layers with their quantised operands; `codes` are the quantised values."""

    graph: Graph
    ranges: Mapping[str, Range]
    layers: frozenset[str]
    biases: Mapping[str, Floats]
    weights: Mapping[str, Floats]
    safe: bool
    nodes: list[NodeProto] = field(default_factory=list)
    codes: dict[str, Code] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)

    def write(self, like: ModelProto) -> ModelProto:
        self._enter()
        for node in self.graph.nodes:
            if node.name in self.layers:
                self._layer(node)
            elif node.output[0] not in self.made:
                self.nodes.append(self._float(node))
        self.graph.nodes = list({node.output[0]: node for node in self.nodes}.values())  # a Max replaces its ReLU
        return self.graph.model(like)

    def _enter(self) -> None:
        """Quantise the input of the first layers, as early as possible between raw input and there.

        The remaining stages are value = factor * earlier + offset, which only changes the affine.
        """
        *earlier, last = input_stages(self.graph)
        for stage in earlier:
            factor = one_value(last.factor / stage.factor)
            if factor is None or factor <= 0 or (stage.value == self.graph.input.name and is_int16(self.graph)):
                continue
            offset = last.offset - factor * stage.offset
            if stage.value == self.graph.input.name and is_bytes(self.graph):
                code, scale, zero = stage.value, 1.0, 0
            else:
                low, high = ((np.array(self.ranges[last.value]) - one) / factor for one in (offset.min(), offset.max()))
                low, high = float(low[0]), float(high[1])
                if not fits_zero(low, high):
                    continue
                raw = Affine.of(low, high)
                code, scale, zero = self._quantize(stage.value, stage.value, raw), float(raw.scale), raw.zero
            affine, shift = centred(factor * scale, offset - factor * scale * zero)
            if self._can_shift(affine, shift):
                self.codes[last.value] = Code(code, affine, shift)
                return

    def _can_shift(self, affine: Affine, shift: NDArray[np.float64]) -> bool:
        """Whether layers can add a shift to their biases; with a convolution's padding only up to half a step."""
        if any(node.op_type == "Conv" and node.name in self.layers for node in self.graph.nodes):
            return one_value(shift) is not None and bool((np.abs(shift) <= 0.5001 * affine.scale).all())
        return True

    def _layer(self, node: NodeProto) -> None:
        """The layer between its dequantised operands. One DequantizeLinear per consumer: onnxruntime 1.12 needs it."""
        code = self._code(node.input[0])
        axis = 1 if node.op_type == "Gemm" and not attribute(node, "transB", 0) else 0
        float_weight = self.weights.get(node.name, self.graph.weights[node.input[1]])
        weight, scale = quantized_weight(float_weight, axis, safe=self.safe)
        bias = self._bias(node) + sums(float_weight, axis, code.shift)
        step = code.affine.scale * scale
        steps = np.clip(np.rint(bias / step), 1 - 2.0**31, 2.0**31 - 1).astype(np.int32)
        plain = copy_of(node)
        del plain.input[:]
        plain.input.extend(
            [
                self._dequantize(f"{node.name}.x", code.name, code.affine.scale, np.uint8(code.affine.zero)),
                self._constant(f"{node.name}.w", weight, scale, axis),
                self._constant(f"{node.name}.b", steps, step, 0),
            ]
        )
        self.nodes.append(plain)
        if node.op_type == "Conv":
            self._close(plain)

    def _bias(self, node: NodeProto) -> NDArray[np.float64]:
        if node.name in self.biases:
            return self.biases[node.name].astype(np.float64)
        if len(node.input) > 2:
            return self.graph.weights[node.input[2]].astype(np.float64)
        return np.zeros(1)

    def _close(self, conv: NodeProto) -> None:
        """Quantise the output of an integer convolution, which has no float result, and dequantise it for others."""
        value = conv.output[0]
        consumer = self.graph.only_consumer(value)
        if consumer is not None and consumer.op_type == "Relu":
            value = consumer.output[0]
        else:
            conv.output[0] = f"{value}.exact"
        code = self._code(value, conv.output[0])
        self._dequantize(value, code.name, code.affine.scale, np.uint8(code.affine.zero), value)
        self.made.add(value)

    def _float(self, node: NodeProto) -> NodeProto:
        """A node unchanged; but onnxruntime 1.32 leaves a Gemm float that a ReLU follows, and no quantisation."""
        producer = self.graph.producer(node.input[0])
        if node.op_type == "Relu" and producer is not None and producer.name in self.layers:
            return self._max(node)
        return copy_of(node)

    def _code(self, value: str, source: str | None = None) -> Code:
        """The bytes of a float value (so far computed as `source`); a value is quantised once."""
        if value in self.codes:
            return self.codes[value]
        producer = self.graph.producer(value)
        if producer is not None and producer.op_type in MOVES and self.graph.only_consumer(value) is not None:
            code = self._code(producer.input[0])
            moved = copy_of(producer)
            moved.name, moved.input[0], moved.output[0] = f"{producer.name}.u8", code.name, f"{value}.u8"
            self.nodes.append(moved)
            shift = code.shift if one_value(code.shift) is not None else code.shift.reshape(1, -1)
            self.codes[value] = Code(moved.output[0], code.affine, shift)
            return self.codes[value]
        low, high = self.ranges[value]
        if producer is not None and producer.op_type == "Relu":
            source, low = self._clipped_later(producer), 0.0
        affine = Affine.of(low, high)
        self.codes[value] = Code(self._quantize(value, source or value, affine), affine, np.zeros(1))
        return self.codes[value]

    def _clipped_later(self, relu: NodeProto) -> str:
        """The input of a ReLU, for a quantisation that clips at 0 itself.

        onnxruntime 1.32 quantises a float Conv between two quantised values by itself, with one scale for all
        channels; a Max in between keeps it float.
        """
        layer = self.graph.producer(relu.input[0])
        if layer is None or layer.op_type != "Conv" or layer.name in self.layers or layer.input[0] not in self.made:
            return str(relu.input[0])
        self.nodes.append(self._max(relu))
        return str(relu.output[0])

    def _max(self, relu: NodeProto) -> NodeProto:
        zero = self.graph.add_weight("zero", np.zeros((), np.float32))
        return onnx.helper.make_node("Max", [relu.input[0], zero], relu.output, relu.name)

    def _quantize(self, stem: str, source: str, affine: Affine) -> str:
        inputs = [source, *self._numbers(stem, affine.scale, np.uint8(affine.zero))]
        self.nodes.append(onnx.helper.make_node("QuantizeLinear", inputs, [f"{stem}.u8"], f"{stem}.quantize"))
        return f"{stem}.u8"

    def _constant(self, stem: str, values: NDArray[np.integer[Any]], scale: Floats, axis: int) -> str:
        zeros = np.zeros(len(scale), values.dtype)
        return self._dequantize(stem, self.graph.add_weight(f"{stem}.steps", values), scale, zeros, axis=axis)

    def _dequantize(
        self, stem: str, code: str, scale: Any, zero: Any, output: str | None = None, axis: int | None = None
    ) -> str:
        output = output or f"{stem}.value"
        extra: dict[str, Any] = {} if axis is None else {"axis": axis}
        inputs = [code, *self._numbers(stem, scale, zero)]
        self.nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [output], f"{stem}.dequantize", **extra))
        return output

    def _numbers(self, stem: str, scale: Any, zero: Any) -> list[str]:
        scale, zero = np.asarray(scale, np.float32), np.asarray(zero)
        return [self.graph.add_weight(f"{stem}.scale", scale), self.graph.add_weight(f"{stem}.zero", zero)]
