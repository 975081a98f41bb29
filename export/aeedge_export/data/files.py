"""Training data from files: arrays, tables, folders of images. Tables are read by the reader of the device."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable
from aeedge.files import npy
from aeedge.files.images import Images, are_images
from aeedge.files.rows import row_files, row_place
from aeedge.files.source import Source, reading
from aeedge_export.data.conditions import matching
from aeedge_export.data.dataset import Dataset, Selection, named
from aeedge_export.data.labels import as_classes
from aeedge_export.data.shards import Shards, kind_of
from aeedge_export.data.tables import read_tables, table_names


def read(
    *paths: str | os.PathLike[str],
    selection: Selection | None = None,
    missing: bool = False,
    like: Dataset | None = None,
    **selected: Any,
) -> Dataset:
    """Read rows to train on.

    Args:
        paths: files of one kind, or folders of them, or of images of one size, which become rows (channels, height,
            width); "-" for standard input.
        selection: which columns, and how; or its fields by name.
        like: rows that were read before: the same columns are read, without labels and weights.
        missing: whether values may be missing in tables; they become NaN. Otherwise they are an InputError.

    Returns:
        The rows; those of a single .npy stay memory-mapped.

    Raises:
        InputError: missing, of an unknown format, damaged, empty, or with cells that are not numbers (line and column
            are named).
    """
    wanted = selection or Selection(**selected)
    if like is not None:
        wanted = replace(wanted, columns=(), drop=(), labels=None, weights=None)
    labels = wanted.labels if wanted.labels is not None and wanted.labels.endswith(".npy") else None
    if labels is not None:
        wanted = replace(wanted, labels=None)
    found = _read(paths, wanted, missing or wanted.select is not None, like)
    if labels is not None:
        found = replace(found, labels=label_file(Path(labels), len(found.X)))
    return found if found.selected is None else _selected(found, paths, wanted, missing)


def _selected(found: Dataset, paths: Sequence[str | os.PathLike[str]], wanted: Selection, missing: bool) -> Dataset:
    """The rows that match; what they lack is found only now, for others may lack it."""
    assert found.selected is not None
    select = wanted.select or ""
    rows = np.flatnonzero(found.selected)
    if not len(rows):
        raise InputError(f"select: expected rows that match {printable(select)}, but none of {len(found.X):,} does")
    X = found.X[rows]
    if found.features is not None and not (right := np.isfinite(X) | (missing & np.isnan(X))).all():
        row, column = np.argwhere(~right)[0]
        where = f"{row_place(paths, int(rows[row]), wanted.dialect)}, column '{printable(found.features[column])}'"
        if np.isnan(X[row, column]):
            raise InputError(
                f"{where}: expected a number, got nothing (a missing value); leave such rows out (--missing drop), "
                "fill them (--missing median), or leave the column out"
            )
        raise InputError(
            f"{where}: expected a finite number that fits float32, got {X[row, column]}; correct it, or leave the "
            "column out"
        )
    notes = [f"selected {len(rows):,} of {len(found.X):,} rows, where {printable(select)}"]
    if found.time_ordered and (np.diff(rows) > 1).any():
        notes.append("rows between others were taken out; gaps in time order are counted in the rows that are left")
    return found.taken(found.selected, *notes)


def _read(paths: Sequence[str | os.PathLike[str]], wanted: Selection, missing: bool, like: Dataset | None) -> Dataset:
    for options in (wanted.columns, wanted.drop):
        twice = [name for name, count in Counter(options).items() if count > 1]
        if twice:
            raise InputError(f"--columns, --drop: expected each name once, got {twice[0]!r} twice")
    if are_images(paths):
        if wanted.select is not None:
            raise InputError(f"{paths[0]}: only rows of tables and of .npz can be selected; leave --select out")
        return _images(paths, wanted)
    if wanted.resize or wanted.skip_bad:
        raise InputError(f"{paths[0]}: only images can be resized or skipped; leave --resize and --skip-bad out")
    files = row_files(paths)
    shards = _streamed(files, wanted, missing)
    if shards is not None:
        return Dataset(shards, shards.features, notes=(shards.describe(), *shards.notes))
    sources = [Source(file) for file in files]
    kinds = {source.kind for source in sources}
    if len(kinds) > 1:
        raise InputError(f"{sources[0].name}, …: expected files of one kind, got {', '.join(sorted(kinds))}")
    notes: tuple[str, ...] = ()
    if like is not None:
        dialect = wanted.dialect if kinds == {"text"} else None
        names = table_names(sources[0], dialect) if kinds <= {"text", "jsonl", "parquet"} else ()
        absent = [one.column for one in wanted.condition if names and one.column not in names]
        if absent:
            notes = (f"no column '{printable(absent[0])}' to select by: all rows are taken",)
        wanted = replace(
            wanted,
            select=None if absent else wanted.select,
            columns=() if kinds <= {"npy", "npz"} else like.columns,
            array=wanted.array if kinds == {"npz"} else None,
            dialect=dialect,
        )
    if "wav" in kinds:
        raise InputError(
            f"{sources[0].name}: a recording is trained on in windows; say of how many samples (--window N)"
        )
    if kinds <= {"npy", "npz"}:
        return _arrays(sources, wanted)
    table = read_tables(sources, wanted, missing)
    return replace(table, notes=(*table.notes, *notes))


# --- shards

STREAMED_FROM = 10**9
"""Bytes on disk from which on .npy and .parquet files are streamed."""


def _streamed(files: Sequence[str | os.PathLike[str]], wanted: Selection, missing: bool) -> Any:
    """The files as `Shards`, where that is wanted: as asked, otherwise several .npy or any .parquet of 1 GB or more.

    Raises:
        InputError: files or options that cannot be streamed.
    """
    kinds = {kind_of(file) for file in files}
    if wanted.stream is None:
        mapped = kinds == {"npy"} and len(files) == 1
        if len(kinds) > 1 or None in kinds or mapped or sum(map(_size, files)) < STREAMED_FROM:
            return None
    elif not wanted.stream:
        return None
    needed = {
        "--labels": wanted.labels is not None,
        "--weights": wanted.weights is not None,
        "--select": wanted.select is not None,
        "--missing drop or median": missing,
    }
    asked = next((option for option, is_given in needed.items() if is_given), None)
    if asked is not None:
        raise InputError(
            f"{files[0]}{' …' if len(files) > 1 else ''}: {asked} needs all rows in memory, but these are streamed; "
            "leave it out, or read them into memory (--no-stream)"
        )
    if wanted.dialect is not None or wanted.array is not None:
        raise InputError(f"{files[0]}: shards have no header, delimiter or named arrays; leave such options out")
    return Shards(files, columns=wanted.columns, drop=wanted.drop)


def _size(file: str | os.PathLike[str]) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # is said where it is read
        return 0


# --- arrays


def _arrays(sources: Sequence[Source], wanted: Selection) -> Dataset:
    name = sources[0].name
    if wanted.columns or wanted.drop or wanted.weights:
        raise InputError(
            f"{name}: columns can be chosen by name in tables only (.csv, .parquet); slice the array instead"
        )
    if wanted.dialect is not None:
        raise InputError(f"{name}: only text files have a header, a delimiter and a decimal mark; leave them out")
    if wanted.array is not None and sources[0].kind != "npz":
        raise InputError(f"{name}: an array can be named in an .npz only; leave --array {wanted.array} out")
    if wanted.labels is not None and sources[0].kind != "npz":
        raise InputError(f"{name}: an .npy holds no labels; pass them as a separate file (--labels y.npy)")
    rows = [stored_array(source, wanted.array) for source in sources]
    shapes = {found.shape[1:] for found in rows}
    if len(shapes) > 1:
        raise InputError(f"{name}, …: expected rows of one shape in all files, got {' and '.join(map(str, shapes))}")
    X = rows[0] if len(rows) == 1 else np.concatenate(rows)
    labels, selected = None, None
    if wanted.condition:
        selected = _selected_by_arrays(sources, wanted, len(X))
    if wanted.labels is not None:
        labels = as_classes(
            np.concatenate([_npz(source, wanted.labels) for source in sources]),
            len(X),
            f"{name}, array {wanted.labels!r}",
        )
    shape = "×".join(map(str, X.shape[1:]))
    notes = [f"{named(sources)}: {len(X):,} rows of {shape} {X.dtype}"]
    if X.ndim == 2:
        notes.append(f"inputs ({X.shape[1]}): columns without names")
    return Dataset(X, labels=labels, selected=selected, notes=tuple(notes))


def _selected_by_arrays(sources: Sequence[Source], wanted: Selection, count: int) -> NDArray[np.bool_]:
    """Which rows match by the other arrays of an .npz, (count,)."""
    name = sources[0].name
    if sources[0].kind != "npz":
        raise InputError(f"{name}: only rows of tables and of .npz can be selected; leave --select out")
    columns = {}
    for column in {comparison.column for comparison in wanted.condition}:
        values = np.concatenate([_npz(source, column) for source in sources])
        if values.shape != (count,):
            raise InputError(
                f"{name}, array {printable(column)!r}: expected one value for each of the {count} rows to select by, "
                f"got an array of shape {values.shape}"
            )
        columns[column] = values.tolist()
    return matching(wanted.condition, columns, ".", name)


def stored_array(source: Source, array: str | None, *, least: int = 2, numbers: bool = True) -> NDArray[Any]:
    """The array of a .npy, memory-mapped, or of an .npz by name, None for the only one or X.

    Raises:
        InputError: no such array, fewer than `least` axes, or no numbers where these are needed.
    """
    found: NDArray[Any]
    if source.kind == "npy":
        npy.npy_header(source)  # refuses what holds no numbers
        with reading(source.name):
            found = np.load(source.path, mmap_mode="r") if source.path else np.load(source.open_seekable())
    else:
        member = npy.npz_member(source, array)
        if numbers:
            npy.npz_header(source, member)  # refuses what holds no numbers
        found = _npz(source, member)
    if found.ndim < least or not found.size:
        raise InputError(f"{source.name}: expected rows of shape (n, ...), got an array of shape {found.shape}")
    return found


def _npz(source: Source, member: str) -> NDArray[Any]:
    member = npy.npz_member(source, member)
    with _loading(f"{source.name}, array {member!r}"), source.open_seekable() as stream, np.load(stream) as archive:
        found: NDArray[Any] = archive[member]
    return found


def label_file(place: Path, count: int) -> NDArray[Any]:
    """A class for each of `count` rows, from a .npy file."""
    with _loading(str(place)):
        found = np.load(place)
    if not isinstance(found, np.ndarray):
        raise InputError(
            f"{place}: expected one array of labels (.npy), got an archive; save the labels with numpy.save"
        )
    return as_classes(found, count, str(place))


@contextmanager
def _loading(where: str) -> Iterator[None]:
    with reading(where, TokenError):
        try:
            yield
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise InputError(
                f"{where}: expected numbers or text, got Python objects; save them as a plain array"
            ) from None


# --- images


def _images(paths: Sequence[str | os.PathLike[str]], wanted: Selection) -> Dataset:
    name = os.fspath(paths[0])
    if wanted.labels not in (None, "folders"):
        raise InputError(f"{name}: labels of images: expected 'folders' or an .npy file, got {wanted.labels!r}")
    if wanted.columns or wanted.drop or wanted.weights or wanted.array or wanted.dialect:
        raise InputError(f"{name}: images have no columns, arrays, header or delimiter; leave such options out")
    images = Images(paths, resize=wanted.resize, skip_bad=wanted.skip_bad)
    rows = images.read()
    shape = "×".join(map(str, rows.shape[1:]))
    read = (
        f"{name}{' …' if len(paths) > 1 else ''}: {len(rows):,} images of {shape} (channels×height×width), {rows.dtype}"
    )
    labels = np.array([file.parent.name for file in images.row_files]) if wanted.labels else None
    return Dataset(rows, labels=labels, notes=(read, *images.notes))
