"""Files of rows, read and written block by block in bounded memory: .npy, .npz and .csv, with numpy alone.

Used by the commands on the device. The workstation reads more formats (aeedge_export.data.files), and shares the
functions here that detect the layout of a CSV file.
"""

from __future__ import annotations

import csv
import io
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file

BLOCK_BYTES = 2**22
"""Bytes of input read at a time."""


@dataclass(frozen=True)
class RowFile:
    """An input file: `blocks()` yields arrays of shape (m, *row); `count` is the number of rows, if it is known."""

    blocks: Callable[[], Iterator[NDArray[Any]]]
    count: int | None
    note: str = ""


def open_rows(path: str | os.PathLike[str], columns: Sequence[str] | None = None, array: str | None = None) -> RowFile:
    """Open a file of rows.

    Args:
        path: .npy; .npz (with one array, or named by `array`); .csv with comma, semicolon or tab, header optional.
        columns: feature names of the model. The columns of a CSV file with a header are matched by name, in any order.
        array: name of the array inside an .npz.

    Raises:
        InputError: missing, another format, damaged, cells that are not numbers, missing columns.
    """
    place = Path(path)
    if not place.is_file():
        raise InputError(f"{place}: expected a file, but nothing is there; check the path")
    suffix = place.suffix.lower()
    if suffix == ".npy":
        with place.open("rb") as stream:
            header = _NpyHeader.read(stream, place)
        return RowFile(lambda: _npy_file_blocks(place), header.shape[0])
    if suffix == ".npz":
        member = npz_member(place, array)
        with _zip(place) as archive, archive.open(member) as stream:
            header = _NpyHeader.read(stream, place)
        return RowFile(lambda: _npz_blocks(place, member), header.shape[0])
    if suffix == ".csv":
        layout = csv_layout(place)
        order, note = _column_order(layout, columns, place)
        return RowFile(lambda: _csv_blocks(place, layout, order), None, note)
    raise InputError(f"{place}: expected .npy, .npz or .csv, got {suffix or 'no suffix'!r}; convert it first")


# --- .npy and .npz


@dataclass(frozen=True)
class _NpyHeader:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @classmethod
    def read(cls, stream: IO[bytes], place: Path) -> _NpyHeader:
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{place}: expected numpy's format, but it cannot be read ({error})") from None
        if dtype.hasobject:
            raise InputError(f"{place}: expected numbers, got Python objects; save it as a numeric array")
        if not shape:
            raise InputError(f"{place}: expected an array of rows, got a single value")
        return cls(tuple(shape), bool(fortran), dtype)


def npz_member(place: Path, array: str | None) -> str:
    """The archive member with the array `array`, or the only array, or the one named X.

    Raises:
        InputError: no such array, or several without a choice.
    """
    with _zip(place) as archive:
        names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    if array is not None and array not in names:
        raise InputError(f"{place}: expected an array {array!r}, but it holds {', '.join(names)}")
    if array is None and len(names) != 1 and "X" not in names:
        raise InputError(f"{place}: expected one array, got {len(names)} ({', '.join(names)}); name one with --array")
    return f"{array or (names[0] if len(names) == 1 else 'X')}.npy"


