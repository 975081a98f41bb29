"""Samples as they come: lines of text or JSON, or raw numbers, in pieces of any size that a pipe or a device gives.

Parsers take bytes and give chunks of samples; they never wait for more than the end of a line or a sample.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from aeedge.errors import InputError
from aeedge.files.source import STDIN, unreadable
from aeedge.signals.csv_lines import CsvParser
from aeedge.signals.json_lines import JsonParser
from aeedge.signals.lines import Chunk, Fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW = {
    "u8": "|u1",
    "s8": "|i1",
    **{f"{kind}{bits}{end}": f"{order}{code}{bits // 8}"
       for kind, code, sizes in (("u", "u", (16, 32)), ("s", "i", (16, 32)), ("f", "f", (32, 64)))
       for bits in sizes for end, order in (("le", "<"), ("be", ">"))},
    "s24le": "<i4",
}  # fmt: skip
"""Formats of raw samples, channel by channel as sound cards give them, and their dtypes; s24le has three bytes each."""

FORMATS = ("csv", "jsonl", *RAW)
_PIECE = 2**16  # bytes


class Parser(Protocol):
    """What all parsers do."""

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Samples that are complete with these bytes."""

    def close(self) -> Iterator[Chunk]:
        """Samples that the end completes."""

    def message(self, data: bytes) -> Iterator[Chunk]:
        """Samples of a message, which has whole ones."""


class RawParser:
    """Raw numbers, channel by channel, to samples, whole numbers as they are.

    Args:
        format: one of RAW.
        fields: of a sample.
        name: of the source, for messages.
    """

    def __init__(self, format: str, fields: Fields, name: str) -> None:
        self._dtype, self.fields, self.name = np.dtype(RAW[format]), fields, name
        self._item = 3 if format == "s24le" else self._dtype.itemsize
        self._frame = self._item * len(fields.channels)  # bytes of a sample
        self._rest, self._is_begun, self._latest = b"", False, 1

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Samples that are complete with these bytes.

        Raises:
            InputError: a file of sound with a header.
        """
        data = self._rest + data
        if not self._is_begun and len(data) >= 4:
            self._is_begun = True
            if data[:4] == b"RIFF":
                raise InputError(
                    f"{self.name}: expected raw samples, got a WAV file with a header; leave it out (arecord -t raw)"
                )
        whole = len(data) // self._frame * self._frame
        self._rest = data[whole:]
        if whole:
            yield Chunk(self._samples(data[:whole]))

    def close(self) -> Iterator[Chunk]:
        """Nothing.

        Raises:
            InputError: the last sample is not complete.
        """
        if self._rest:
            raise InputError(
                f"{self.name}: expected whole samples of {self._frame} bytes ({len(self.fields.channels)} channels of "
                f"{self._item}), got {len(self._rest)} bytes more; are format and channels right?"
            )
        yield from ()

    def message(self, data: bytes) -> Iterator[Chunk]:
        """Samples of a message; one that ends within a sample is missing as many as the latest had."""
        if not data or len(data) % self._frame:
            fault = f"{self.name}: expected whole samples of {self._frame} bytes, got {len(data)} bytes"
            yield Chunk(None, missing=self._latest, fault=fault)
            return
        samples = self._samples(data)
        self._latest = len(samples)
        yield Chunk(samples)

    def _samples(self, data: bytes) -> NDArray[Any]:
        if self._item == 3:  # into the upper three of four bytes, then down, for the sign
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            values = wide.view("<i4")[:, 0] >> 8
        else:
            values = np.frombuffer(data, self._dtype)
        return values.reshape(-1, len(self.fields.channels))


class AnyParser(JsonParser):
    """Lines of text or JSON, whichever the first one that is a sample is: devices say something when they start."""

    def __init__(self, fields: Fields, name: str) -> None:
        super().__init__(fields, name)
        self._csv = CsvParser(fields, name)
        self._is_json: bool | None = None

    def _row(self, line: bytes) -> tuple[Any, Any] | None:
        start = line.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        is_json = start in (b"{", b"[") if self._is_json is None else self._is_json
        found = super()._row(line) if is_json else self._csv.row(line, self._line)
        if found is not None:
            self._is_json = is_json
        return found


def parser_of(format: str | None, fields: Fields, name: str) -> Parser:
    """The parser of a format; None for text, whatever the first line is.

    Raises:
        InputError: an unknown format.
    """
    format = None if format is None else format.lower().replace("_", "")
    if format is None:
        return AnyParser(fields, name)
    if format not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got {format!r:.60}")
    if format in RAW:
        return RawParser(format, fields, name)
    return (CsvParser if format == "csv" else JsonParser)(fields, name)


def read_pieces(
    path: str, pause: float | None = None, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[bytes]:
    """Bytes of a file, a pipe or a device as soon as they are there.

    Args:
        path: "-" for standard input.
        pause: seconds after which b"" is given where nothing came; None, and on Windows, to wait for ever.
        waiting: entered while this waits.

    Raises:
        InputError: it cannot be read.
    """
    handle = None
    try:
        if path != STDIN:
            with waiting():  # of a FIFO, until there is a writer
                handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        fileno = _stdin_number() if handle is None else handle
        if fileno is None:
            yield from iter(lambda: sys.stdin.buffer.read(_PIECE), b"")
            return
        while True:
            with waiting():
                is_ready = os.name == "nt" or select.select([fileno], [], [], pause)[0]
                data = os.read(fileno, _PIECE) if is_ready else b""
            if is_ready and not data:
                return
            yield data
    except OSError as error:
        raise unreadable("standard input" if path == STDIN else path, error, "samples") from None
    finally:
        if handle is not None:
            os.close(handle)


def _stdin_number() -> int | None:
    """The descriptor of standard input; None where something else stands there, as in tests."""
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError):
        return None
