"""From the opset that torch writes to the one that bundles hold.

torch's exporter writes opset 18, and onnx's version converter fails on the operators that moved an attribute to
an input there. These few are all that autoencoders need; the checker finds any other.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from aeedge_export.conversion.editing import constant

TORCH_OPSET = 18

_REDUCTIONS = ("Max", "Mean", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")


def lower_opset(network: ir.Model, opset: int) -> None:
    """Rewrite a model of opset 18 as one of opset 17, in place.

    Raises:
        ValueError: an operator needs what opset 17 lacks.
    """
    for node in network.graph:
        if node.op_type in _LOWER:
            _LOWER[node.op_type](node)
    network.graph.opset_imports[""] = opset


def _reduce(node: ir.Node) -> None:
    """Axes are an input from opset 18 on, an attribute before."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes.pop("noop_with_empty_axes", None)
        return
    axes = constant(node.inputs[1])
    if axes is None:
        raise ValueError(f"the axes of a reduction are computed at run time ({node.inputs[1].name})")
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    node.attributes.add(ir.AttrInt64s("axes", axes.ravel().tolist()))


def _split(node: ir.Node) -> None:
    """num_outputs is new; the number of outputs is the same information where all parts are equal."""
    node.attributes.pop("num_outputs", None)


def _resize(node: ir.Node) -> None:
    """antialias, axes and keep_aspect_ratio_policy are new; only their defaults have an equal before."""
    if node.attributes.get_int("antialias") == 0:
        node.attributes.pop("antialias")
    if node.attributes.get_string("keep_aspect_ratio_policy") == "stretch":
        node.attributes.pop("keep_aspect_ratio_policy")


_LOWER: dict[str, Callable[[ir.Node], None]] = {
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS},
    "Split": _split,
    "Resize": _resize,
}
