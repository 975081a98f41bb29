"""Rows written to .npy, .csv, .jsonl, .parquet or .wav: a file that appears when it is complete, or standard output."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, of_system
from aeedge.files.atomic import atomic_file
from aeedge.files.dialect import JSON_NUMBER, Cell
from aeedge.files.parquet import ParquetRows
from aeedge.files.wav import WavFormat, WavWriter

STDOUT = "-"
FORMATS = {".npy": "npy", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".wav": "wav"} | dict.fromkeys(
    (".jsonl", ".ndjson"), "jsonl"
)
"""Formats of output by suffix."""

_READER_SECONDS = 5.0


class Layout(NamedTuple):
    """What the rows of a file are: a table of named columns, or also an array.

    Attributes:
        names: of the columns.
        kinds: of each, "<f4", "<f8", "<i8", "|u1" or "|b1" as numpy writes dtypes; "number" and "text" for Python
            objects, None for nothing; "any" for values of an input as they are.
        row: shape of a row of the array, whose columns are all of one kind; None where columns are given one by one.
        wav: how the rows of an array are written to a WAV file; None where they are no recording.
    """

    names: Sequence[str]
    kinds: Sequence[str]
    row: tuple[int, ...] | None = None
    wav: WavFormat | None = None

    @classmethod
    def of_array(cls, row: tuple[int, ...], names: Sequence[str], kind: str = "<f4") -> Layout:
        """The layout of an array (n, *row), whose values have these names in C order."""
        return cls(names, [kind] * len(names), row)


class RowWriter:
    """Append rows to a file of one format, whose number of rows is not known in advance.

    Attributes:
        count: rows written until now.
    """

    flat = True  # whether a row is a row of a table, whatever its shape

    def __init__(self, stream: IO[bytes], layout: Layout) -> None:
        self._stream, self._layout = stream, layout
        self.count = 0

    def write(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        """Append an array (m, *row), or m values of each column."""
        self.count += len(rows) if isinstance(rows, np.ndarray) else len(rows[0])
        self._write(rows)

    def _write(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        raise NotImplementedError

    def _columns(self, rows: NDArray[Any] | Sequence[Any]) -> Sequence[Any]:
        """Values of each column."""
        return list(rows.reshape(len(rows), len(self._layout.names)).T) if isinstance(rows, np.ndarray) else rows

    def finish(self) -> None:
        """Write what can be written at the end only."""
        self._stream.flush()

    def discard(self) -> None:
        """End without a complete file, after an error."""

    def describe(self) -> str:
        """What was written, such as "30×3 float32"."""
        row = self._layout.row
        if row is None:
            return f"{len(self._layout.names)} column" + ("s" if len(self._layout.names) > 1 else "")
        flat = self.flat and len(row) > 1
        size = "×".join(map(str, (self.count, math.prod(row)) if flat else (self.count, *row)))
        return f"{size} {np.dtype(self._layout.kinds[0])}" + (
            f", {'×'.join(map(str, row))} flattened in C order" if flat else ""
        )


class NpyWriter(RowWriter):
    """An array, or a structured one with the columns as fields."""

    flat = False

    def __init__(self, stream: IO[bytes], layout: Layout) -> None:
        super().__init__(stream, layout)
        objects = [name for name, kind in zip(layout.names, layout.kinds) if kind[0] not in "<|"]
        if objects:
            raise InputError(
                f"an .npy holds numbers alone, not {', '.join(objects)}; name an output that ends in .csv, .jsonl or "
                ".parquet"
            )
        fields = list(zip(layout.names, layout.kinds))
        self._dtype = np.dtype(fields if layout.row is None else layout.kinds[0])
        self._stream.write(self._header())

    def _write(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        if isinstance(rows, np.ndarray):
            block: NDArray[Any] = np.ascontiguousarray(rows, self._dtype)
        else:
            block = np.empty(len(rows[0]), self._dtype)
            for name, values in zip(self._layout.names, rows):
                block[name] = values
        self._stream.write(block.tobytes())

    def finish(self) -> None:
        """Write the number of rows, which is known now."""
        self._stream.seek(0)
        self._stream.write(self._header())
        super().finish()

    def _header(self) -> bytes:
        """A header of numpy's format 1.0 whose length is the same for any count."""
        descr = self._dtype.descr if self._dtype.names else self._dtype.str
        head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': "
        size = 64 * math.ceil((10 + len(head) + 20 + len(str(self._layout.row)) + 5) / 64)
        text = f"{head}{(self.count, *(self._layout.row or ()))}, }}"
        return b"\x93NUMPY\x01\x00" + (size - 10).to_bytes(2, "little") + text.ljust(size - 11).encode() + b"\n"


