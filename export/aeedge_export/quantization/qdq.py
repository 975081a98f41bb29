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

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto

from aeedge_export.conversion.editing import add_weight, bias_of, closed, only_consumer, opened, output_axis, weight_of
from aeedge_export.conversion.input_affine import input_affine, one_value
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
    layers = [n for n in opened(model).graph if n.op_type in INTEGER_LAYERS]
    return [str(n.name) for n in layers if weight_of(n).size and weight_of(n).dtype == np.float32]


def quantize(
    model: ModelProto,
    ranges: Mapping[str, Range],
    layers: Collection[str],
    *,
    biases: Mapping[str, Floats] | None = None,
    safe: bool = True,
) -> ModelProto:
    """The QDQ form of a model.

    Args:
        model: float graph with one input; nodes have names.
        ranges: least and largest of every value, by name.
        layers: names of the layers to run on integers; all others stay as they are.
        biases: by layer name, instead of the model's own (bias correction).
        safe: choose weights whose sums cannot saturate on x86 without VNNI.
    """
    return _Writer(opened(model), opened(model), ranges, frozenset(layers), biases or {}, safe).write()


@dataclass
class _Writer:
    """Writes the nodes of `source` anew into `target`, integer layers with their quantised operands.

    `values` are those of `target` by name; `codes` are the values of `source` that have bytes; `made` are the names
    whose values a DequantizeLinear gives.
    """

    source: ir.Model
    target: ir.Model
    ranges: Mapping[str, Range]
    layers: frozenset[str]
    biases: Mapping[str, Floats]
    safe: bool
    values: dict[str, ir.Value] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)

    def write(self) -> ModelProto:
        graph = self.target.graph
        graph.remove(list(graph))
        self.values = {str(value.name): value for value in [*graph.inputs, *graph.initializers.values()]}
        self._enter()
        for node in self.source.graph:
            if node.name in self.layers:
                self._layer(node)
            elif node.outputs[0].name not in self.made:
                self._float(node)
        end, written = graph.outputs[0], self.values[str(graph.outputs[0].name)]
        graph.outputs[0], written.type, written.shape = written, end.type, end.shape
        graph.sort()
        return closed(self.target)

    def _enter(self) -> None:
        """Bytes for the input of the first layers, taken as early as possible between raw input and those layers.

        What follows is value = factor * earlier + offset, which only changes what the bytes mean.
        """
        raw = self.source.graph.inputs[0]
        *earlier, last = input_affine(self.source.graph)
        for stage in earlier:
            factor = one_value(last.factor / stage.factor)
            if factor is None or factor <= 0 or (stage.value is raw and raw.dtype == ir.DataType.INT16):
                continue
            offset, name = last.offset - factor * stage.offset, str(stage.value.name)
            if stage.value is raw and raw.dtype == ir.DataType.UINT8:
                code, scale, zero = name, 1.0, 0
            else:
                reach = np.array(self.ranges[str(last.value.name)])
                low, high = float((reach[0] - offset.min()) / factor), float((reach[1] - offset.max()) / factor)
                if not fits_zero(low, high):
                    continue
                coarse = Affine.of(low, high)
                code, scale, zero = self._quantize(name, name, coarse), float(coarse.scale), coarse.zero
            affine, shift = centred(factor * scale, offset - factor * scale * zero)
            if self._bears(affine, shift):
                row = [] if one_value(shift) is not None else [int(size) for size in raw.shape[1:]]
                self.codes[str(last.value.name)] = Code(code, affine, np.broadcast_to(shift, row or shift.shape))
                return

    def _bears(self, affine: Affine, shift: NDArray[np.float64]) -> bool:
        """Whether layers can take a shift into their biases; with a convolution's padding only up to half a step."""
        if any(node.op_type == "Conv" and node.name in self.layers for node in self.source.graph):
            return one_value(shift) is not None and bool((np.abs(shift) <= 0.5001 * affine.scale).all())
        return True

    def _layer(self, layer: ir.Node) -> None:
        """The layer between its dequantised operands. One DequantizeLinear per consumer: onnxruntime 1.12 needs it."""
        name, axis = str(layer.name), output_axis(layer)
        code = self._code(_input(layer))
        float_weight = weight_of(layer)
        weight, scale = quantized_weight(float_weight, axis, safe=self.safe)
        bias = self.biases.get(name, bias_of(layer))
        exact = np.zeros(1) if bias is None else bias.astype(np.float64)
        step = code.affine.scale * scale
        steps = np.rint((exact + sums(float_weight, axis, code.shift)) / step)
        operands = [
            self._dequantize(f"{name}.x", code.name, code.affine.scale, np.uint8(code.affine.zero)),
            self._constant(f"{name}.w", weight, scale, axis),
            self._constant(f"{name}.b", np.clip(steps, 1 - 2.0**31, 2.0**31 - 1).astype(np.int32), step, 0),
        ]
        result = layer.outputs[0]
        if layer.op_type != "Conv":
            self._copy(layer, operands, str(result.name))
            return
        # An integer convolution has no float result: quantise it, and dequantise it for float consumers.
        relu = only_consumer(result)
        clipped = relu is not None and relu.op_type == "Relu"
        value = relu.outputs[0] if relu is not None and clipped else result
        end = str(result.name) if clipped else f"{result.name}.exact"
        self._copy(layer, operands, end)
        code = self._code(value, end)
        self._dequantize(str(value.name), code.name, code.affine.scale, np.uint8(code.affine.zero), str(value.name))
        self.made.add(str(value.name))

    def _float(self, node: ir.Node) -> None:
        """A node as it is; but onnxruntime 1.32 leaves a Gemm float that a ReLU follows, and no quantisation."""
        producer = None if node.op_type != "Relu" else _input(node).producer()
        if producer is not None and producer.name in self.layers:
            self._max(node, str(node.outputs[0].name))
        else:
            self._copy(node, [None if value is None else str(value.name) for value in node.inputs])

    def _code(self, value: ir.Value, source: str | None = None) -> Code:
        """The bytes of a float value (which `source`, already written, computes); a value is quantised once."""
        name, producer = str(value.name), value.producer()
        if name in self.codes:
            return self.codes[name]
        if producer is not None and producer.op_type in MOVES and only_consumer(value) is not None:
            code = self._code(_input(producer))
            one = one_value(code.shift) is not None
            if one or producer.op_type != "Transpose":  # the others keep the order of a row's values
                others = [None if other is None else str(other.name) for other in producer.inputs[1:]]
                moved = self._copy(producer, [code.name, *others], f"{name}.u8", f"{producer.name}.u8")
                self.codes[name] = Code(moved, code.affine, code.shift if one else code.shift.reshape(1, -1))
                return self.codes[name]
        low, high = self.ranges[name]
        if producer is not None and producer.op_type == "Relu":
            source, low = self._clipped_later(producer), 0.0
        affine = Affine.of(low, high)
        self.codes[name] = Code(self._quantize(name, source or name, affine), affine, np.zeros(1))
        return self.codes[name]

    def _clipped_later(self, relu: ir.Node) -> str:
        """The input of a ReLU, for a quantisation that clips at 0 itself.

        onnxruntime 1.32 quantises a float Conv between two quantised values unasked, with one scale for all
        channels; a Max in between keeps it float.
        """
        layer = _input(relu).producer()
        integer = layer is None or layer.op_type != "Conv" or layer.name in self.layers
        if layer is None or integer or _input(layer).name not in self.made:
            return str(_input(relu).name)
        return self._max(relu, f"{relu.outputs[0].name}.max")

    def _max(self, relu: ir.Node, output: str) -> str:
        zero = self._weight("zero", np.zeros((), np.float32))
        return self._op("Max", [str(_input(relu).name), zero], output, f"{relu.name}.max")

    def _quantize(self, stem: str, source: str, affine: Affine) -> str:
        inputs = [source, *self._numbers(stem, affine.scale, np.uint8(affine.zero))]
        return self._op("QuantizeLinear", inputs, f"{stem}.u8", f"{stem}.quantize")

    def _constant(self, stem: str, values: NDArray[np.integer[Any]], scale: Floats, axis: int) -> str:
        zeros = np.zeros(len(scale), values.dtype)
        return self._dequantize(stem, self._weight(f"{stem}.steps", values), scale, zeros, axis=axis)

    def _dequantize(
        self, stem: str, code: str, scale: Any, zero: Any, output: str | None = None, axis: int | None = None
    ) -> str:
        extra = {} if axis is None else {"axis": axis}
        inputs = [code, *self._numbers(stem, scale, zero)]
        return self._op("DequantizeLinear", inputs, output or f"{stem}.value", f"{stem}.dequantize", extra)

    def _numbers(self, stem: str, scale: Any, zero: Any) -> list[str]:
        scale, zero = np.asarray(scale, np.float32), np.asarray(zero)
        return [self._weight(f"{stem}.scale", scale), self._weight(f"{stem}.zero", zero)]

    def _weight(self, stem: str, array: NDArray[Any]) -> str:
        value = add_weight(self.target.graph, stem, array)
        self.values[str(value.name)] = value
        return str(value.name)

    def _copy(
        self, node: ir.Node, inputs: Sequence[str | None], output: str | None = None, name: str | None = None
    ) -> str:
        outputs = [output] if output else [str(value.name) for value in node.outputs]
        return self._op(node.op_type, inputs, outputs, name or str(node.name), node.attributes)

    def _op(
        self, kind: str, inputs: Sequence[str | None], outputs: str | Sequence[str], name: str, attributes: Any = None
    ) -> str:
        """Append a node to the target; the name of its first output."""
        outputs = [outputs] if isinstance(outputs, str) else outputs
        read = [None if value is None else self._value(value) for value in inputs]
        made = [self._value(output) for output in outputs]
        self.target.graph.append(ir.node(kind, read, attributes, outputs=made, name=name))
        return outputs[0]

    def _value(self, name: str) -> ir.Value:
        """A value of the target, which may be read before the node that computes it is written."""
        return self.values.setdefault(name, ir.Value(name=name))


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
