"""A second output of a graph that tells which rows hold NaN or infinity.

Looking for them with numpy costs a pass over the input on the caller's thread, with Python's lock held; a tenth of a
small net's time. Inside the graph it is done by the threads that compute, on rows that are in their cache. Where the
input goes straight into a dense layer the mean of that layer's sums will do, which are fewer: NaN and infinity survive
multiplication by any weight (0 times infinity is NaN) and addition of anything. What the mean of a row shows as not
finite is looked at again, value by value: large finite numbers may overflow in it.

Protocol buffers that are appended to each other merge, field by field (https://protobuf.dev/programming-guides/encoding/
#last-one-wins), so that a node and an output are added to a graph without knowing the rest of it.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from aeedge.onnxfile import Field, fields, integer, text, varints

WATCH = "aeedge.watch"

_GRAPH, _OPSETS = 7, 8  # fields of Model
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # fields of Graph
_FLOAT, _INT64 = 1, 7  # element types
_INT, _INTS = 2, 7  # attribute types
_AXES_ARE_INPUT = 18  # opset from which ReduceMean takes its axes as an input
_ONE = bytes.fromhex("0000803f")  # as float32
_WORTH = 4  # a dense layer's sums are watched where they are this many times fewer than the input's values


class _Node(NamedTuple):
    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, dict[int, int | memoryview]]


def add_watch(graph: bytes) -> bytes:
    """The same model with one more output, named WATCH: a float32 of shape (n,), finite where all of a row is.

    Args:
        graph: an ONNX file with one float32 input of shape (n, ...).

    Raises:
        ValueError: it is no ONNX file, or has no such input.
    """
    model = list(fields(memoryview(graph)))
    opset = max((integer(dict(fields(value)).get(2, 0)) for key, value in model if key == _OPSETS), default=0)
    body = [field for key, value in model if key == _GRAPH for field in fields(value)]
    name, shape = _input(body)
    tensor, rank = _watched(body, name, shape)
    return graph + _message(_GRAPH, _addition(tensor, rank, opset))


def _watched(body: list[Field], name: str, shape: list[int]) -> tuple[str, int]:
    """The tensor to take the mean of, and its rank: a dense layer's sums if they are few, else the input."""
    users = [node for node in map(_node, (value for key, value in body if key == _NODE)) if name in node.inputs]
    dense = next((n for n in users if n.kind in ("Gemm", "MatMul") and n.inputs[0] == name), None)
    if dense is None or len(shape) != 2 or not _plain(dense):
        return name, len(shape)
    weights = next((w for w in _weights(body) if w[0] == dense.inputs[1]), None)
    if weights is None or len(weights[1]) != 2:
        return name, len(shape)
    width = prod(weights[1]) // max(1, shape[1])
    return (dense.outputs[0], 2) if width * _WORTH <= shape[1] else (name, len(shape))


def _input(body: list[Field]) -> tuple[str, list[int]]:
    """Name and shape of the graph's first input; 0 stands for a size that is not fixed."""
    for key, value in body:
        if key == _INPUT:
            entry = dict(fields(value))
            tensor = dict(fields(dict(fields(entry.get(2, b""))).get(1, b"")))
            sizes = [dict(fields(dim)) for key, dim in fields(tensor.get(2, b"")) if key == 1]
            return text(entry.get(1, b"")), [integer(size.get(1, 0)) for size in sizes]
    raise ValueError("it has no input")


def _node(value: int | memoryview) -> _Node:
    found: dict[int, list[int | memoryview]] = {}
    for key, part in fields(value):
        found.setdefault(key, []).append(part)
    names = [[text(part) for part in found.get(key, ())] for key in (4, 1, 2)]
    attributes = {text(parts.get(1, b"")): parts for parts in (dict(fields(part)) for part in found.get(5, ()))}
    return _Node((names[0] or [""])[0], names[1], names[2], attributes)


def _plain(dense: _Node) -> bool:
    """Whether its sums are those of the row times the weights: nothing transposed ahead of it, nothing times zero."""
    alpha = dense.attributes.get("alpha", {}).get(2, _ONE)
    transposed = integer(dense.attributes.get("transA", {}).get(3, 0))
    return not transposed and not isinstance(alpha, int) and bytes(alpha) == _ONE


def _weights(body: list[Field]) -> list[tuple[str, list[int]]]:
    """Names and shapes of the graph's constants."""
    found = []
    for value in (value for key, value in body if key == _INITIALIZER):
        parts = list(fields(value))
        dims = [part for key, part in parts if key == 1]  # one by one, or packed into one field
        sizes = [n for part in dims for n in ([part] if isinstance(part, int) else varints(part))]
        found.append((text(dict(parts).get(8, b"")), sizes))
    return found


# --- writing


def _addition(tensor: str, rank: int, opset: int) -> bytes:
    """A graph that holds the node and its output alone."""
    axes, inputs, constant = range(1, rank), [tensor], b""
    attributes = [_message(1, b"keepdims") + _integer(3, 0) + _integer(20, _INT)]
    if opset < _AXES_ARE_INPUT:
        values = b"".join(_integer(8, axis) for axis in axes)
        attributes.append(_message(1, b"axes") + values + _integer(20, _INTS))
    else:
        inputs.append(f"{WATCH}.axes")
        values = b"".join(axis.to_bytes(8, "little") for axis in axes)
        name = _message(8, inputs[1].encode())
        constant = _message(_INITIALIZER, _integer(1, len(axes)) + _integer(2, _INT64) + name + _message(9, values))
    node = b"".join(_message(1, name.encode()) for name in inputs)
    node += _message(2, WATCH.encode()) + _message(3, WATCH.encode()) + _message(4, b"ReduceMean")
    node += b"".join(_message(5, attribute) for attribute in attributes)
    shape = _message(2, _message(1, _message(2, b"n")))
    output = _message(1, WATCH.encode()) + _message(2, _message(1, _integer(1, _FLOAT) + shape))
    return _message(_NODE, node) + constant + _message(_OUTPUT, output)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
