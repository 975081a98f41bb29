"""Read an ONNX file without the onnx package, and refuse every byte of it that is not understood.

onnxruntime reads the same bytes with protobuf, follows references to other files when it opens a model, and passes over
what it does not know. What is checked here must be what runs there, so an encoding that two readers could take
differently is no ONNX file for us: see docs/decisions/0016-strict-onnx-reader.md. An ONNX file is one protobuf message
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); the tables below name all that a bundle may contain. Weights
are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Message = dict[str, Any]
"""Fields by name: an int, str, bytes, memoryview or Message, or a list of them where a field may be repeated."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_WIRES = {"int64": _VARINT, "int32": _VARINT, "enum": _VARINT, "uint64": _VARINT, "float": _FIXED32, "double": _FIXED64}
_SIZES = {"float": 4, "double": 8}
_MAX_DEPTH = 16  # nested graphs; real models have one or two
_MAX_FIELDS = 2**20  # a graph has some thousands; each costs a microsecond

# message -> field number -> name and type; "*" is repeated. What is not here is refused.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {
        **{1: "ir_version int64", 2: "producer_name text", 3: "producer_version text", 4: "domain text"},
        **{5: "model_version int64", 6: "doc_string text", 7: "graph Graph", 8: "opset_import *OperatorSetId"},
        **{14: "metadata_props *StringStringEntry"},
    },
    "OperatorSetId": {1: "domain text", 2: "version int64"},
    "StringStringEntry": {1: "key text", 2: "value text"},
    "Graph": {
        **{1: "node *Node", 2: "name text", 5: "initializer *Tensor", 10: "doc_string text", 11: "input *ValueInfo"},
        **{12: "output *ValueInfo", 13: "value_info *ValueInfo", 16: "metadata_props *StringStringEntry"},
    },
    "Node": {
        **{1: "input *text", 2: "output *text", 3: "name text", 4: "op_type text", 5: "attribute *Attribute"},
        **{6: "doc_string text", 7: "domain text", 9: "metadata_props *StringStringEntry"},
    },
    "Attribute": {
        **{1: "name text", 2: "f float", 3: "i int64", 4: "s bytes", 5: "t Tensor", 6: "g Graph", 7: "floats *float"},
        **{8: "ints *int64", 9: "strings *bytes", 10: "tensors *Tensor", 11: "graphs *Graph", 13: "doc_string text"},
        **{20: "type enum"},
    },
    "Tensor": {
        **{1: "dims *int64", 2: "data_type int32", 4: "float_data *float", 5: "int32_data *int32"},
        **{7: "int64_data *int64", 8: "name text", 9: "raw_data data", 10: "double_data *double"},
        **{11: "uint64_data *uint64", 12: "doc_string text", 13: "external_data *data", 14: "data_location enum"},
        **{16: "metadata_props *StringStringEntry"},
    },
    "ValueInfo": {
        **{1: "name text", 2: "type Type", 3: "doc_string text", 4: "metadata_props *StringStringEntry"},
    },
    "Type": {1: "tensor_type TensorType", 6: "denotation text"},
    "TensorType": {1: "elem_type int32", 2: "shape TensorShape"},
    "TensorShape": {1: "dim *Dimension"},
    "Dimension": {1: "dim_value int64", 2: "dim_param text", 3: "denotation text"},
}
_GRAPH_ATTRIBUTES = ("g", "graphs")
_ATTRIBUTE_TYPES = {  # the one field that holds an attribute's value
    **{1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors", 10: "graphs"},
}
_VALUES = frozenset(_ATTRIBUTE_TYPES.values())

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, BOOL, FLOAT16, DOUBLE = 1, 2, 3, 4, 5, 6, 7, 9, 10, 11
UINT32, UINT64, BFLOAT16 = 12, 13, 16
_ITEM_BYTES = {
    **{FLOAT: 4, UINT8: 1, INT8: 1, UINT16: 2, INT16: 2, INT32: 4, INT64: 8, BOOL: 1, FLOAT16: 2, DOUBLE: 8},
    **{UINT32: 4, UINT64: 8, BFLOAT16: 2},
}
_DATA_FIELDS = {  # where the values of a tensor may stand beside raw_data
    **{FLOAT: "float_data", DOUBLE: "double_data", INT64: "int64_data", UINT64: "uint64_data", UINT32: "uint64_data"},
    **dict.fromkeys((UINT8, INT8, UINT16, INT16, INT32, BOOL, FLOAT16, BFLOAT16), "int32_data"),
}


def _by_tag(fields: dict[int, str]) -> dict[int, tuple[str, str, bool]]:
    """Name, type and whether it is repeated, by the number and wire type as they are written."""
    found = {}
    for number, words in fields.items():
        name, kind = words.split()
        repeated, kind = kind.startswith("*"), kind.lstrip("*")
        found[number << 3 | _WIRES.get(kind, _BYTES)] = name, kind, repeated
        if repeated and kind in _WIRES:
            found[number << 3 | _BYTES] = name, f"packed {kind}", repeated
    return found


_TAGS = {message: _by_tag(fields) for message, fields in _MESSAGES.items()}


class OnnxInfo:
    """What an ONNX file contains.

    Attributes:
        ir_version: of the file.
        opsets: version by domain; the standard operators' is "".
        metadata: by key.
        graph: the main graph, whose fields are named as in onnx.proto.
    """

    def __init__(self, model: Message) -> None:
        self.ir_version: int = model.get("ir_version", 0)
        opsets = ({**entry, "domain": standard(entry.get("domain", ""))} for entry in model.get("opset_import", ()))
        self.opsets = _pairs(opsets, "domain", "version", 0)
        self.metadata = _pairs(model.get("metadata_props", ()), "key", "value", "")
        self.graph: Message = model.get("graph", {})


def standard(domain: str) -> str:
    """A domain of operators; the standard one has two names."""
    return "" if domain == "ai.onnx" else domain


def inspect(data: bytes) -> OnnxInfo:
    """Read an ONNX file, all of it.

    Raises:
        ValueError: `data` is not an ONNX file, is truncated, refers to other files, or has something that is not
            understood; the message is the part of a sentence that follows the file's name.
    """
    if data[4:8] == b"ORTM":
        raise ValueError("not an ONNX file but onnxruntime's own format")
    info = OnnxInfo(_model(data))
    if not info.ir_version or not info.opsets:
        raise ValueError("not an ONNX file")
    return info


def views(data: bytearray) -> Message:
    """The message of an ONNX file, with texts as bytes: what is written to its memoryviews changes `data`.

    Raises:
        ValueError: as `inspect`.
    """
    inspect(bytes(data))
    return _Reader(data, texts=False).message(0, len(data), "Model", 0)


def chain(data: bytes) -> tuple[str, ...]:
    """Operator types of the main graph's nodes, in order, if they form a chain; else an empty tuple.

    In a chain the first input of each node is the output of the previous one, and its other inputs are weights.

    Raises:
        ValueError: as `inspect`.
    """
    graph = _model(data).get("graph", {})
    weights = {tensor.get("name", "") for tensor in graph.get("initializer", ())}
    found: list[str] = []
    made: str | None = None
    for node in graph.get("node", ()):
        first, *others = node.get("input", [""])
        if (made is not None and first != made) or first in weights or not weights.issuperset(others):
            return ()
        made = node.get("output", [""])[0]
        found.append(node.get("op_type", ""))
    return tuple(found)


def integers(tensor: Message) -> list[int]:
    """The values of a tensor of integers or booleans.

    Raises:
        ValueError: a value does not fit the tensor's type; the bits beyond would be cut off.
    """
    kind, raw = tensor["data_type"], tensor.get("raw_data")
    size, signed = _ITEM_BYTES[kind], kind in (INT8, INT16, INT32, INT64)
    if raw is not None:
        return [int.from_bytes(raw[i : i + size], "little", signed=signed) for i in range(0, len(raw), size)]
    found = _flat(tensor.get(_DATA_FIELDS[kind], ()), _DATA_FIELDS[kind].removesuffix("_data"))
    least, most = (-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1) if signed else (0, 2 ** (8 * size) - 1)
    if found and not least <= min(found) <= max(found) <= most:
        raise ValueError(f"the tensor {tensor.get('name', '')[:60]!r} has a value that its type has no room for")
    return found


def is_integer(kind: int) -> bool:
    """Whether a tensor's `data_type` is of whole numbers."""
    return kind in (UINT8, INT8, UINT16, INT16, INT32, INT64, UINT32, UINT64)


def _model(data: bytes) -> Message:
    try:
        return _Reader(data).message(0, len(data), "Model", 0)
    except UnicodeDecodeError:
        raise ValueError("a name is not UTF-8") from None


class _Reader:
    """Reads messages of one file; with `texts` False, texts stay memoryviews of their bytes."""

    def __init__(self, data: bytes | bytearray, *, texts: bool = True) -> None:
        self._data, self._view, self._left = data, memoryview(data), _MAX_FIELDS
        self._text = "text" if texts else ""

    def message(self, at: int, end: int, kind: str, depth: int) -> Message:
        """The message between two positions.

        Raises:
            ValueError: see `inspect`.
        """
        data, tags, text = self._data, _TAGS[kind], self._text
        found: Message = {}
        fields, left = 0, self._left
        while at < end:
            fields += 1
            if fields > left:
                raise ValueError(f"more than {_MAX_FIELDS} fields are too many for a graph")
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _varint(data, at - 1, end)
            field = tags.get(tag)
            if field is None:
                raise ValueError(_unknown(kind, tag))
            name, of, repeated = field
            wire = tag & 7
            value: Any
            if wire == _BYTES:
                if at >= end:
                    raise ValueError("truncated")
                size = data[at]
                at += 1
                if size > 127:
                    size, at = _varint(data, at - 1, end)
                if at + size > end:
                    raise ValueError("truncated")
                value = data[at : at + size].decode() if of == text else self._bytes(at, at + size, of, depth)
                at += size
            elif wire == _VARINT:
                value, at = _varint(data, at, end)
                value = _whole(value, of, kind, name)
            else:
                size = _SIZES[of]
                if at + size > end:
                    raise ValueError("truncated")
                value = self._view[at : at + size]
                at += size
            if repeated:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise ValueError(f"{kind}.{name} is there twice, which a bundle must not have")
            else:
                found[name] = value
        self._left -= fields
        if kind in _CHECKS:
            _CHECKS[kind](found)
        return found

    def _bytes(self, at: int, end: int, of: str, depth: int) -> Any:
        """What a field of bytes holds."""
        if of in _MESSAGES:
            if of == "Graph" and depth > _MAX_DEPTH:
                raise ValueError("graphs are nested too deeply")
            return self.message(at, end, of, depth + (of == "Graph"))
        if of in ("data", "bytes") or not of.startswith("packed"):
            return self._view[at:end]
        size = _SIZES.get(of[7:], 1)
        if (end - at) % size or (size == 1 and end > at and self._data[end - 1] > 127):
            raise ValueError("truncated")
        return self._view[at:end]


def _varint(data: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """A number of up to 64 bits, in as few bytes as it needs, and the position behind it."""
    value = shift = 0
    while at < end:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            if value >= 2**64 or (byte == 0 and shift > 7):
                raise ValueError("a number is written in a way that may be read differently")
            return value, at
        if shift > 63:
            raise ValueError("a number is written in a way that may be read differently")
    raise ValueError("truncated")


def _whole(value: int, of: str, kind: str, name: str) -> int:
    """A varint as its field has it; protobuf would cut off the bits that a field has no room for."""
    if of == "uint64":
        return value
    value -= 2**64 if value >= 2**63 else 0
    if of != "int64" and not -(2**31) <= value < 2**31:
        raise ValueError(f"{kind}.{name} is {value}, which has more than 32 bits")
    return value


def _flat(parts: Iterable[int | memoryview], of: str = "int64") -> list[int]:
    """Repeated integers, of which some may be packed."""
    found = []
    for part in parts:
        if isinstance(part, int):
            found.append(part)
            continue
        data, at = bytes(part), 0
        while at < len(data):
            value, at = _varint(data, at, len(data))
            found.append(_whole(value, of, "Tensor", f"{of}_data"))
    return found


def _unknown(kind: str, tag: int) -> str:
    """Why a field is refused."""
    number, wire = tag >> 3, tag & 7
    if tag >= 2**32 or not number or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
        return "not an ONNX file"
    name = _MESSAGES[kind].get(number, "").split(" ")[0]
    if name:
        return f"{kind}.{name} is of a wrong type (wire type {wire})"
    return f"its {kind} has a field {number} that a bundle must not have, or a newer format knows"


def _pairs(entries: Any, key: str, value: str, default: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        name, said = entry.get(key, ""), entry.get(value, default)
        if found.setdefault(name, said) != said:
            raise ValueError(f"{name[:60]!r} is there twice, with values that differ")
    return found


def _check_attribute(attribute: Message) -> None:
    held, wanted = _VALUES.intersection(attribute), _ATTRIBUTE_TYPES.get(attribute.get("type", 0))
    if wanted is None or not held <= {wanted}:
        raise ValueError(f"the attribute {attribute.get('name', '')[:60]!r} is of another type than it says")
    if "ints" in attribute:
        attribute["ints"] = _flat(attribute["ints"])


def _check_dimension(dimension: Message) -> None:
    if "dim_value" in dimension and "dim_param" in dimension:
        raise ValueError("a size is given twice, which a bundle must not have")


def _check_tensor(tensor: Message) -> None:
    """Data inside the file, once, of as many bytes as the shape says."""
    if tensor.get("data_location") or "external_data" in tensor:
        raise ValueError("refers to data outside the file, which a bundle must not")
    dims = tensor["dims"] = _flat(tensor.get("dims", ()))
    kind, name = tensor.get("data_type", 0), tensor.get("name", "")[:60]
    if kind not in _ITEM_BYTES:
        raise ValueError(f"the tensor {name!r} is of the type {kind}, which a bundle must not have")
    held = [field for field in ("raw_data", *_FIELDS_OF_DATA) if field in tensor]
    if len(held) > 1 or not set(held) <= {"raw_data", _DATA_FIELDS[kind]}:
        raise ValueError(f"the tensor {name!r} has its values in {' and '.join(held)}")
    count = math.prod(dims) if all(size >= 0 for size in dims) else -1
    if not _fits(tensor.get(held[0]) if held else None, count, kind):
        raise ValueError(f"the tensor {name!r} has another number of values than its shape {dims[:8]} says")


_FIELDS_OF_DATA = tuple(dict.fromkeys(_DATA_FIELDS.values()))


def _fits(values: Any, count: int, kind: int) -> bool:
    """Whether there may be so many values, without reading them."""
    if values is None or count < 0:
        return count == 0
    if isinstance(values, memoryview):
        return len(values) == count * _ITEM_BYTES[kind]
    least = most = 0
    for part in values:
        if not isinstance(part, memoryview):
            least, most = least + 1, most + 1
        elif kind in (FLOAT, DOUBLE):
            size = len(part) // _ITEM_BYTES[kind]
            least, most = least + size, most + size
        else:  # one to ten bytes for a number
            least, most = least - (-len(part) // 10), most + len(part)
    return least <= count <= most


_CHECKS = {"Attribute": _check_attribute, "Tensor": _check_tensor, "Dimension": _check_dimension}
