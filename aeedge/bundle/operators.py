"""Which operators a graph may have before onnxruntime sees it: those that a feed-forward network needs.

Loops may never end, random numbers make outputs that nobody can check, and a division of whole numbers by 0 ends the
process (SIGFPE) inside onnxruntime, whatever Python does. See docs/decisions/0016-strict-onnx-reader.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from aeedge.bundle.onnx_proto import (
    BOOL,
    FLOAT,
    INT32,
    INT64,
    UINT8,
    Message,
    OnnxInfo,
    integers,
    is_integer,
    standard,
)

_ARITHMETIC = """
    Abs Acos Acosh Add Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Clip Cos Cosh
    CumProd CumSum Det Div Einsum Erf Exp Floor Gemm Log MatMul Max Mean Min Mod Mul Neg Pow Reciprocal Round Sign Sin
    Sinh Sqrt Sub Sum Tan Tanh
"""
_COMPARISONS = "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor"
_ACTIVATIONS = """
    Celu Elu Gelu HardSigmoid HardSwish Hardmax LeakyRelu LogSoftmax Mish PRelu Relu Selu Shrink Sigmoid Softmax
    Softplus Softsign SwiGLU Swish ThresholdedRelu
"""
_LAYERS = """
    Attention AveragePool BatchNormalization CausalConvWithState Col2Im Conv ConvTranspose DeformConv GRU
    GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization LRN LSTM LayerNormalization
    LinearAttention LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool MeanVarianceNormalization RMSNormalization RNN
    RoiAlign RotaryEmbedding
"""
_REDUCTIONS = """
    ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare TopK
"""
_SHAPES = """
    AffineGrid CenterCropPad Compress Concat ConstantOfShape Constant DepthToSpace Expand EyeLike Flatten Gather
    GatherElements GatherND GridSample Identity NonMaxSuppression NonZero OneHot Pad Range Reshape Resize
    ReverseSequence Scatter ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile
    Transpose Trilu Unique Unsqueeze Upsample Where
