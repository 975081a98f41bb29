"""Rewrites ahead of quantisation to the form that integer operators run fastest; the outputs stay the same."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx import ModelProto

from aeedge_export.conversion.editing import bias_of, only_consumer, opened
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
    return [
        str(node.name) for node in opened(model, shapes=True).graph if node.op_type == "Conv" and _can_be_folded(node)
    ]


def _can_be_folded(conv: ir.Node) -> bool:
    before, after, relu = conv.inputs[0], conv.outputs[0], only_consumer(conv.outputs[0])
    if before is None or before.shape is None or after.shape is None or len(before.shape) != 4:
        return False
    if bias_of(conv) is None or relu is None or relu.op_type != "Relu":
        return False
    width, step = before.shape[3], conv.attributes.get_ints("strides", [1, 1])[1]
    fits = width % _GROUP == 0 and _GROUP % step == 0 and after.shape[3] * step == width
    plain = conv.attributes.get_int("group", 1) == 1 and set(conv.attributes.get_ints("dilations", [1])) == {1}
    return bool(fits and plain and before.shape[1] <= _NARROW)
