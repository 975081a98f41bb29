"""Convolutions of few channels, for integers: neighbours in a line become channels.

QLinearConv gathers the patch of every pixel tap by tap, a byte each where there is one channel: 4.6 ms of conv's 6.8 at
batch 1024. With four neighbours as channels it gathers four bytes at once, for a quarter of the places, and computes
their pixels together. In memory nothing moves: channels last, a line of 28 pixels is a line of 7 groups of 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.helper
from onnx import ModelProto

from aeedge_export.conversion.editing import Graph, attribute, shapes

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
    graph = Graph.of(model)
    conv = next(n for n in graph.nodes if n.name == layer)
    weight = graph.weights[conv.input[1]]
    step = attribute(conv, "strides", [1, 1])
    top, left, bottom, _ = attribute(conv, "pads", [0] * 4)
    kernel, before, after = _banded(weight, step[1], left, group)
    relu = graph.only_consumer(conv.output[0])
    plain = attribute(conv, "dilations", [1, 1]) == [1, 1] and attribute(conv, "group", 1) == 1
    if relu is None or relu.op_type != "Relu" or not plain or group % step[1]:
        raise ValueError(f"{layer}: expected a plain Conv and its Relu")
    outputs, inputs = weight.shape[:2]
    inferred = shapes(model)
    sizes = inferred[conv.input[0]][2:], inferred[relu.output[0]][2:]
    lines = [
        graph.add_weight(f"{layer}.lines", np.array(line, np.int64))
        for line in _line_shapes(*sizes, group, inputs, outputs)
    ]
    weights = [
        graph.add_weight(f"{layer}.band", kernel),
        graph.add_weight(f"{layer}.biases", np.tile(graph.weights[conv.input[2]], group // step[1])),
    ]
    form = {"kernel_shape": kernel.shape[2:], "strides": [step[0], 1], "pads": [top, before, bottom, after]}
    make, first = onnx.helper.make_node, conv.input[0]
    new = []
    if inputs > 1:  # of one channel, a line of pixels is a line of groups as it is
        first = f"{layer}.a"
        new.append(make("Transpose", [conv.input[0]], [first], f"{layer}.last", perm=_LAST))
    new += [
        make("Reshape", [first, lines[0]], [f"{layer}.b"], f"{layer}.fold"),
        make("Transpose", [f"{layer}.b"], [f"{layer}.c"], f"{layer}.first", perm=_FIRST),
        make("Conv", [f"{layer}.c", *weights], [f"{layer}.d"], layer, **form),
        make("Relu", [f"{layer}.d"], [f"{layer}.e"], relu.name),
        make("Transpose", [f"{layer}.e"], [f"{layer}.f"], f"{layer}.back", perm=_LAST),
        make("Reshape", [f"{layer}.f", lines[1]], [f"{layer}.g"], f"{layer}.unfold"),
        make("Transpose", [f"{layer}.g"], list(relu.output), f"{layer}.front", perm=_FIRST),
    ]
    at = graph.nodes.index(conv)
    graph.nodes.remove(relu)
    graph.nodes[at : at + 1] = new
    return graph.model(model)


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


def _line_shapes(
    size_in: tuple[int, int], size_out: tuple[int, int], group: int, channels: int, outputs: int
) -> list[list[int]]:
    """Channels-last shapes of what the folded convolution reads, and of what comes out of it."""
    if size_in[1] % group or size_in[1] % size_out[1]:
        raise ValueError(f"expected a width that {group} divides, and all of it used, got {size_in[1]}")
    return [[-1, size_in[0], size_in[1] // group, group * channels], [-1, *size_out, outputs]]
