"""Columns of tables of any package, by the protocols that they share: Arrow's C stream and the interchange protocol.

No package is imported: a stream of Arrow is read with ctypes, https://arrow.apache.org/docs/format/CStreamInterface.html,
and `__dataframe__` is Python, https://data-apis.org/dataframe-protocol/latest. Values are copied; null is NaN.
Of a stream numbers, truth values, decimals and lists are read, of the interchange protocol the first two.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, Structure, c_char_p, c_int, c_int64, c_void_p, py_object
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.runtime.frames import UNREADABLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Columns = list[tuple[str, Any]]  # names of columns, and an array (n,) of each, or NoNumbers
    Reader = Callable[[Any, int, int], NDArray[Any]]  # from an array of Arrow, and offset and length of its batch

_FORMATS = {"c": "i1", "C": "u1", "s": "i2", "S": "u2", "i": "i4", "I": "u4", "l": "i8", "L": "u8"} | {
    "e": "f2", "f": "f4", "g": "f8",
}  # fmt: skip
_OTHERS = dict.fromkeys("uU", "text") | dict.fromkeys("zZ", "bytes") | {"t": "times"}
_INT, _UINT, _FLOAT, _BOOL, _CATEGORY = 0, 1, 2, 20, 23  # kinds of the interchange protocol
_SENTINEL, _BITS, _BYTES = 2, 3, 4  # how it tells what is missing, beside NaN


class _Schema(Structure):
    pass


class _Array(Structure):
    pass


class _Stream(Structure):
    pass


_Schema._fields_ = [
    ("format", c_char_p),
    ("name", c_char_p),
    ("metadata", c_void_p),
    ("flags", c_int64),
    ("n_children", c_int64),
    ("children", POINTER(POINTER(_Schema))),
    ("dictionary", POINTER(_Schema)),
    ("release", CFUNCTYPE(None, POINTER(_Schema))),
    ("private_data", c_void_p),
]
_Array._fields_ = [
    ("length", c_int64),
    ("null_count", c_int64),
    ("offset", c_int64),
    ("n_buffers", c_int64),
    ("n_children", c_int64),
    ("buffers", POINTER(c_void_p)),
    ("children", POINTER(POINTER(_Array))),
    ("dictionary", POINTER(_Array)),
    ("release", CFUNCTYPE(None, POINTER(_Array))),
    ("private_data", c_void_p),
]
_Stream._fields_ = [
    ("get_schema", CFUNCTYPE(c_int, POINTER(_Stream), POINTER(_Schema))),
    ("get_next", CFUNCTYPE(c_int, POINTER(_Stream), POINTER(_Array))),
    ("get_last_error", CFUNCTYPE(c_char_p, POINTER(_Stream))),
    ("release", CFUNCTYPE(None, POINTER(_Stream))),
    ("private_data", c_void_p),
]


class NoNumbers:
    """A column that holds something else, of which `type` says what."""

    def __init__(self, type: str) -> None:
        self.type = type

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.empty(0, "U1")


def from_arrow(table: Any) -> Columns:
    """The columns of a table that has `__arrow_c_stream__`.

    Raises:
        ValueError: the stream is none of a table, or ended in an error.
    """
    capsule = table.__arrow_c_stream__()
    pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    stream = _Stream.from_address(pointer(capsule, b"arrow_array_stream"))
    schema = _Schema()
    with _released(schema):
        _check(stream, stream.get_schema(stream, schema))
        if schema.format != b"+s":
            raise ValueError(f"expected a table, got a stream of Arrow's format {schema.format!r}")
        names = [(child.name or b"").decode() for child in _children(schema)]
        readers = [_reader(child) for child in _children(schema)]
    parts: list[list[NDArray[Any]]] = [[] for _ in names]
    while True:
        batch = _Array()
        with _released(batch):
            _check(stream, stream.get_next(stream, batch))
            if not batch.release:
                break
            for part, read, child in zip(parts, readers, _children(batch)):
                if not isinstance(read, NoNumbers):
                    part.append(read(child, batch.offset, batch.length))
    found = [read if isinstance(read, NoNumbers) else _joined(part) for read, part in zip(readers, parts)]
    return list(zip(names, found))


def _check(stream: _Stream, code: int) -> None:
    if code:
        why = stream.get_last_error(stream)
        raise ValueError(why.decode(errors="replace") if why else f"Arrow's error {code}")


@contextmanager
def _released(structure: Any) -> Iterator[None]:
    """Give back what a producer has filled in."""
    try:
        yield
    finally:
        if structure.release:
            structure.release(structure)


def _children(structure: Any) -> list[Any]:
    return [structure.children[i].contents for i in range(structure.n_children)]


def _reader(field: _Schema) -> Reader | NoNumbers:
    """What reads a column of this type."""
    kind = field.format.decode()
    if field.dictionary:
        return NoNumbers("dictionary")
    if kind in _FORMATS:
        dtype = np.dtype(_FORMATS[kind])
        return partial(_with_nulls, lambda array, start, stop: _items(array.buffers[1], dtype, start, stop))
    if kind == "b":
        return partial(_with_nulls, lambda array, start, stop: _bits(array.buffers[1], start, stop))
    decimal = re.fullmatch(r"d:\d+,(-?\d+)", kind)  # of 128 bits; others name them
    if decimal:
        return partial(_with_nulls, partial(_decimals, int(decimal[1])))
    if kind in ("+l", "+L") or kind.startswith("+w:"):
        inner = _reader(field.children[0].contents)
        if not isinstance(inner, NoNumbers):
            return partial(_lists, kind, inner)
    return NoNumbers(_OTHERS.get(kind[:1], f"Arrow's format {kind}"))


def _with_nulls(
    values: Callable[[_Array, int, int], NDArray[Any]], array: _Array, offset: int, length: int
) -> NDArray[Any]:
    """Values of a column, NaN where there is nothing."""
    start = array.offset + offset
    found = values(array, start, start + length)
    valid = _valid(array, start, start + length)
    return found if valid is None else _with_nan(found, ~valid)


def _valid(array: _Array, start: int, stop: int) -> NDArray[np.bool_] | None:
    return None if array.null_count == 0 or not array.buffers[0] else _bits(array.buffers[0], start, stop)


def _decimals(scale: int, array: _Array, start: int, stop: int) -> NDArray[np.float64]:
    parts = _items(array.buffers[1], np.dtype([("low", "<u8"), ("high", "<i8")]), start, stop)
    return np.asarray((parts["high"] * 2.0**64 + parts["low"]) / 10.0**scale)


def _lists(kind: str, inner: Reader, array: _Array, offset: int, length: int) -> NDArray[Any]:
    """Lists of numbers, (n,) of objects; None where there is nothing."""
    start, child = array.offset + offset, array.children[0].contents
    if kind.startswith("+w:"):
        ends = np.arange(start, start + length + 1) * int(kind[3:])
    else:
        ends = _items(array.buffers[1], np.dtype("i4" if kind == "+l" else "i8"), start, start + length + 1)
    numbers, valid = inner(child, 0, child.length), _valid(array, start, start + length)
    found = np.empty(length, object)
    for i in range(length):
        found[i] = None if valid is not None and not valid[i] else numbers[ends[i] : ends[i + 1]]
    return found


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0)


def from_interchange(table: Any) -> Columns:
    """The columns of a table that has `__dataframe__`."""
    frame = table.__dataframe__(allow_copy=True)
    found: Columns = []
    for name in frame.column_names():
        try:
            chunks = [_interchanged(chunk.get_column_by_name(name)) for chunk in frame.get_chunks()]
        except UNREADABLE as error:
            found.append((name, NoNumbers(f"another type ({error})")))
            continue
        other = next((chunk for chunk in chunks if isinstance(chunk, NoNumbers)), None)
        found.append((name, _joined(chunks) if other is None else other))
    return found


def _interchanged(column: Any) -> Any:
    """Values of a column, NaN where there is nothing."""
    kind, bits, _, _ = column.dtype
    letter = {_INT: "i", _UINT: "u", _FLOAT: "f", _BOOL: "u"}.get(int(kind))
    if letter is None:
        return NoNumbers("dictionary" if int(kind) == _CATEGORY else getattr(kind, "name", str(kind)))
    start, stop, buffers = column.offset, column.offset + column.size(), column.get_buffers()
    data = buffers["data"][0].ptr
    values = _bits(data, start, stop) if bits == 1 else _items(data, np.dtype(f"{letter}{bits // 8}"), start, stop)
    how, value = column.describe_null
    how = int(how)
    if how == _SENTINEL:
        return _with_nan(values, values == value)
    if how not in (_BITS, _BYTES) or buffers["validity"] is None:
        return values
    mask = buffers["validity"][0].ptr
    marks = _bits(mask, start, stop) if how == _BITS else _items(mask, np.dtype(np.bool_), start, stop)
    return _with_nan(values, marks == bool(value))


# --- memory of other packages


def _items(address: int | None, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[Any]:
    """A copy of some items."""
    return _memory(address, stop * dtype.itemsize).view(dtype)[start:].copy()


def _bits(address: int | None, start: int, stop: int) -> NDArray[np.bool_]:
    """Truth values, the lowest bit of each byte first."""
    return np.unpackbits(_memory(address, (stop + 7) // 8), bitorder="little")[start:stop].astype(bool)


def _memory(address: int | None, size: int) -> NDArray[np.uint8]:
    """Bytes at an address; none where a producer has no buffer for an empty column."""
    if not size or not address:
        return np.empty(0, np.uint8)
    buffer: Any = (ctypes.c_uint8 * size).from_address(address)
    found: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)
    return found


def _with_nan(values: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    if not missing.any():
        return values
    found = values.astype(np.result_type(values.dtype, np.float32))
    found[missing] = np.nan
    return found
