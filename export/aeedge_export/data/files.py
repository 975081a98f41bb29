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

from aeedge.errors import InputError
from aeedge.files import npy
from aeedge.files.images import Images, are_images
from aeedge.files.rows import row_files
from aeedge.files.source import Source, reading
from aeedge_export.data.dataset import Dataset, Selection, named
from aeedge_export.data.labels import as_classes
from aeedge_export.data.tables import read_tables


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
    if wanted.labels is not None and wanted.labels.endswith(".npy"):
        found = read(*paths, selection=replace(wanted, labels=None), missing=missing)
        return replace(found, labels=_label_file(Path(wanted.labels), len(found.X)))
    for options in (wanted.columns, wanted.drop):
        twice = [name for name, count in Counter(options).items() if count > 1]
        if twice:
            raise InputError(f"--columns, --drop: expected each name once, got {twice[0]!r} twice")
    if are_images(paths):
        return _images(paths, wanted)
    if wanted.resize or wanted.skip_bad:
        raise InputError(f"{paths[0]}: only images can be resized or skipped; leave --resize and --skip-bad out")
    sources = [Source(file) for file in row_files(paths)]
    kinds = {source.kind for source in sources}
    if len(kinds) > 1:
        raise InputError(f"{sources[0].name}, …: expected files of one kind, got {', '.join(sorted(kinds))}")
    if like is not None:
        wanted = replace(
            wanted,
            columns=() if kinds <= {"npy", "npz"} else like.columns,
            array=wanted.array if kinds == {"npz"} else None,
            dialect=wanted.dialect if kinds == {"text"} else None,
        )
    if kinds <= {"npy", "npz"}:
        return _arrays(sources, wanted)
    return read_tables(sources, wanted, missing)


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
    rows = [_array(source, wanted.array) for source in sources]
    shapes = {found.shape[1:] for found in rows}
    if len(shapes) > 1:
        raise InputError(f"{name}, …: expected rows of one shape in all files, got {' and '.join(map(str, shapes))}")
    X = rows[0] if len(rows) == 1 else np.concatenate(rows)
    labels = None
    if wanted.labels is not None:
        labels = as_classes(
            np.concatenate([_npz(source, wanted.labels) for source in sources]),
            len(X),
            f"{name}, array {wanted.labels!r}",
        )
    shape = "×".join(map(str, X.shape[1:]))
    return Dataset(X, labels=labels, notes=(f"{named(sources)}: {len(X):,} rows of {shape} {X.dtype}",))


def _array(source: Source, array: str | None) -> NDArray[Any]:
    found: NDArray[Any]
    if source.kind == "npy":
        npy.npy_header(source)  # refuses what holds no numbers
        with reading(source.name):
            found = np.load(source.path, mmap_mode="r") if source.path else np.load(source.open_seekable())
    else:
        member = npy.npz_member(source, array)
        npy.npz_header(source, member)  # refuses what holds no numbers
        found = _npz(source, member)
    if found.ndim < 2 or not found.size:
        raise InputError(f"{source.name}: expected rows of shape (n, ...), got an array of shape {found.shape}")
    return found


def _npz(source: Source, member: str) -> NDArray[Any]:
    member = npy.npz_member(source, member)
    with _loading(f"{source.name}, array {member!r}"), source.open_seekable() as stream, np.load(stream) as archive:
        found: NDArray[Any] = archive[member]
    return found


def _label_file(place: Path, count: int) -> NDArray[Any]:
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