class TextWriter(RowWriter):
    """Lines of text, UTF-8; a format says how a row is written, and values."""

    def _write(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        cells = [self._cells(kind, values) for kind, values in zip(self._layout.kinds, self._columns(rows))]
        template = self._template([form for form, _ in cells])
        lines = "".join([template % row for row in zip(*[values for _, values in cells])])
        self._stream.write(lines.encode("utf-8", "backslashreplace"))

    def _cells(self, kind: str, values: Any) -> tuple[str, list[Any]]:
        """Values of a column for a template, and their part of it."""
        if kind in ("<f4", "<f8"):
            return self._floats(np.asarray(values))
        if kind in ("<i8", "|u1"):
            return "%d", np.asarray(values).tolist()
        if kind == "|b1":
            return "%s", [self._truth[value] for value in np.asarray(values).tolist()]
        return "%s", [self._text(value) for value in values]

    def _floats(self, values: NDArray[Any]) -> tuple[str, list[Any]]:
        return "%.9g", values.tolist()

    _truth: tuple[str, str]
    _text: Callable[[Any], str]

    def _template(self, forms: list[str]) -> str:
        raise NotImplementedError


class CsvWriter(TextWriter):
    """Text with commas, and a header; truth values are 0 and 1."""

    _truth = ("0", "1")

    def __init__(self, stream: IO[bytes], layout: Layout) -> None:
        super().__init__(stream, layout)
        header = ",".join(map(_quoted, layout.names)) + "\n"
        self._stream.write(header.encode("utf-8", "backslashreplace"))

    @staticmethod
    def _text(value: Any) -> str:
        return "" if value is None else str(value).lower() if isinstance(value, bool) else _quoted(_plain(value))

    def _template(self, forms: list[str]) -> str:
        return ",".join(forms) + "\n"


class JsonWriter(TextWriter):
    """JSON lines: an object on each line; null for what is not finite, as JSON has no NaN."""

    _truth = ("false", "true")

    def _floats(self, values: NDArray[Any]) -> tuple[str, list[Any]]:
        finite = np.isfinite(values)
        if finite.all():
            return "%.9g", values.tolist()
        return "%s", [f"{v:.9g}" if ok else "null" for v, ok in zip(values.tolist(), finite.tolist())]

    @staticmethod
    def _text(value: Any) -> str:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return "null"
        if isinstance(value, (Cell, Decimal)) and (value == "" or JSON_NUMBER.fullmatch(str(value))):
            return str(value) or "null"  # a number, to the digit
        number = isinstance(value, (int, float))  # bool is an int
        return json.dumps(value if number else _plain(value), ensure_ascii=False)

    def _template(self, forms: list[str]) -> str:
        names = [json.dumps(name, ensure_ascii=False).replace("%", "%%") for name in self._layout.names]
        return "{" + ", ".join(f"{name}: {form}" for name, form in zip(names, forms)) + "}\n"


class ParquetWriter(RowWriter):
    """Columns in row groups."""

    def __init__(self, stream: IO[bytes], layout: Layout) -> None:
        super().__init__(stream, layout)
        self._rows = ParquetRows(stream, layout.names, layout.kinds)

    def _write(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        self._rows.write(self._columns(rows))

    def finish(self) -> None:
        """Write the last rows, and where they are."""
        self._rows.finish()
        super().finish()

    def discard(self) -> None:
        """Let go of the stream."""
        self._rows.discard()


class WavRows(RowWriter):
    """A recording, whose samples are the rows."""

    def __init__(self, stream: IO[bytes], layout: Layout) -> None:
        super().__init__(stream, layout)
        if layout.wav is None:
            raise InputError("a WAV holds recordings alone; name an output that ends in .npy, .csv, .jsonl or .parquet")
        self._writer, self._format = WavWriter(stream, layout.wav), layout.wav

    def _write(self, rows: NDArray[Any] | Sequence[Any]) -> None:
        self._writer.write(np.asarray(rows))

    def finish(self) -> None:
        """Write the number of samples, which is known now."""
        self._writer.finish()

    def describe(self) -> str:
        """What was written, such as "30×2 pcm16 at 8000 Hz"."""
        return f"{self.count}×{self._format.channels} {self._format.encoding} at {self._format.rate} Hz"


_WRITERS: dict[str, type[RowWriter]] = {
    "npy": NpyWriter,
    "csv": CsvWriter,
    "jsonl": JsonWriter,
    "parquet": ParquetWriter,
    "wav": WavRows,
}


def _plain(value: Any) -> str:
    """Text for an object of an input: times in ISO 8601."""
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _quoted(text: str) -> str:
    """A cell of a CSV file."""
    if any(c in text for c in ',"\r\n') or text.startswith("#") or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether rows are written somewhere that is no file: standard output, a pipe, a device."""
    if os.fspath(path) == STDOUT:
        return True
    mode = os.stat(path).st_mode if os.path.exists(path) else stat.S_IFREG
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def output_format(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format of an output: by its suffix, or `format`; of standard output, pipes and devices CSV or JSON lines.

    Raises:
        InputError: no known suffix and no format, or two that differ.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = FORMATS.get(suffix)
    if is_stream(path):
        return format or ("jsonl" if by_suffix == "jsonl" else "csv")
    if by_suffix is None and format is None:
        raise InputError(
            f"{path}: expected an output name that ends in {', '.join(FORMATS)}, got {suffix or 'no suffix'!r}"
        )
    if format is not None and by_suffix not in (None, format):
        raise InputError(f"{path}: expected {by_suffix} by its name, got format={format}; leave one of them out")
    return format or by_suffix or ""


@contextmanager
def row_writer(
    path: str | os.PathLike[str], layout: Layout, *, overwrite: bool, format: str | None = None
) -> Iterator[RowWriter]:
    """Write rows; a file appears once it is complete, standard output, pipes and devices get text as it is computed.

    Args:
        path: .npy, .csv, .jsonl (.ndjson), .parquet (.pq) or .wav, or "-" for standard output.
        layout: what the rows are.
        overwrite: whether a file may be replaced.
        format: "csv" or "jsonl", where the name does not say which.

    Raises:
        InputError: another suffix, the file exists, the disk is full, pyarrow is missing.
    """
    make = _WRITERS[output_format(path, format)]
    if is_stream(path):
        with _stream(path) as stream, _finished(make(stream, layout)) as writer:
            yield writer
    else:
        with (
            atomic_file(path, overwrite=overwrite) as part,
            part.open("wb") as stream,
            _finished(make(stream, layout)) as writer,
        ):
            yield writer


@contextmanager
def _finished(writer: RowWriter) -> Iterator[RowWriter]:
    try:
        yield writer
        writer.finish()
    except BaseException:
        writer.discard()
        raise


@contextmanager
def _stream(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    if os.fspath(path) == STDOUT:
        yield sys.stdout.buffer
        return
    try:
        with open(_handle(os.fspath(path)), "wb") as stream:
            yield stream
    except OSError as error:
        if isinstance(error, BrokenPipeError) or not of_system(error):  # the former: a reader that has read enough
            raise
        raise InputError(f"{path}: not written to the end, {error.strerror}; choose another place") from error


def _handle(name: str) -> int:
    """Open a pipe or device without waiting for it; of a pipe, a reader is given some time to come."""
    began = time.monotonic()
    while True:
        try:
            handle = os.open(name, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(name).st_mode):
                raise
            if time.monotonic() - began > _READER_SECONDS:
                raise InputError(f"{name}: is a pipe that nobody reads; start its reader first") from None
            time.sleep(0.01)
        else:
            if hasattr(os, "O_NONBLOCK"):
                os.set_blocking(handle, True)
            return handle
