"""The form of a graph that integer operators run fastest in, before it is quantised; it computes the same."""

from __future__ import annotations

from collections.abc import Collection

import onnx.shape_inference
from onnx import ModelProto

from aeedge_export.conversion.exact import conv1d_as_conv2d, dense_as_convolution, fold_normalization
from aeedge_export.conversion.folding import fold_width
from aeedge_export.conversion.net import Net, attribute

FORMS = ("engine", "plain")
_GROUP = 4  # neighbours that become channels: onnxruntime then gathers 32 bits at a time
_NARROW = 4  # input channels at most


def prepared(model: ModelProto) -> ModelProto:
    """What every form begins with. The scaler stays ahead: folded, features of small range would be lost in a byte."""
    return conv1d_as_conv2d(fold_normalization(model))


def formed(model: ModelProto, form: str, layers: Collection[str]) -> ModelProto:
    """A prepared graph in a form, for the layers that are to run on integers: "engine" for speed, "plain" as it is."""
    if form == "plain":
        return model
    for layer in _narrow(model):
        if layer in layers:
            model = fold_width(model, layer, _GROUP)
    return dense_as_convolution(model, layers)


def _narrow(model: ModelProto) -> list[str]:
    """Convolutions of few channels that `fold_width` can take."""
    net, found = Net.of(model), []
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.input, *inferred.value_info, *inferred.output]
    }
    for node in net.nodes:
        if node.op_type != "Conv" or len(shapes.get(node.input[0], ())) != 4 or len(node.input) < 3:
            continue
        user, width = net.only_user(node.output[0]), shapes[node.input[0]][3]
        step = attribute(node, "strides", [1, 1])[1]
        fits = width % _GROUP == 0 and _GROUP % step == 0 and shapes[node.output[0]][3] * step == width
        plain = attribute(node, "group", 1) == 1 and set(attribute(node, "dilations", [1])) == {1}
        if user is not None and user.op_type == "Relu" and fits and plain and shapes[node.input[0]][1] <= _NARROW:
            found.append(node.name)
    return found
