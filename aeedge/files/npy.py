"""Arrays in .npy and .npz, read block by block in bounded memory."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge.files.source import DAMAGE, Source, unreadable

BLOCK_BYTES = 2**22
"""Bytes of input read at a time."""


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
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{name}: expected numpy's format, but it cannot be read ({error})") from None
        if dtype.kind not in "fiub":
            held = "Python objects" if dtype.hasobject else f"dtype {dtype}"
            raise InputError(f"{name}: expected numbers, got {held}; save it as a numeric array")
        if not shape:
            raise InputError(f"{name}: expected an array of rows, got a single value")
        return cls(tuple(shape), bool(fortran), dtype)


def npy_header(source: Source) -> Header:
    """The header of a .npy file."""
    return Header.read(io.BytesIO(source.head), source.name)


def npy_blocks(source: Source) -> Iterator[NDArray[Any]]:
    """The rows of a .npy file.

    Raises:
        InputError: truncated or damaged.
    """
    header = npy_header(source)
    if not header.fortran:
        with source.open() as stream:
            yield from _stream_blocks(stream, Header.read(stream, source.name), source.name)
        return
    try:
        whole = np.load(source.path, mmap_mode="r") if source.path else np.load(source.open_seekable())
    except (ValueError, OSError) as error:
        raise InputError(f"{source.name}: cannot be read ({error}); copy it again") from None
    step = _rows_at_a_time(header)
    for start in range(0, len(whole), step):
        yield np.array(whole[start : start + step])


def npz_member(source: Source, array: str | None) -> str:
    """The array of an archive that is named `array`, or the only one, or the one named X.

    Raises:
        InputError: no such array, or several without a choice.
    """
    with _zip(source) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    if array is not None and array not in names:
        raise InputError(f"{source.name}: expected an array {array!r}, but it holds {', '.join(names)}")
    if array is None and len(names) != 1 and "X" not in names:
        held = ", ".join(names)
        raise InputError(f"{source.name}: expected one array, got {len(names)} ({held}); name one with --array")
    return array or (names[0] if len(names) == 1 else "X")


def npz_header(source: Source, member: str) -> Header:
    """The header of an array of an archive."""
    with _zip(source) as archive, archive.open(f"{member}.npy") as stream:
        return Header.read(stream, f"{source.name}, array {member!r}")


def npz_blocks(source: Source, member: str) -> Iterator[NDArray[Any]]:
    """The rows of an array of an archive.

    Raises:
        InputError: damaged, or stored in column order.
    """
    name = f"{source.name}, array {member!r}"
    with _zip(source) as archive, archive.open(f"{member}.npy") as stream:
        header = Header.read(stream, name)
        if header.fortran:
            raise InputError(f"{name}: is in column order; save it with numpy.ascontiguousarray first")
        try:
            yield from _stream_blocks(stream, header, name)
        except zipfile.BadZipFile as error:
            raise InputError(f"{name}: is damaged ({error}); copy it again") from None


@contextmanager
def _zip(source: Source) -> Iterator[zipfile.ZipFile]:
    try:
        with source.open_seekable() as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise InputError(f"{source.name}: expected an .npz archive, but it is damaged ({error})") from None


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


def _read(stream: IO[bytes], size: int, name: str) -> bytes:
    try:
        return stream.read(size)
    except DAMAGE as error:
        raise unreadable(name, error) from None


def _rows_at_a_time(header: Header) -> int:
    return max(1, BLOCK_BYTES // max(1, header.dtype.itemsize * math.prod(header.shape[1:])))
