"""Parse the outline of an ONNX file without the onnx package: versions, metadata, references to other files.

onnxruntime follows references to external data when it opens a model, so they have to be found before. An ONNX file is
one protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); only the fields named below are read,
weights are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

Value = int | memoryview | bytes
Field = tuple[int, int | memoryview]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 64  # nested subgraphs; real models have a handful

# message -> field number -> the message that field holds
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_IR_VERSION, _GRAPH, _OPSET_IMPORT, _METADATA = 1, 7, 8, 14  # fields of Model
_NODE, _INITIALIZER = 1, 5  # fields of Graph
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4  # fields of Node
_NAME = 8  # a field of Tensor
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of Tensor


class OnnxInfo:
    """What `inspect` found: versions, metadata, and the paths of external data that the file refers to."""

    def __init__(self) -> None:
        self.ir_version = 0
        self.opsets: dict[str, int] = {}
        self.metadata: dict[str, str] = {}
        self.external: list[str] = []


def inspect(data: bytes) -> OnnxInfo:
    """Read the outline of an ONNX file.

    Raises:
        ValueError: `data` is not an ONNX file, or is truncated.
    """
    info = OnnxInfo()
    view = memoryview(data)
    for number, value in _fields(view):
        if number == _IR_VERSION and isinstance(value, int):
            info.ir_version = value
        elif number == _OPSET_IMPORT:
            entry = dict(_fields(value))
            info.opsets[_text(entry.get(1, b""))] = _integer(entry.get(2, 0))
        elif number == _METADATA:
            entry = dict(_fields(value))
            info.metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
    _find_external(view, "Model", info.external, 0)
    if not info.ir_version or not info.opsets:
        raise ValueError("not an ONNX file")
    return info


def chain(data: bytes) -> tuple[str, ...]:
    """Operator types of the main graph's nodes, in order, if they form a chain; else an empty tuple.

    In a chain the first input of each node is the output of the previous one, and its other inputs are weights.
    """
    fields = [field for number, graph in _fields(data) if number == _GRAPH for field in _fields(graph)]
    weights = {_text(dict(_fields(value)).get(_NAME, b"")) for number, value in fields if number == _INITIALIZER}
    found: list[str] = []
    made: str | None = None
    for node in (list(_fields(value)) for number, value in fields if number == _NODE):
        first, *others = [_text(value) for number, value in node if number == _INPUT] or [""]
        if (made is not None and first != made) or first in weights or not weights.issuperset(others):
            return ()
        made = next((_text(value) for number, value in node if number == _OUTPUT), "")
        found.append(_text(dict(node).get(_OP_TYPE, b"")))
    return tuple(found)


def _find_external(view: memoryview, message: str, found: list[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    children = _CHILDREN[message]
    for number, value in _fields(view):
        if message == "Tensor" and number == _EXTERNAL_DATA:
            entry = dict(_fields(value))
            if _text(entry.get(1, b"")) == "location":
                found.append(_text(entry.get(2, b"")))
        elif message == "Tensor" and number == _DATA_LOCATION and value == 1:
            found.append("")  # declared external; the location follows or is missing
        elif number in children and isinstance(value, memoryview):
            _find_external(value, children[number], found, depth + 1)


def _fields(value: Value) -> Iterator[Field]:
    """The fields of a message, in order, as (number, value); a value is an integer or bytes.

    Raises:
        ValueError: the bytes are not a message.
    """
    if isinstance(value, int):
        raise ValueError("not an ONNX file")
    view, at = memoryview(value), 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            found, at = _varint(view, at)
            yield number, found
            continue
        if wire == _BYTES:
            size, at = _varint(view, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("not an ONNX file")
        if at + size > len(view):
            raise ValueError("truncated")
        yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(view):
            raise ValueError("truncated")
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("not an ONNX file")


def _text(value: Value) -> str:
    """A field's text; empty where the field holds a number."""
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")


def _integer(value: Value) -> int:
    """A field's integer; 0 where it holds anything else."""
    return value if isinstance(value, int) else 0
