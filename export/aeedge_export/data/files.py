"""Training data from files: .npy, .npz, .csv, .parquet, folders of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge.files.images import SUFFIXES, Images
from aeedge.files.rows import CsvLayout, csv_layout, is_number, npz_member


@dataclass(frozen=True)
class Dataset:
    """Rows `X` of shape (n, ...), column names if the file has any, labels (n,) if requested, and notes."""

    X: NDArray[Any]
    features: tuple[str, ...] | None = None
    labels: NDArray[Any] | None = None
    notes: tuple[str, ...] = ()


def read(
    path: str | os.PathLike[str],
    *,
    array: str | None = None,
    columns: Sequence[str] = (),
    drop: Sequence[str] = (),
    labels: str | None = None,
    resize: tuple[int, int] | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """Read rows to train on.

    Args:
        path: a file, or a folder of images of one size, which become rows (channels, height, width); see
            aeedge.files.images.
        array: name of the array inside an .npz.
        columns: of a table, read only these.
        drop: of a table, leave these out.
        labels: source of the labels, which training does not use: an .npy file, the name of an array of the .npz or of
            a column of the table, or "folders" for the name of each image's folder.
        resize: of images, (height, width) to scale them to.
        skip_bad: of images, leave out files that cannot be read or are of another shape than most, with a note.

    Returns:
        The rows; those of an .npy stay memory-mapped.

    Raises:
        InputError: missing, of an unknown format, damaged, empty, or with cells that are not numbers (row and column
            are named); `resize` or `skip_bad` for what is no image.
    """
    place = Path(path)
    if labels is not None and labels.endswith(".npy"):
        found = read(path, array=array, columns=columns, drop=drop, resize=resize, skip_bad=skip_bad)
        return replace(found, labels=_label_file(Path(labels), len(found.X)))
    if place.is_dir() or (place.is_file() and place.suffix.lower() in SUFFIXES):
        return _images(place, labels, resize, skip_bad)
    if resize or skip_bad:
        raise InputError(f"{place}: resize=(height, width) and skip_bad=True are for images; leave them out")
    if not place.is_file():
        raise InputError(f"{place}: expected a file or a folder of images, but nothing is there; check the path")
    suffix = place.suffix.lower()
    if suffix in (".npy", ".npz"):
        if columns or drop:
            raise InputError(
                f"{place}: columns can be chosen by name in .csv and .parquet only; slice the array instead"
            )
        rows = _numpy(place, array)
        return Dataset(rows, None, None if labels is None else _label_array(place, labels, len(rows)))
    if suffix == ".csv":
        return _csv(place, columns, drop, labels)
    if suffix == ".parquet":
        return _parquet(place, columns, drop, labels)
    raise InputError(
        f"{place}: expected .npy, .npz, .csv, .parquet, an image or a folder of images, got {suffix or 'no suffix'!r}"
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


def _csv(place: Path, columns: Sequence[str], drop: Sequence[str], labels: str | None) -> Dataset:
    layout = csv_layout(place)
    names = layout.names or tuple(f"x{i}" for i in range(layout.width))
    chosen = _choose(place, names, columns, drop, labels)
    try:
        table = pa.csv.read_csv(
            place,
            read_options=pa.csv.ReadOptions(column_names=list(names), skip_rows=1 if layout.names else 0),
            parse_options=pa.csv.ParseOptions(delimiter=layout.delimiter),
            convert_options=pa.csv.ConvertOptions(
                include_columns=[*chosen, *([labels] if labels else [])],
                column_types=dict.fromkeys(chosen, pa.float64()),
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise _bad_cell(place, layout, names, chosen, error) from None
    for name in chosen:
        if table.column(name).null_count:
            raise _bad_cell(place, layout, names, chosen, None)
    return _table(place, table, chosen, labels, named=layout.names is not None)


def _bad_cell(
    place: Path, layout: CsvLayout, names: Sequence[str], chosen: Sequence[str], error: Exception | None
) -> InputError:
    """The first cell that is not a number; pyarrow's error does not locate it as precisely."""
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


def _parquet(place: Path, columns: Sequence[str], drop: Sequence[str], labels: str | None) -> Dataset:
    try:
        names = pa.parquet.read_schema(place).names
        chosen = _choose(place, names, columns, drop, labels)
        table = pa.parquet.read_table(place, columns=[*chosen, *([labels] if labels else [])])
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
    return _table(place, table, chosen, labels, named=True)


def _choose(
    place: Path, names: Sequence[str], columns: Sequence[str], drop: Sequence[str], labels: str | None
) -> tuple[str, ...]:
    for name in (*columns, *drop, *([labels] if labels else [])):
        if name not in names:
            raise InputError(f"{place}: expected a column {name!r}, got {', '.join(names)}")
    chosen = tuple(name for name in (columns or names) if name not in drop and name != labels)
    if not chosen:
        raise InputError(f"{place}: no column is left of {', '.join(names)}")
    return chosen


def _table(place: Path, table: pa.Table, features: Sequence[str], labels: str | None, *, named: bool) -> Dataset:
    if not table.num_rows:
        raise InputError(f"{place}: expected rows of numbers, but it has none")
    rows = np.stack([table.column(name).to_numpy().astype(np.float32) for name in features], axis=1)
    classes = None if labels is None else np.array(table.column(labels).to_pylist())
    return Dataset(rows, tuple(features) if named else None, classes)


def _label_file(place: Path, count: int) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(place, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{place}: expected an array of labels, but it cannot be read ({error})") from None
    return _checked_labels(place, found, count)


def _label_array(place: Path, name: str, count: int) -> NDArray[Any]:
    if place.suffix.lower() != ".npz":
        raise InputError(f"{place}: an .npy holds no labels; pass them as a separate file (--labels y.npy)")
    member = npz_member(place, name)
    with np.load(place, allow_pickle=False) as archive:
        return _checked_labels(place, archive[member[:-4]], count)


def _checked_labels(place: Path, found: NDArray[Any], count: int) -> NDArray[Any]:
    if found.shape != (count,):
        raise InputError(
            f"{place}: expected one label for each of the {count} rows, got an array of shape {found.shape}"
        )
    return found


def _images(place: Path, labels: str | None, resize: tuple[int, int] | None, skip_bad: bool) -> Dataset:
    if labels not in (None, "folders"):
        raise InputError(f"{place}: labels of images: expected 'folders' or an .npy file, got {labels!r}")
    images = Images([place], resize=resize, skip_bad=skip_bad)
    rows = images.read()
    classes = np.array([file.parent.name for file in images.row_files]) if labels else None
    return Dataset(rows, None, classes, tuple(images.notes))
