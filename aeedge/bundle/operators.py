"""Which operators a graph may have before onnxruntime sees it: those that a feed-forward network needs.

Loops may never end, random numbers make outputs that nobody can check, and a division of whole numbers by 0 ends the
process (SIGFPE) inside onnxruntime, whatever Python does. See docs/decisions/0017-operator-allow-list.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
_DIVISIONS = ("Div", "Mod")


def operator_fault(info: OnnxInfo, allow: Collection[str] = ()) -> str:
    """What a graph has that it may not, as a part of a sentence; empty if there is nothing.

    Args:
        info: the graph.
        allow: operators to take as they are, beside ALLOWED; of another domain: "com.microsoft.Gelu".
    """
    return _graph_fault(info.graph, allow, {})


def _graph_fault(graph: Message, allow: Collection[str], outer: Mapping[str, int | None]) -> str:
    weights = {tensor.get("name", ""): tensor for tensor in graph.get("initializer", ())}
    types: dict[str, int | None] = dict(outer)
    types |= {value.get("name", ""): _declared(value) for value in graph.get("input", ())}
    types |= {name: tensor["data_type"] for name, tensor in weights.items()}
    made = [name for node in graph.get("node", ()) for name in node.get("output", ()) if name]
    if len({*made, *weights}) != len(made) + len(graph.get("initializer", ())):
        return "two values of the same name"
    for node in graph.get("node", ()):
        if fault := _node_fault(node, allow, types, weights):
            return fault
    return ""


def _node_fault(
    node: Message, allow: Collection[str], types: dict[str, int | None], weights: dict[str, Message]
) -> str:
    kind = _operator(node)
    attributes = {attribute.get("name", ""): attribute for attribute in node.get("attribute", ())}
    if len(attributes) != len(node.get("attribute", ())):
        return f"an attribute that is there twice, {_called(node)}"
    if kind not in allow:
        if kind not in ALLOWED:
            return f"the operator {_called(node)}"
        if kind in _DIVISIONS and (fault := _division_fault(node, types, weights)):
            return fault
        if any("g" in attribute or "graphs" in attribute for attribute in attributes.values()):
            return f"a graph inside the operator {_called(node)}"
    for graph in _subgraphs(attributes.values()):
        if fault := _graph_fault(graph, allow, types):
            return fault
    outputs = node.get("output", [])
    for name, of in zip(outputs, _made(kind, node, attributes, types)):
        types[name] = of
    if kind == "Constant" and "t" in attributes.get("value", {}) and outputs:
        weights[outputs[0]] = attributes["value"]["t"]
    return ""


def _division_fault(node: Message, types: Mapping[str, int | None], weights: Mapping[str, Message]) -> str:
    """A division of whole numbers by anything but constants that are neither 0 nor -1."""
    inputs = node.get("input", [])
    of = next((types[name] for name in inputs if types.get(name) is not None), None)
    if of is not None and not is_integer(of):
        return ""
    divisor = weights.get(inputs[-1]) if len(inputs) == 2 else None
    if divisor is not None and is_integer(divisor["data_type"]) and not {0, -1}.intersection(integers(divisor)):
        return ""
    return f"a division of whole numbers that may be one by 0, {_called(node)}"


def _made(
    kind: str, node: Message, attributes: Mapping[str, Message], types: Mapping[str, int | None]
) -> list[int | None]:
    """Types of an operator's outputs; None for one that is unknown."""
    inputs, count = node.get("input", []), len(node.get("output", []))
    declared = attributes.get(_OF_ATTRIBUTE.get(kind, ""), {}).get("i")
    at = _OF_INPUT.get(kind, 0)
    first: int | None
    if kind not in ALLOWED:
        return [None] * count
    if kind in ("Constant", "ConstantOfShape"):
        first = _constant(attributes, FLOAT if kind == "ConstantOfShape" else None)
    elif declared:
        first = declared
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
    domain = node.get("domain", "")
    name: str = node.get("op_type", "")
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"


def _called(node: Message) -> str:
    return f"{_operator(node)} (node {node['name']!r})" if node.get("name") else _operator(node)
