"""Files of rows that were damaged, or are odd, given to the command; arrays that are odd, given to a model."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from attacks.bundles import BUNDLE, DATA, LATENTS, close, command, latents, rows
from attacks.damage import spoilt
from attacks.outcomes import RIGHT, WRONG, Outcome, outcome

COUNT = 200
IMAGES = DATA / "bundle_v1_uint8"  # 1×4×4
_CHECKED = ("rows.csv.gz", "rows.npz", "packed.npz", "rows.npy.gz", "image.png")  # their checksums show all damage


def _csv(x: Any, header: bool = True) -> bytes:
    stream = io.BytesIO()
    np.savetxt(
        stream, x, fmt="%.9g", delimiter=",", header=",".join(f"s{i}" for i in range(12)) if header else "", comments=""
    )
    return stream.getvalue()


def _npy(x: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, x)
    return stream.getvalue()


def _npz(x: Any, *, packed: bool = False) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, X=x)
    return stream.getvalue()


def _parquet(x: Any) -> bytes:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.table({f"s{i}": column for i, column in enumerate(x.T)}), stream)
    return stream.getvalue()


def _image(kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 10).save(stream, kind)
    return stream.getvalue()


@cache
def _sound() -> dict[str, bytes]:
    x = rows(COUNT)
    return {
        "rows.csv": _csv(x),
        "plain.csv": _csv(x, header=False),
        "rows.csv.gz": gzip.compress(_csv(x)),
        "rows.npy": _npy(x),
        "turned.npy": _npy(np.asfortranarray(x)),
        "rows.npy.gz": gzip.compress(_npy(x)),
        "rows.npz": _npz(x),
        "packed.npz": _npz(x, packed=True),
        "rows.parquet": _parquet(x),
        "image.png": _image("png"),
        "image.jpg": _image("jpeg"),
        "image.bmp": _image("bmp"),
        "image.tiff": _image("tiff"),
    }


def _encoded(file: Path, expected: Any) -> str:
    """Encode a file by the command; says what is wrong with the result."""
    made = file.parent / "made.npy"
    command(["encode", str(IMAGES if file.name.startswith("image") else BUNDLE), str(file), "-o", str(made)])
    try:
        found = np.load(made)
    except ValueError as error:
        return f"wrote a file that numpy cannot read: {error}"
    if found.ndim != 2 or found.dtype != np.float32:
        return f"wrote {found.dtype} {found.shape}"
    return "" if expected is None or close(found, expected) else "damage was not seen, and the results are others"


def damaged(index: int, folder: Path) -> Outcome:
    """A file of rows is damaged; each kind in turn."""
    dice = random.Random(index)
    name = list(_sound())[index % len(_sound())]
    before = _sound()[name]
    head = before[: dice.choice([32, 128, 400])]
    after = spoilt(head, dice) + before[len(head) :] if dice.random() < 0.4 else spoilt(before, dice)
    file = folder / name
    file.write_bytes(after)
    expected = (_pixels() if "image" in name else latents(COUNT)) if name in _CHECKED else None
    found = outcome(lambda: _encoded(file, expected), lambda said: not said)
    return found._replace(detail=f"{name}: {found.detail}")


@cache
def _pixels() -> Any:
    import aeedge

    with aeedge.load(IMAGES, threads=1) as model:
        return model.encode((np.arange(16, dtype=np.uint8) * 10).reshape(1, 1, 4, 4))


def _header(text: str, version: int = 1, data: bytes = b"") -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin-1", "replace") + data


def _archive(method: int = zipfile.ZIP_STORED, **files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def _encrypted() -> bytes:
    data = bytearray(_npz(rows(3)))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1
    return bytes(data)


def _unknown_method() -> bytes:
    data = bytearray(_npz(rows(COUNT)))
    data[data.index(b"PK\x01\x02") + 10] = 99
    return bytes(data)


def _spoilt_lzma() -> bytes:
    data = bytearray(_archive(zipfile.ZIP_LZMA, X=_npy(rows(300))))
    for at in range(200, 240):
        data[at] ^= 255
    return bytes(data)


_GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s, 12), }"
ODD: dict[str, Callable[[], bytes]] = {
    "one.npy": lambda: _npy(rows(COUNT)[0]),
    "one_image.npy": lambda: _npy(np.zeros((1, 4, 4), np.uint8)),
    "column.npy": lambda: _npy(rows(COUNT)[:, 0]),
    "scalar.npy": lambda: _npy(np.float32(3)),
    "empty.npy": lambda: _npy(rows(COUNT)[:0]),
    "no_width.npy": lambda: _npy(np.zeros((5, 0), np.float32)),
    "objects.npy": lambda: _npy(np.array([[None] * 12], object)),
    "records.npy": lambda: _npy(np.zeros(3, [("a", "f4"), ("b", "i4")])),
    "text.npy": lambda: _npy(np.array([["a"] * 12])),
    "times.npy": lambda: _npy(np.zeros((3, 12), "datetime64[s]")),
    "complex.npy": lambda: _npy(np.zeros((3, 12), complex)),
    "too_long.npy": lambda: _header(_GOOD % 2**60),
    "negative.npy": lambda: _header(_GOOD % -3, data=bytes(480)),
    "overflow.npy": lambda: _header("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 16), }"),
    "text_shape.npy": lambda: _header("{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 12), }"),
    "true_shape.npy": lambda: _header(_GOOD % "True", data=bytes(48)),
    "no_shape.npy": lambda: _header("{'descr': '<f4', 'fortran_order': False}"),
    "code.npy": lambda: _header("__import__('os').system('true')"),
    "brackets.npy": lambda: _header("(" * 5000),
    "open.npy": lambda: _header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 12"),
    "tabs.npy": lambda: _header("{'descr':\n  '<f4',\n\t 'x'\n 3"),
    "zeros.npy": lambda: _header("\0" * 100),
    "latin.npy": lambda: _header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 12), 'é': 1}"),
    "version9.npy": lambda: _header(_GOOD % 3, 9, bytes(144)),
    "version2.npy": lambda: _header(_GOOD % 3, 2, rows(3).tobytes()),
    "long_header.npy": lambda: _header(" " * 70_000, 2),
    "huge_descr.npy": lambda: _header("{'descr': '<V9223372036854775807', 'fortran_order': False, 'shape': (3, 12), }"),
    "no_dtype.npy": lambda: _header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (3, 12), }"),
    "comma_dtype.npy": lambda: _header("{'descr': ',,,', 'fortran_order': False, 'shape': (3, 12), }"),
    "turned_short.npy": lambda: _header("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 12), }", data=bytes(20)),
    "wide.csv": lambda: ",".join(f"column{i}" for i in range(300_000)).encode() + b"\n" + b"1," * 299_999 + b"1\n",
    "long_cell.csv": lambda: b"a,b\n" + b"1" * 200_000 + b",2\n",
    "long_cell_late.csv": lambda: _csv(rows(COUNT)) + b"7" * 200_000 + b",2\n",
    "not_utf8_late.csv": lambda: _csv(rows(6000)) + b"\xff\xfe\xfa,1\n",
    "nul_late.csv": lambda: _csv(rows(6000)) + b"1,2\0,3\n",
    "open_quote.csv": lambda: _csv(rows(COUNT)) + b'"1,2,3\n' * 50,
    "digits.csv": lambda: _csv(rows(3)) + b"9" * 5000 + b"," + b",".join([b"1"] * 11) + b"\n",
    "huge_number.csv": lambda: _csv(rows(3)) + b",".join([b"1e400"] * 12) + b"\n",
    "utf16.csv": lambda: _csv(rows(COUNT)).decode().encode("utf-16"),
    "half_utf16.csv": lambda: _csv(rows(6000)).decode().encode("utf-16")[:-1],
    "surrogates.csv": lambda: _csv(rows(6000)) + b"\xed\xa0\x80,1\n",
    "cr.csv": lambda: _csv(rows(COUNT)).replace(b"\n", b"\r"),
    "escape.csv": lambda: b"\x1b[2J,b\n1,2\n",
    "twice.csv": lambda: b"s0," * 11 + b"s0\n" + _csv(rows(3), header=False),
    "quotes.csv": lambda: b'"' * 200_001,
    "only_header.csv": lambda: _csv(rows(0)),
    "packed_twice.csv.gz": lambda: gzip.compress(gzip.compress(_csv(rows(COUNT)))),
    "rest.csv.gz": lambda: gzip.compress(_csv(rows(COUNT))) + b"rest",
    "zeros.csv.gz": lambda: gzip.compress(_csv(rows(COUNT))) + bytes(100),
    "no_gzip.csv.gz": lambda: b"\x1f\x8bnonsense",
    "bad_flags.csv.gz": lambda: b"\x1f\x8b\x08\xff" + bytes(30),
    "bad_method.csv.gz": lambda: b"\x1f\x8b\x07\x00" + bytes(30),
    "cut.csv.gz": lambda: gzip.compress(_csv(rows(6000)))[:-4],
    "xz.csv": lambda: lzma.compress(_csv(rows(COUNT))),
    "encrypted.npz": _encrypted,
    "lzma.npz": lambda: _archive(zipfile.ZIP_LZMA, X=_npy(rows(COUNT))),
    "spoilt_lzma.npz": _spoilt_lzma,
    "bzip2.npz": lambda: _archive(zipfile.ZIP_BZIP2, X=_npy(rows(COUNT))),
    "no_arrays.npz": lambda: _archive(),
    "text.npz": lambda: _archive(X=b"text"),
    "two.npz": lambda: _archive(X=_npy(rows(COUNT)), Y=_npy(rows(3))),
    "unknown_method.npz": _unknown_method,
    "objects.npz": lambda: _archive(X=_npy(np.array([{}], object))),
    "one.npz": lambda: _npz(rows(COUNT)[0]),
    "no_rows.parquet": lambda: _parquet(rows(COUNT)[:0]),
    "magic.parquet": lambda: b"PAR1" + bytes(50) + b"PAR1",
    "image_of_one_byte.png": lambda: b"\x89",
    "image_of_text.png": lambda: b"this is no picture",
    "image_bomb.png": lambda: _bomb(),
}  # fmt: skip


def _bomb() -> bytes:
    """A picture of 40 000 × 40 000 pixels in few bytes."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


