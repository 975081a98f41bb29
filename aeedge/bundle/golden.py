"""golden.npz and calibration.npz: arrays of known names, dtypes and shapes, read within their sizes.

`numpy.load` would allocate what a header asks for, and unpack what an archive says. Here a header is compared with what
the manifest promises first, and no more bytes are unpacked than that.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import of_system

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

    from numpy.typing import NDArray

_MAX_ROWS, _MAX_BYTES = 2**12, 2**30  # of an array; there are sixteen samples, and up to 2**12 calibration scores
_MAGIC = b"\x93NUMPY\x01\x00"  # format 1.0, which numpy.savez writes for all such arrays
_HEADER = re.compile(r"\{'descr': '([^']{2,4})', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,200})\), \} *\n")

Wanted = tuple[str, tuple[int, ...]]
"""The dtype of an array, and the shape of one of its rows."""


def read_arrays(data: bytes, wanted: Mapping[str, Wanted]) -> dict[str, NDArray[Any]]:
    """Arrays of an archive, by name; all have the same number of rows, one or more.

    Raises:
        ValueError: the archive is damaged, lacks an array, or has one of another dtype or shape; the message is the
            part of a sentence that follows the file's name.
    """
    import struct
    import zlib
    from zipfile import BadZipFile, ZipFile  # both cost milliseconds, and a load needs them for int8 alone

    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = {name: _entry(archive, f"{name}.npy") for name in wanted}
            found = {name: _array(archive, entries[name], *of) for name, of in wanted.items()}
    except (
        BadZipFile,
        EOFError,
        OSError,
        NotImplementedError,
        OverflowError,
        RuntimeError,
        struct.error,
        zlib.error,
    ) as e:
        if not of_system(e):
            raise
        raise ValueError(f"cannot be read ({str(e)[:200] or type(e).__name__})") from None
    if len({len(values) for values in found.values()}) != 1:
        raise ValueError("has arrays of different numbers of rows")
    return found


def _entry(archive: ZipFile, name: str) -> ZipInfo:
    entries = [entry for entry in archive.infolist() if entry.filename == name]
    if len(entries) != 1:
        raise ValueError(f"lacks {name[:-4]!r}" if not entries else f"has {name[:-4]!r} twice")
    entry = entries[0]
    if entry.flag_bits & 1 or entry.compress_type not in (0, 8):  # stored, deflated
        raise ValueError(f"has {name[:-4]!r} encrypted, or compressed in an unknown way")
    return entry


def _array(archive: ZipFile, entry: ZipInfo, dtype: str, row: tuple[int, ...]) -> NDArray[Any]:
    """One array, whose header is compared with what is expected before its values are read."""
    name, of = entry.filename[:-4], np.dtype(dtype).newbyteorder("<")
    with archive.open(entry) as stream:
        start = stream.read(len(_MAGIC) + 2)
        size = int.from_bytes(start[len(_MAGIC) :], "little")
        header = _HEADER.fullmatch(stream.read(size).decode("latin-1"))
        if not start.startswith(_MAGIC) or header is None:
            raise ValueError(f"has something in the place of {name!r} that is no array of numbers")
        shape = tuple(int(part) for part in header[3].replace(" ", "").split(",") if part)
        if header[1] != of.str or shape[1:] != row or not shape or not 1 <= shape[0] <= _MAX_ROWS:
            raise ValueError(
                f"has {name!r} of dtype {header[1]!r} and shape {shape!s:.60}, "
                f"expected {of.str!r} and {('n', *row)!s:.60}"
            )
        nbytes = math.prod(shape) * of.itemsize
        if nbytes > _MAX_BYTES or entry.file_size != len(start) + size + nbytes:
            raise ValueError(f"has {name!r} of {entry.file_size} bytes, expected {len(start) + size + nbytes}")
        values = bytearray(nbytes)
        with memoryview(values) as view:
            at = 0
            while at < nbytes and (part := stream.read(min(nbytes - at, 2**20))):
                view[at : at + len(part)] = part
                at += len(part)
        if at != nbytes or stream.read(1):  # the end: also where the checksum is compared
            raise ValueError(f"has {name!r} of another number of bytes than it says")
    return np.frombuffer(values, of).astype(dtype, copy=False).reshape(shape, order="F" if header[2] == "True" else "C")
