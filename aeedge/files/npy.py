"""Arrays in .npy and .npz, read block by block in bounded memory."""

from __future__ import annotations

import ast
import io
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, absent, printable, shortened
from aeedge.files.source import DAMAGE, Source, reading

BLOCK_BYTES = 2**22
"""Bytes of input read at a time."""

_MAGIC, _HEADER_BYTES, _AXES = b"\x93NUMPY", 2**16, 32
_LITERAL = re.compile(r"(?:[\s{}()\[\],:]|'[^'\\]*'|\"[^\"\\]*\"|True\b|False\b|-?\d{1,30}L?\b)+")  # and nothing else
_NUMBERS, _OTHERS = re.compile(r"[<>|=]?(\?|[biuf]\d{1,2})"), re.compile(r"[<>|=](c8|c16|[USV]\d{1,3})")


@dataclass(frozen=True)
class Header:
    """Shape, order and dtype of a stored array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @classmethod
    def read(cls, stream: IO[bytes], name: str) -> Header:
        """Read the header at the start of a stream.

        Raises:
            InputError: another format, or an array that holds no numbers in rows.
        """
        with reading(name):
            version, text = _header_text(stream)
        try:
            if version not in (1, 2, 3) or _LITERAL.fullmatch(text) is None:
                raise ValueError("its header is damaged")
            fields = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text))  # as Python 2 wrote numbers
            descr, fortran, shape = (fields[key] for key in ("descr", "fortran_order", "shape"))
            if not isinstance(fortran, bool):
                raise ValueError(f"its order is {fortran}")
            is_number = isinstance(descr, str) and _NUMBERS.fullmatch(descr)
            dtype = np.dtype(descr if is_number else "V1")
            if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > _AXES:
                raise ValueError(f"its shape is {shape}")
        except DAMAGE as error:
            why = printable(str(error), 200)
            raise InputError(f"{name}: expected numpy's format, but it cannot be read ({why}); copy it again") from None
        if not is_number:
            kind = np.dtype(descr) if _OTHERS.fullmatch(str(descr)) else descr
            held = "Python objects" if "O" in str(descr) else f"dtype {printable(str(kind))}"
            raise InputError(f"{name}: expected numbers, got {held}; save it as a numeric array")
        if not shape:
            raise InputError(f"{name}: expected an array of rows, got a single value")
        if 0 in shape[1:]:
            raise InputError(f"{name}: expected rows of numbers, got an array of shape {printable(str(shape))}")
        return cls(shape, fortran, dtype)


def _header_text(stream: IO[bytes]) -> tuple[int, str]:
    """The version, 0 where it is another format, and the text of the header."""
    start = stream.read(len(_MAGIC) + 2)
    version = start[-2] if start[:-2] == _MAGIC else 0
    size = int.from_bytes(stream.read(2 if version == 1 else 4), "little")
    return version, stream.read(min(size, _HEADER_BYTES)).decode("utf-8" if version == 3 else "latin-1")


def npy_header(source: Source) -> Header:
    """The header of a .npy file."""
    return Header.read(io.BytesIO(source.head), source.name)


def npy_blocks(source: Source) -> Iterator[NDArray[Any]]:
    """The rows of a .npy file.

    Raises:
        InputError: truncated or damaged.
    """
    header = npy_header(source)
    with source.open_seekable() if header.fortran else source.open() as stream:
        header = Header.read(stream, source.name)
        yield from (_column_blocks if header.fortran else _stream_blocks)(stream, header, source.name)


def npz_member(source: Source, array: str | None) -> str:
    """The array of an archive that is named `array`, or the only one, or the one named X.

    Raises:
        InputError: no such array, or several without a choice.
    """
    with _zip(source) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    if array is not None and array not in names:
        raise InputError(f"{source.name}: {absent(array, names, 'an array')}")
    if array is None and len(names) != 1 and "X" not in names:
        held = f"got {len(names)} ({shortened(names)}); name one with --array" if names else "but it has none"
        raise InputError(f"{source.name}: expected one array, {held}")
    return array or (names[0] if len(names) == 1 else "X")


def npz_header(source: Source, member: str) -> Header:
    """The header of an array of an archive."""
    with _member(source, member) as stream:
        return Header.read(stream, f"{source.name}, array {member!r}")


def npz_blocks(source: Source, member: str) -> Iterator[NDArray[Any]]:
    """The rows of an array of an archive.

    Raises:
        InputError: damaged, encrypted, or stored in column order.
    """
    name = f"{source.name}, array {member!r}"
    with _member(source, member) as stream:
        header = Header.read(stream, name)
        if header.fortran:
            raise InputError(f"{name}: is in column order; save it with numpy.ascontiguousarray first")
        yield from _stream_blocks(stream, header, name)


@contextmanager
def _zip(source: Source) -> Iterator[zipfile.ZipFile]:
    with source.open_seekable() as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except DAMAGE as error:
            why = printable(str(error), 200)
            raise InputError(f"{source.name}: expected an .npz archive, but it is damaged ({why})") from None
        with archive:
            yield archive


@contextmanager
def _member(source: Source, member: str) -> Iterator[IO[bytes]]:
    with _zip(source) as archive:
        with reading(f"{source.name}, array {member!r}"):
            stream = archive.open(f"{member}.npy")
        with stream:
            yield stream


def _stream_blocks(stream: IO[bytes], header: Header, name: str) -> Iterator[NDArray[Any]]:
    row_bytes = header.dtype.itemsize * math.prod(header.shape[1:])
    step = _rows_at_a_time(header)
    for start in range(0, header.shape[0], step):
        rows = min(step, header.shape[0] - start)
        data = _read(stream, rows * row_bytes, name)
        if len(data) != rows * row_bytes:
            found = start + len(data) // max(row_bytes, 1)
            raise InputError(f"{name}: truncated, expected {header.shape[0]} rows, got {found}; copy it again")
        yield np.frombuffer(data, header.dtype).reshape(rows, *header.shape[1:])
    while not isinstance(stream, io.BufferedReader) and _read(stream, BLOCK_BYTES, name):
        pass  # a compressed file compares its checksum only at its end


def _column_blocks(stream: IO[bytes], header: Header, name: str) -> Iterator[NDArray[Any]]:
    """Rows of an array in column order; not mapped into memory, since a mapped file that shrinks ends the process."""
    count, size = header.shape[0], header.dtype.itemsize
    columns, origin, step = math.prod(header.shape[1:]), stream.tell(), _rows_at_a_time(header)
    for start in range(0, count, step):
        rows, parts = min(step, count - start), []
        for column in range(columns):
            with reading(name):
                stream.seek(origin + (column * count + start) * size)
            parts.append(_read(stream, rows * size, name))
            if len(parts[-1]) < rows * size:
                raise InputError(f"{name}: truncated, expected {columns} columns of {count} rows; copy it again")
        yield np.frombuffer(b"".join(parts), header.dtype).reshape((rows, *header.shape[1:]), order="F")


def _read(stream: IO[bytes], size: int, name: str) -> bytes:
    """At most `size` bytes; memory is taken for those that are there, not for those that a header claims."""
    parts = []
    with reading(name):
        while size > 0 and (part := stream.read(min(size, BLOCK_BYTES))):
            parts.append(part)
            size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _rows_at_a_time(header: Header) -> int:
    return max(1, BLOCK_BYTES // (header.dtype.itemsize * math.prod(header.shape[1:])))
