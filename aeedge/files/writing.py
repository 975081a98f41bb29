"""Rows written to .npy or .csv: a file that appears when it is complete, standard output ("-"), or a pipe."""

from __future__ import annotations

import errno
import math
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, of_system
from aeedge.files.atomic import atomic_file

STDOUT = "-"
_READER_SECONDS = 5.0


class RowWriter:
    """Append float32 blocks of rows to a .npy or .csv file whose length is not known in advance.

    `row` is the shape of a row in the file: a line of text is flat.
    """

    def __init__(self, stream: IO[bytes], suffix: str, row: tuple[int, ...], names: Sequence[str]) -> None:
        self._stream, self._npy = stream, suffix == ".npy"
        self.row = row if self._npy or not row else (math.prod(row),)
        self.count = 0
        self._stream.write(self._header() if self._npy else (",".join(map(_quoted, names)) + "\n").encode())

    def write(self, block: NDArray[np.float32]) -> None:
        """Append rows of shape (m, *row)."""
        self.count += len(block)
        if self._npy:
            self._stream.write(np.ascontiguousarray(block, "<f4").tobytes())
        else:
            np.savetxt(self._stream, block.reshape(len(block), *self.row), fmt="%.9g", delimiter=",")

    def finish(self) -> None:
        """Write the number of rows, which is known now."""
        if self._npy:
            self._stream.seek(0)
            self._stream.write(self._header())
        self._stream.flush()

    def _header(self) -> bytes:
        """A header of numpy's format 1.0 that is always 128 bytes, enough for any count."""
        shape = (self.count, *self.row)
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether rows are written somewhere that is no file: standard output, a pipe, a device."""
    if os.fspath(path) == STDOUT:
        return True
    mode = os.stat(path).st_mode if os.path.exists(path) else stat.S_IFREG
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def row_writer(
    path: str | os.PathLike[str], row: tuple[int, ...], names: Sequence[str], *, overwrite: bool
) -> Iterator[RowWriter]:
    """Write rows of shape `row` to .npy or .csv (with `names` as its header); the file appears once it is complete.

    Standard output, pipes and devices get text (CSV) as it is computed.

    Raises:
        InputError: another suffix, the file exists, the disk is full.
    """
    place = Path(path)
    if is_stream(path):
        with _stream(path) as stream:
            writer = RowWriter(stream, ".csv", row, names)
            yield writer
            writer.finish()
        return
    suffix = place.suffix.lower()
    if suffix not in (".npy", ".csv"):
        raise InputError(f"{place}: expected an output name that ends in .npy or .csv, got {suffix or 'no suffix'!r}")
    with atomic_file(place, overwrite=overwrite) as part, part.open("wb") as stream:
        writer = RowWriter(stream, suffix, row, names)
        yield writer
        writer.finish()


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