_VALID = {
    "one.npy", "one.npz", "version2.npy", "two.npz", "lzma.npz", "bzip2.npz", "utf16.csv", "cr.csv", "one_image.npy",
    "true_shape.npy", "zeros.csv.gz",
}  # fmt: skip


def odd_file(index: int, folder: Path) -> Outcome:
    """A file that is unusual, by encode, denoise and score, into .npy and .csv."""
    name = list(ODD)[index // 6]
    what, suffix = ("encode", "denoise", "score")[index % 3], (".npy", ".csv")[index // 3 % 2]
    file, made = folder / name, folder / f"made{suffix}"
    file.write_bytes(ODD[name]())
    bundle = IMAGES if "image" in name else BUNDLE

    def use() -> str:
        command([what, str(bundle), str(file), "-o", str(made)])
        if name not in _VALID and "image" not in name:
            return "was accepted"
        found = np.load(made) if suffix == ".npy" else np.loadtxt(made, delimiter=",", skiprows=1, ndmin=2)
        count = 1 if name.startswith(("one", "true")) else None
        if found.shape[0] != (count or found.shape[0]) or found.ndim != (
            2 if what == "encode" or suffix == ".csv" else found.ndim
        ):
            return f"wrote {found.shape}"
        return "" if what != "encode" or suffix == ".csv" or found.shape[1] in (2, LATENTS) else f"wrote {found.shape}"

    found = outcome(use, lambda said: not said)
    if found.name != WRONG and any(part.name.endswith(".part") for part in folder.iterdir()):
        return Outcome("left behind", f"{what} {name}: {[part.name for part in folder.iterdir()]}")
    return found._replace(detail=f"{what} {name} to {suffix}: {found.detail}")


def _masked(x: Any) -> Any:
    return np.ma.masked_array(x, np.eye(*x.shape, dtype=bool))


ARRAYS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "masked": (_masked, False),
    "masked, nothing masked": (lambda x: np.ma.masked_array(x), True),
    "masked, one sample": (lambda x: _masked(x)[0], False),
    "masked, in a list": (lambda x: list(_masked(x)), False),
    "matrix": (lambda x: np.matrix(x), True),
    "matrix of one row": (lambda x: np.matrix(x[:1]), True),
    "objects": (lambda x: x.astype(object), True),
    "objects, one None": (lambda x: np.where(np.eye(*x.shape, dtype=bool), None, x.astype(object)), False),
    "text": (lambda x: x.astype(str), False),
    "complex": (lambda x: x.astype(complex), False),
    "times": (lambda x: x.astype("datetime64[s]"), False),
    "records": (lambda x: x.view([(f"s{i}", "f4") for i in range(12)]), False),
    "a scalar": (lambda x: 3.0, False),
    "None": (lambda x: None, False),
    "a set": (lambda x: {1, 2}, False),
    "a dict": (lambda x: {"s0": 1}, False),
    "a generator": (lambda x: (row for row in x), False),
    "ragged": (lambda x: [row[: i + 1] for i, row in enumerate(x)], False),
    "too deep": (lambda x: x[:, :, None], False),
    "no rows": (lambda x: x[:0], False),
    "one column": (lambda x: x[:, :1], False),
    "huge numbers": (lambda x: x.astype(float) * 1e300, False),
    "NaN": (lambda x: x * np.nan, False),
    "a memoryview": (lambda x: memoryview(x), True),
    "zero strides": (lambda x: np.broadcast_to(x[:1], x.shape), True),
    "a lying __array__": (lambda x: type("A", (), {"__array__": lambda self, *a, **k: x[:, :5]})(), False),
    "raising __len__": (
        lambda x: type("A", (), {"__len__": lambda self: 1 / 0, "__getitem__": lambda self, i: 1})(),
        False,
    ),
    "a subclass whose shape lies": (lambda x: x.view(type("A", (np.ndarray,), {"shape": (3, 12)})), True),
    "read only": (lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape), True),
}


def odd_array(index: int, folder: Path) -> Outcome:
    """An array that is unusual, for each method."""
    import aeedge

    name = list(ARRAYS)[index // 4]
    what = ("encode", "score", "denoise", "residual")[index % 4]
    made, valid = ARRAYS[name]
    x = rows(9)

    def use() -> str:
        with aeedge.load(BUNDLE, threads=1) as model:
            given = made(x)
            found = getattr(model, what)(given)
            if not valid:
                return "was accepted"
            plain = np.array(given, dtype=np.float32)
            return "" if np.allclose(found, getattr(model, what)(plain), rtol=1e-3, atol=1e-3) else "other numbers"

    found = outcome(use, lambda said: not said)
    if found.detail.startswith("ZeroDivisionError"):  # the caller's own
        found = Outcome(RIGHT, found.detail)
    return found._replace(detail=f"{what} of {name}: {found.detail}")
