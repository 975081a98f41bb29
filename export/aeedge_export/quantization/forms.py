"""Rewrites ahead of quantisation to the form that integer operators run fastest; the outputs stay the same."""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto

from aeedge_export.conversion.editing import Graph, attribute, shapes
from aeedge_export.conversion.exact import conv1d_as_conv2d, dense_as_convolution, fold_normalization
from aeedge_export.conversion.folding import fold_width

_GROUP = 4  # neighbours that become channels: onnxruntime then gathers 32 bits at a time
_NARROW = 4  # input channels at most


def prepared(model: ModelProto) -> ModelProto:
    """The rewrites that all forms share. The scaler is not folded: features of small range would be lost in a byte."""
    return conv1d_as_conv2d(fold_normalization(model))


def formed(model: ModelProto, form: str, layers: Collection[str]) -> ModelProto:
    """A prepared graph, rewritten for speed where `layers` run on integers ("engine"), or unchanged ("plain")."""
    if form == "plain":
        return model
    for layer in _narrow(model):
        if layer in layers:
            model = fold_width(model, layer, _GROUP)
    return dense_as_convolution(model, layers)


def _narrow(model: ModelProto) -> list[str]:
    """Convolutions of few channels that `fold_width` can take."""
    graph, sizes, found = Graph.of(model), shapes(model), []
    for node in graph.nodes:
        if node.op_type != "Conv" or len(sizes.get(node.input[0], ())) != 4 or len(node.input) < 3:
            continue
        consumer, width = graph.only_consumer(node.output[0]), sizes[node.input[0]][3]
        step = attribute(node, "strides", [1, 1])[1]
        fits = width % _GROUP == 0 and _GROUP % step == 0 and sizes[node.output[0]][3] * step == width
        plain = attribute(node, "group", 1) == 1 and set(attribute(node, "dilations", [1])) == {1}
        if (
            consumer is not None
            and consumer.op_type == "Relu"
            and fits
            and plain
            and sizes[node.input[0]][1] <= _NARROW
        ):
            found.append(node.name)
    return found