"""
_TYPES = "BitCast Cast CastLike DequantizeLinear DynamicQuantizeLinear QuantizeLinear"
_INTEGER_LAYERS = "ConvInteger MatMulInteger QLinearConv QLinearMatMul"
_SIGNALS = "BlackmanWindow DFT HammingWindow HannWindow MelWeightMatrix STFT"

ALLOWED = frozenset(
    " ".join(
        [_ARITHMETIC, _COMPARISONS, _ACTIVATIONS, _LAYERS, _REDUCTIONS, _SHAPES, _TYPES, _INTEGER_LAYERS, _SIGNALS]
    ).split()
)

# The type of what an operator makes: that of its first input, unless it stands here.
_OF_INPUT = {
    **{"CastLike": 1, "DequantizeLinear": 1, "OneHot": 2, "QLinearConv": 7, "QLinearMatMul": 7, "QuantizeLinear": 2},
    **{"RMSNormalization": 1, "Where": 1},
}
_OF_ATTRIBUTE = {
    **{"BitCast": "to", "Cast": "to", "EyeLike": "dtype", "DequantizeLinear": "output_dtype"},
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"), "output_datatype"),
    "QuantizeLinear": "output_dtype",
}
_FIXED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(_COMPARISONS.split(), (BOOL,)),
    **dict.fromkeys(("ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "Shape", "Size"), (INT64,)),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), (INT32,)),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"), (FLOAT,)),
    "DynamicQuantizeLinear": (UINT8, FLOAT, UINT8),
}
_INDICES = ("MaxPool", "TopK", "Unique")  # whose outputs after the first are positions
_COUNTS = (  # attributes that are divided by, or looped over
    *("blocksize", "dilations", "group", "hidden_size", "kernel_shape", "kv_num_heads", "num_groups", "num_heads"),
    *("num_outputs", "output_height", "output_width", "q_num_heads", "size", "strides"),
)
_BOUNDS = {
    **dict.fromkeys(_COUNTS, (1, 2**20)),
    **dict.fromkeys(("axes", "axis", "batch_axis", "perm", "time_axis"), (-64, 64)),
    **{"batch_dims": (0, 64), "sampling_ratio": (0, 2**10)},
}
_ANY_SIZE = ("ends", "starts", "value_int", "value_ints")  # a Slice of old models ends at 2**63 - 1


def operator_fault(info: OnnxInfo, allow: Collection[str] = ()) -> str:
    """What a graph has that it may not, as a part of a sentence; empty if there is nothing.

    Args:
        info: the graph.
        allow: operators to take as they are, beside ALLOWED; of another domain: "com.microsoft.Gelu".

    Raises:
        ValueError: a weight that matters here is written in a way that may be read differently.
    """
    return _graph_fault(info.graph, allow)


class _Scope:
    """What is known of the values of a graph as far as it was read.

    Attributes:
        types: element type by name; None where it is unknown.
        constants: weights and constants by name.
    """

    def __init__(self, graph: Message, outer: _Scope | None) -> None:
        self.constants: dict[str, Message] = {tensor.get("name", ""): tensor for tensor in graph.get("initializer", ())}
        given = {value.get("name", ""): _declared(value) for value in graph.get("input", ())}
        self.types: dict[str, int | None] = {} if outer is None else dict(outer.types)
        self.types |= given | {name: tensor["data_type"] for name, tensor in self.constants.items()}
        self.types.pop("", None)

    def add(self, node: Message, kind: str, attributes: Mapping[str, Message]) -> None:
        """Note what an operator makes."""
        outputs = node.get("output", [])
        self.types.update(zip(outputs, _made(kind, node, attributes, self.types)))
        if kind == "Constant" and len(attributes) == 1 and "t" in attributes.get("value", {}):
            self.constants |= dict.fromkeys(outputs, attributes["value"]["t"])
        for known in (self.types, self.constants):
            known.pop("", None)  # an output that is left out, or an input: no value

    def is_one_of(self, name: str, accept: Callable[[int], bool]) -> bool:
        """Whether a value is a constant of integers that are all accepted, one or more."""
        tensor = self.constants.get(name)
        found = integers(tensor) if tensor is not None and is_integer(tensor["data_type"]) else []
        return bool(found) and all(map(accept, found))


def _graph_fault(graph: Message, allow: Collection[str], outer: _Scope | None = None) -> str:
    scope = _Scope(graph, outer)
    made = [name for node in graph.get("node", ()) for name in node.get("output", ()) if name]
    if len({*made, *scope.constants}) != len(made) + len(graph.get("initializer", ())):
        return "two values of the same name"
    for node in graph.get("node", ()):
        kind, attributes = _operator(node), {entry.get("name", ""): entry for entry in node.get("attribute", ())}
        if len(attributes) != len(node.get("attribute", ())):
            return f"an attribute that is there twice, {_called(node)}"
        if kind not in allow and (fault := _node_fault(node, kind, attributes, scope)):
            return f"{fault} {_called(node)}"
        for inner in _subgraphs(attributes.values()):
            if fault := _graph_fault(inner, allow, scope):
                return fault
        scope.add(node, kind, attributes)
    return ""


def _node_fault(node: Message, kind: str, attributes: Mapping[str, Message], scope: _Scope) -> str:
    inputs = node.get("input", [])
    if kind not in ALLOWED:
        return "the operator"
    if any("g" in attribute or "graphs" in attribute for attribute in attributes.values()):
        return "a graph inside the operator"
    for name, attribute in attributes.items():
        least, most = _BOUNDS.get(name, (-(2**31), 2**31 - 1))
        values = [] if name in _ANY_SIZE else [attribute.get("i", 1), *attribute.get("ints", ())]
        if not all(least <= value <= most for value in values):
            return f"an attribute {name[:60]!r} out of its range in"
    if kind in ("Div", "Mod") and not _is_safe_division(inputs, scope):
        return "what may be a division of whole numbers by 0 in"
    if kind == "STFT" and not _is_safe_stft(inputs, scope):
        return "frames whose length may be 0 in"
    return ""


def _is_safe_division(inputs: list[str], scope: _Scope) -> bool:
    """Of floats, or by constants that are neither 0 nor -1."""
    of = next((kind for name in inputs if (kind := scope.types.get(name)) is not None), None)
    if of is not None and not is_integer(of):
        return True
    return bool(inputs) and scope.is_one_of(inputs[-1], lambda divisor: divisor not in (0, -1))


def _is_safe_stft(inputs: list[str], scope: _Scope) -> bool:
    """Frames of constant length: a length of 0 ends the process."""
    step, window, length = [*inputs, "", "", "", ""][1:4]
    widths = scope.constants.get(window, {}).get("dims", [0])
    return (
        scope.is_one_of(step, lambda n: n > 0)
        and (scope.is_one_of(length, lambda n: n > 0) if length else True)
        and (math.prod(widths) > 0 if window else bool(length))
    )


def _made(
    kind: str, node: Message, attributes: Mapping[str, Message], types: Mapping[str, int | None]
) -> list[int | None]:
    """Types of an operator's outputs; None for one that is unknown."""
    inputs, count = node.get("input", []), len(node.get("output", []))
    by = _OF_ATTRIBUTE.get(kind, "")
    at = _OF_INPUT.get(kind, 0)
    first: int | None
    if kind not in ALLOWED:
        return [None] * count
    if kind == "ConstantOfShape":
        first = _constant(attributes, FLOAT)
    elif kind == "Constant":
        first = _constant(attributes, None) if len(attributes) == 1 else None
    elif by in attributes or by == "to":
        first = attributes.get(by, {}).get("i")
    elif kind in _FIXED:
        return [*_FIXED[kind], *[None] * count][:count]
    else:
        first = types.get(inputs[at]) if at < len(inputs) else None
    return [first, *[INT64 if kind in _INDICES else first] * count][:count]


def _constant(attributes: Mapping[str, Message], default: int | None) -> int | None:
    for name, of in (("value_float", FLOAT), ("value_floats", FLOAT), ("value_int", INT64), ("value_ints", INT64)):
        if name in attributes:
            return of
    if "value" not in attributes:
        return default
    found: int | None = attributes["value"].get("t", {}).get("data_type")
    return found


def _declared(value: Message) -> int | None:
    found: int | None = value.get("type", {}).get("tensor_type", {}).get("elem_type")
    return found


def _subgraphs(attributes: Iterable[Message]) -> list[Any]:
    return [graph for a in attributes for graph in ([a["g"]] if "g" in a else []) + a.get("graphs", [])]


def _operator(node: Message) -> str:
    """The operator's name, after its domain unless that is the standard one."""
    domain, name = standard(node.get("domain", "")), node.get("op_type", "")
    return f"{domain}.{name}" if domain else str(name)


def _called(node: Message) -> str:
    return f"{_operator(node)} (node {node['name']!r})" if node.get("name") else _operator(node)
