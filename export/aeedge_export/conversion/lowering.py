"""From the opset that torch writes to the one that bundles hold.

torch's exporter writes opset 18, and onnx's own version converter gives up at the operators that moved an attribute to
an input there. These few are all that autoencoders use; the checker finds any other.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx.helper
import onnx.numpy_helper
from onnx import GraphProto, ModelProto, NodeProto

TORCH_OPSET = 18

_REDUCTIONS = ("Max", "Mean", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


def lower_opset(model: ModelProto, opset: int) -> None:
    """Rewrite a model of opset 18 as one of opset 17, in place.

    Raises:
        ValueError: an operator needs what opset 17 lacks.
    """
    for node in model.graph.node:
        if node.op_type in _LOWER:
            _LOWER[node.op_type](node, model.graph)
    _drop_unused(model.graph)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))


def _reduce(node: NodeProto, graph: GraphProto) -> None:
    """Axes are an input from opset 18 on, an attribute before."""
    if len(node.input) < 2 or not node.input[1]:
        return
    axes = _constant(node.input[1], graph)
    del node.input[1:]
    for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes"]:
        node.attribute.remove(attribute)
    node.attribute.append(onnx.helper.make_attribute("axes", axes))


def _split(node: NodeProto, graph: GraphProto) -> None:
    """num_outputs is new, and redundant where all parts are equal."""
    for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
        node.attribute.remove(attribute)


def _resize(node: NodeProto, graph: GraphProto) -> None:
    """antialias, axes and keep_aspect_ratio_policy are new; only their defaults have an equal before."""
    for attribute in list(node.attribute):
        if attribute.name == "antialias" and attribute.i == 0:
            node.attribute.remove(attribute)
        if attribute.name == "keep_aspect_ratio_policy" and attribute.s == b"stretch":
            node.attribute.remove(attribute)


def _constant(name: str, graph: GraphProto) -> list[int]:
    for tensor in graph.initializer:
        if tensor.name == name:
            return [int(value) for value in onnx.numpy_helper.to_array(tensor).ravel()]
    for node in graph.node:
        if name in node.output and node.op_type == "Constant":
            return [int(value) for value in onnx.numpy_helper.to_array(node.attribute[0].t).ravel()]
    raise ValueError(f"the axes of a reduction are computed at run time ({name})")


def _drop_unused(graph: GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    for node in [n for n in graph.node if n.op_type == "Constant" and not set(n.output) & used]:
        graph.node.remove(node)


_LOWER: dict[str, Callable[[NodeProto, GraphProto], None]] = {
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS},
    "Split": _split,
    "Resize": _resize,
}