@contextmanager
def _zip(place: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(place) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise InputError(f"{place}: expected an .npz archive, but it is damaged ({error})") from None


def _npy_file_blocks(place: Path) -> Iterator[NDArray[Any]]:
    with place.open("rb") as stream:
        header = _NpyHeader.read(stream, place)
        if not header.fortran:
            yield from _stream_blocks(stream, header, place)
            return
    try:
        mapped = np.load(place, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise InputError(f"{place}: cannot be read ({error}); copy it again") from None
    step = _rows_at_a_time(header)
    for start in range(0, len(mapped), step):
        yield np.array(mapped[start : start + step])


def _npz_blocks(place: Path, member: str) -> Iterator[NDArray[Any]]:
    with _zip(place) as archive, archive.open(member) as stream:
        header = _NpyHeader.read(stream, place)
        if header.fortran:
            raise InputError(f"{place}: {member} is in column order; save it with numpy.ascontiguousarray first")
        yield from _stream_blocks(stream, header, place)


def _stream_blocks(stream: IO[bytes], header: _NpyHeader, place: Path) -> Iterator[NDArray[Any]]:
    row_bytes = header.dtype.itemsize * math.prod(header.shape[1:])
    step = _rows_at_a_time(header)
    for start in range(0, header.shape[0], step):
        rows = min(step, header.shape[0] - start)
        data = stream.read(rows * row_bytes)
        if len(data) != rows * row_bytes:
            raise InputError(
                f"{place}: truncated, expected {header.shape[0]} rows, got {start + len(data) // max(row_bytes, 1)}; "
                "copy it again"
            )
        yield np.frombuffer(data, header.dtype).reshape(rows, *header.shape[1:])


def _rows_at_a_time(header: _NpyHeader) -> int:
    return max(1, BLOCK_BYTES // max(1, header.dtype.itemsize * math.prod(header.shape[1:])))


# --- .csv


@dataclass(frozen=True)
class CsvLayout:
    """The layout of a CSV file: its delimiter, its column names if it has a header, its number of columns."""

    delimiter: str
    names: tuple[str, ...] | None
    width: int


def csv_layout(place: Path) -> CsvLayout:
    """Detect the layout from the first line.

    The delimiter is the most frequent of `, ; tab`; a header has a cell that is not a number.

    Raises:
        InputError: the file is empty or not text.
    """
    try:
        with place.open(encoding="utf-8-sig", newline="") as stream:
            first = next((line for line in stream if line.strip()), "")
    except UnicodeDecodeError:
        raise InputError(f"{place}: expected text in UTF-8, got something else; save it as UTF-8") from None
    if not first:
        raise InputError(f"{place}: expected rows of numbers, but the file is empty")
    delimiter = max(",;\t", key=first.count)
    cells = [cell.strip() for cell in next(csv.reader(io.StringIO(first), delimiter=delimiter))]
    named = any(not is_number(cell) for cell in cells if cell)
    if named and len(set(cells)) != len(cells):
        twice = next(cell for cell in cells if cells.count(cell) > 1)
        raise InputError(f"{place}: expected each column name once, got {twice!r} twice in the header; rename one")
    return CsvLayout(delimiter, tuple(cells) if named else None, len(cells))


def is_number(cell: str) -> bool:
    """Whether a cell is a number; nan and inf are."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column_order(layout: CsvLayout, columns: Sequence[str] | None, place: Path) -> tuple[list[int] | None, str]:
    """The columns to read, in the model's order, and a note where some are not used or names do not match."""
    if columns is None or layout.names is None:
        return None, ""
    missing = [name for name in columns if name not in layout.names]
    if missing:
        if not any(name in layout.names for name in columns) and len(columns) == layout.width:
            return None, "no column name matches the model's features; columns are read in order"
        raise InputError(f"{place}: expected a column {missing[0]!r}, got {', '.join(layout.names)}; rename or add it")
    order = [layout.names.index(name) for name in columns]
    extra = [name for name in layout.names if name not in set(columns)]
    return order, f"columns that the model does not use: {', '.join(extra)}" if extra else ""


def _csv_blocks(place: Path, layout: CsvLayout, order: list[int] | None) -> Iterator[NDArray[Any]]:
    with place.open(encoding="utf-8-sig", newline="") as stream:
        numbered = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        if layout.names is not None:
            next(numbered)
        step = max(1, BLOCK_BYTES // (8 * layout.width))
        while True:
            first = next(numbered, None)
            if first is None:
                return
            lines = list(chain([first], islice(numbered, step - 1)))
            yield _parse(lines, place, layout, order)


def _parse(lines: list[tuple[int, str]], place: Path, layout: CsvLayout, order: list[int] | None) -> NDArray[Any]:
    try:
        block = np.loadtxt(
            [line for _, line in lines], delimiter=layout.delimiter, comments=None, quotechar='"', ndmin=2
        )
        if block.shape[1] == layout.width:
            return block if order is None else block[:, order]
    except ValueError:
        pass  # find the first faulty cell, cell by cell
    for number, line in lines:
        cells = next(csv.reader([line], delimiter=layout.delimiter))
        if len(cells) != layout.width:
            raise InputError(f"{place}, line {number}: expected {layout.width} cells, got {len(cells)}")
        for column, cell in enumerate(cells):
            if not is_number(cell):
                name = f"column {column + 1}" + (f" ({layout.names[column]!r})" if layout.names else "")
                raise InputError(f"{place}, line {number}, {name}: expected a number, got {cell.strip()!r}")
    raise InputError(f"{place}: lines {lines[0][0]} to {lines[-1][0]} cannot be read as numbers")


# --- writing


class RowWriter:
    """Append float32 blocks of rows to a .npy or .csv file whose length is not known in advance."""

    def __init__(self, stream: IO[bytes], suffix: str, row: tuple[int, ...], names: Sequence[str]) -> None:
        self._stream, self._row, self._npy = stream, row, suffix == ".npy"
        self.count = 0
        self._stream.write(self._header() if self._npy else (",".join(map(_quoted, names)) + "\n").encode())

    def write(self, block: NDArray[np.float32]) -> None:
        """Append rows of shape (m, *row)."""
        self.count += len(block)
        if self._npy:
            self._stream.write(np.ascontiguousarray(block, "<f4").tobytes())
        else:
            np.savetxt(self._stream, block.reshape(len(block), math.prod(self._row)), fmt="%.9g", delimiter=",")

    def finish(self) -> None:
        """Write the number of rows, which is known now."""
        if self._npy:
            self._stream.seek(0)
            self._stream.write(self._header())
        self._stream.flush()

    def _header(self) -> bytes:
        """A header of numpy's format 1.0 that is always 128 bytes, enough for any count."""
        shape = (self.count, *self._row)
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n') else name


@contextmanager
def row_writer(
    path: str | os.PathLike[str], row: tuple[int, ...], names: Sequence[str], *, overwrite: bool
) -> Iterator[RowWriter]:
    """Write rows of shape `row` to .npy or .csv (with `names` as its header); the file appears once it is complete.

    Raises:
        InputError: another suffix, the file exists, the disk is full.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise InputError(f"{place}: expected an output name that ends in .npy or .csv, got {suffix or 'no suffix'!r}")
    with atomic_file(place, overwrite=overwrite) as part, part.open("wb") as stream:
        writer = RowWriter(stream, suffix, row, names)
        yield writer
        writer.finish()
