"""Convolutions of few channels, for integers: neighbours in a line become channels.

QLinearConv gathers the patch of every pixel tap by tap, a byte each where there is one channel: 4.6 ms of conv's 6.8 at
batch 1024. With four neighbours as channels it gathers four bytes at once, for a quarter of the places, and computes
their pixels together. In memory nothing moves: channels last, a line of 28 pixels is a line of 7 groups of 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from aeedge_export.conversion.editing import (
    add_weight,
    bias_of,
    closed,
    constant,
    node,
    only_consumer,
    opened,
    substitute,
    weight_of,
)

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def fold_width(model: ModelProto, layer: str, group: int) -> ModelProto:
    """A convolution of few channels as one of `group` times as many: neighbours in a line become channels.

    The weights become banded, mostly zeros; the products that count are the same.

    Args:
        layer: name of a Conv of stride s and one group whose output is W / s wide, followed by a Relu.
        group: how many neighbours; divides the width, a multiple of s. 4 is fastest: onnxruntime then gathers 32
            bits at a time (measured with 1 and 3 channels).

    Raises:
        ValueError: the layer does not have that form.
    """
    network = opened(model, shapes=True)
    conv = next(n for n in network.graph if n.name == layer)
    weight, bias, attributes = weight_of(conv), bias_of(conv), conv.attributes
    step = attributes.get_ints("strides", [1, 1])
    top, left, bottom, _ = attributes.get_ints("pads", [0] * 4)
    kernel, before, after = _banded(weight, step[1], left, group)
    relu = only_consumer(conv.outputs[0])
    plain = set(attributes.get_ints("dilations", [1])) == {1} and attributes.get_int("group", 1) == 1
    if relu is None or relu.op_type != "Relu" or not plain or group % step[1] or bias is None:
        raise ValueError(f"{layer}: expected a plain Conv and its Relu")
    outputs, inputs = weight.shape[:2]
    pixels, *_ = conv.inputs
    lines = _line_shapes(_size(pixels), _size(conv.outputs[0]), group, inputs, outputs)
    shapes = [add_weight(network.graph, f"{layer}.lines", np.array(line, np.int64)) for line in lines]
    weights = [
        add_weight(network.graph, f"{layer}.band", kernel),
        add_weight(network.graph, f"{layer}.biases", np.tile(bias, group // step[1])),
    ]
    line = _line(pixels)
    form = {"kernel_shape": kernel.shape[2:], "pads": [top, before, bottom, after], "strides": [step[0], 1]}
    new: list[ir.Node] = []

    def then(kind: str, end: str, name: str, *more: ir.Value, **attributes: Any) -> None:
        source = new[-1].outputs[0] if new else line or pixels
        new.append(node(kind, [source, *more], f"{layer}.{end}", name, **attributes))

    if inputs > 1:  # of one channel, a line of pixels is a line of groups as it is
        then("Transpose", "a", f"{layer}.last", perm=_LAST if line is None else [0, 2, 1])
    then("Reshape", "b", f"{layer}.fold", shapes[0])
    then("Transpose", "c", f"{layer}.first", perm=_FIRST)
    then("Conv", "d", layer, *weights, **form)
    then("Relu", "e", str(relu.name))
    then("Transpose", "f", f"{layer}.back", perm=_LAST)
    then("Reshape", "g", f"{layer}.unfold", shapes[1])
    then("Transpose", "h", f"{layer}.front", perm=_FIRST)
    substitute([conv, relu], new)
    return closed(network)


def _banded(weight: Any, step: int, left: int, group: int) -> tuple[Any, int, int]:
    """Kernel (group/step * out, group * in, kh, columns) of the folded convolution, and its padding left and right."""
    outputs, inputs, height, width = weight.shape
    pixels = group // step
    before = -(-left // group)
    after = max(0, -(-((pixels - 1) * step - left + width - group) // group))
    kernel = np.zeros((pixels, outputs, group, inputs, height, before + 1 + after), np.float32)
    for pixel in range(pixels):
        for tap in range(width):
            at = pixel * step - left + tap
            kernel[pixel, :, at % group, :, :, before + at // group] = weight[:, :, :, tap].transpose(0, 1, 2)
    return kernel.reshape(pixels * outputs, group * inputs, height, -1), before, after


def _line(pixels: ir.Value | None) -> ir.Value | None:
    """The signal (n, channels, samples) that an image of height 1 was made of, whose operator is then not needed."""
    wide = None if pixels is None else pixels.producer()
    axes = None if wide is None or wide.op_type != "Unsqueeze" else constant(wide.inputs[1])
    return wide.inputs[0] if wide is not None and axes is not None and axes.tolist() == [2] else None


def _line_shapes(
    size_in: tuple[int, int], size_out: tuple[int, int], group: int, channels: int, outputs: int
) -> list[list[int]]:
    """Channels-last shapes of what the folded convolution reads, and of what comes out of it."""
    if size_in[1] % group or size_in[1] % size_out[1]:
        raise ValueError(f"expected a width that {group} divides, and all of it used, got {size_in[1]}")
    return [[-1, size_in[0], size_in[1] // group, group * channels], [-1, *size_out, outputs]]


def _size(value: ir.Value | None) -> tuple[int, int]:
    """Height and width of a value (n, channels, height, width)."""
    assert value is not None
    assert value.shape is not None
    return int(value.shape[2]), int(value.shape[3])
