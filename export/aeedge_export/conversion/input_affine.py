"""The affine map from raw input to the first layer: casts, and the scaler's constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from aeedge_export.conversion.editing import Graph


@dataclass(frozen=True)
class Stage:
    """A value between raw input and the first layer: value = factor * raw + offset, elementwise."""

    value: str
    factor: NDArray[np.float64]
    offset: NDArray[np.float64]


def input_stages(graph: Graph) -> list[Stage]:
    """The input, and the results of casts and of the scaler's constants (Sub, Div, Add, Mul), in order."""
    stages = [Stage(graph.input.name, np.ones(()), np.zeros(()))]
    while True:
        last = stages[-1]
        node = graph.only_consumer(last.value)
        if node is None or node.op_type not in ("Cast", "Sub", "Add", "Div", "Mul"):
            return stages
        factor, offset = last.factor, last.offset
        if node.op_type != "Cast":
            constant = graph.constant(node.input[1])
            if constant is None or node.input[0] != last.value:
                return stages
            c = constant.astype(np.float64)
            if node.op_type in ("Sub", "Add"):
                offset = offset - c if node.op_type == "Sub" else offset + c
            else:
                factor, offset = (factor / c, offset / c) if node.op_type == "Div" else (factor * c, offset * c)
        stages.append(Stage(node.output[0], factor, offset))


def one_value(array: NDArray[np.float64]) -> float | None:
    """The value that all elements share, or None."""
    first = float(array.flat[0]) if array.size else None
    return first if first is not None and (array == first).all() else None


def is_bytes(graph: Graph) -> bool:
    """Whether the graph's input is uint8."""
    return bool(graph.input.type.tensor_type.elem_type == TensorProto.UINT8)


def is_int16(graph: Graph) -> bool:
    """Whether the graph's input is int16."""
    return bool(graph.input.type.tensor_type.elem_type == TensorProto.INT16)
