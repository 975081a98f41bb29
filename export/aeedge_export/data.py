"""Training data from files: .npy, .npz, .csv, .parquet, folders of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from aeedge.errors import InputError
from aeedge.rowfiles import CsvLayout, csv_layout, is_number, npz_member

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}


@dataclass(frozen=True)
class Dataset:
    """Rows `X` of shape (n, ...), and the names of their values if the file has any."""

    X: NDArray[Any]
    features: tuple[str, ...] | None = None


def read(
    path: str | os.PathLike[str], *, array: str | None = None, columns: Sequence[str] = (), drop: Sequence[str] = ()
) -> Dataset:
    """Read rows to train on.

    Args:
        path: a file, or a folder of images of one size, which become uint8 rows (channels, height, width).
        array: name of the array inside an .npz.
        columns: of a table, read only these.
        drop: of a table, leave these out.

    Returns:
        The rows; of an .npy they stay memory-mapped.

    Raises:
        InputError: not there, another format, damaged, empty, or cells that are not numbers (row and column named).
    """
    place = Path(path)
    if place.is_dir():
        return Dataset(_images(place))
    if not place.is_file():
        raise InputError(f"{place}: expected a file or a folder of images, but nothing is there; check the path")
    suffix = place.suffix.lower()
    if suffix in (".npy", ".npz"):
        if columns or drop:
            raise InputError(
                f"{place}: columns can be chosen by name in .csv and .parquet only; slice the array instead"
            )
        return Dataset(_numpy(place, array))
    if suffix == ".csv":
        return _csv(place, columns, drop)
    if suffix == ".parquet":
        return _parquet(place, columns, drop)
    raise InputError(
        f"{place}: expected .npy, .npz, .csv, .parquet or a folder of images, got {suffix or 'no suffix'!r}"
    )


def _numpy(place: Path, array: str | None) -> NDArray[Any]:
    try:
        if place.suffix.lower() == ".npy":
            rows = np.load(place, mmap_mode="r", allow_pickle=False)
        else:
            member = npz_member(place, array)
            with np.load(place, allow_pickle=False) as archive:
                rows = archive[member[:-4]]
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{place}: expected an array of numbers, but it cannot be read ({error}); copy it again"
        ) from None
    found: NDArray[Any] = rows
    if found.ndim < 2 or not found.size:
        raise InputError(f"{place}: expected rows of shape (n, ...), got an array of shape {found.shape}")
    return found


def _csv(place: Path, columns: Sequence[str], drop: Sequence[str]) -> Dataset:
    layout = csv_layout(place)
    names = layout.names or tuple(f"x{i}" for i in range(layout.width))
    chosen = _choose(place, names, columns, drop)
    try:
        table = pa.csv.read_csv(
            place,
            read_options=pa.csv.ReadOptions(column_names=list(names), skip_rows=1 if layout.names else 0),
            parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(chosen), column_types=dict.fromkeys(chosen, pa.float64()), strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as error:
        raise _bad_cell(place, layout, names, chosen, error) from None
    for name in chosen:
        if table.column(name).null_count:
            raise _bad_cell(place, layout, names, chosen, None)
    return _table(place, table, layout.names and chosen)


def _bad_cell(
    place: Path, layout: CsvLayout, names: Sequence[str], chosen: Sequence[str], error: Exception | None
) -> InputError:
    """Find the first cell that is no number; pyarrow says less about where it is."""
    with place.open(encoding="utf-8-sig", newline="") as stream:
        for number, line in enumerate(stream, 1):
            cells = line.rstrip("\r\n").split(layout.delimiter)
            if not line.strip() or (number == 1 and layout.names):
                continue
            if len(cells) != layout.width:
                return InputError(f"{place}, line {number}: expected {layout.width} cells, got {len(cells)}")
            for name, cell in zip(names, cells):
                if name in chosen and not is_number(cell.strip('"')):
                    return InputError(
                        f"{place}, line {number}, column {name!r}: expected a number, got {cell!r}; "
                        f"correct it, or leave the column out (--drop {name})"
                    )
    return InputError(f"{place}: expected rows of numbers ({error})")


def _parquet(place: Path, columns: Sequence[str], drop: Sequence[str]) -> Dataset:
    try:
        names = pa.parquet.read_schema(place).names
        chosen = _choose(place, names, columns, drop)
        table = pa.parquet.read_table(place, columns=list(chosen))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{place}: expected a Parquet file, but it cannot be read ({error}); copy it again") from None
    for name in chosen:
        column = table.column(name)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise InputError(f"{place}, column {name!r}: expected numbers, got {kind}; leave it out (--drop {name})")
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy()))
            raise InputError(
                f"{place}, row {row}, column {name!r}: expected a number, got nothing; fill or drop the row"
            )
    return _table(place, table, chosen)


def _choose(place: Path, names: Sequence[str], columns: Sequence[str], drop: Sequence[str]) -> tuple[str, ...]:
    for name in (*columns, *drop):
        if name not in names:
            raise InputError(f"{place}: expected a column {name!r}, got {', '.join(names)}")
    chosen = tuple(name for name in (columns or names) if name not in drop)
    if not chosen:
        raise InputError(f"{place}: no column is left of {', '.join(names)}")
    return chosen


def _table(place: Path, table: pa.Table, features: Sequence[str] | None) -> Dataset:
    if not table.num_rows:
        raise InputError(f"{place}: expected rows of numbers, but it has none")
    rows = np.stack([column.to_numpy().astype(np.float32) for column in table.columns], axis=1)
    return Dataset(rows, tuple(features) if features else None)


def _images(folder: Path) -> NDArray[np.uint8]:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in _IMAGES and f.is_file())
    if not files:
        raise InputError(f"{folder}: expected images ({', '.join(sorted(_IMAGES))}), but there are none")
    rows: list[NDArray[np.uint8]] = []
    for file in files:
        pixels = _image(file)
        if rows and pixels.shape != rows[0].shape:
            raise InputError(
                f"{file}: expected the size of {files[0].name} (channels, height, width) {rows[0].shape}, "
                f"got {pixels.shape}; bring all images to one size first"
            )
        rows.append(pixels)
    return np.stack(rows)


def _image(file: Path) -> NDArray[np.uint8]:
    """Pixels as (channels, height, width): one channel for grey images, three for all others."""
    try:
        with Image.open(file) as image:
            grey = image.mode in ("1", "L", "LA", "I", "I;16", "F")
            pixels = np.asarray(image.convert("L" if grey else "RGB"), np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{file}: expected an image, but it cannot be read ({error}); remove or replace it") from None
    return pixels[np.newaxis] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
