"""From raw input to the first layer: casts, and the scaler's constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from aeedge_export.conversion.editing import constant, only_consumer


@dataclass(frozen=True)
class Stage:
    """A value between raw input and the first layer: value = factor * raw + offset, elementwise."""

    value: ir.Value
    factor: NDArray[np.float64]
    offset: NDArray[np.float64]


def input_affine(graph: ir.Graph) -> list[Stage]:
    """The input, and the values after each cast to float32 and each of the scaler's Sub, Div, Add and Mul, in order."""
    stages = [Stage(graph.inputs[0], np.ones(()), np.zeros(()))]
    while True:
        last = stages[-1]
        node = only_consumer(last.value)
        if node is None or node.op_type not in ("Cast", "Sub", "Add", "Div", "Mul"):
            return stages
        if node.op_type == "Cast" and node.attributes.get_int("to") != ir.DataType.FLOAT:
            return stages  # to integers or half precision: values are rounded, and not the same in other units
        factor, offset = last.factor, last.offset
        if node.op_type != "Cast":
            operand = constant(node.inputs[1])
            if operand is None or node.inputs[0] is not last.value:
                return stages
            c = operand.astype(np.float64)
            if node.op_type in ("Sub", "Add"):
                offset = offset - c if node.op_type == "Sub" else offset + c
            else:
                factor, offset = (factor / c, offset / c) if node.op_type == "Div" else (factor * c, offset * c)
        stages.append(Stage(node.outputs[0], factor, offset))


def one_value(array: NDArray[np.float64]) -> float | None:
    """The value that all elements share, or None."""
    first = float(array.flat[0]) if array.size else None
    return first if first is not None and (array == first).all() else None
