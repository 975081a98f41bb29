"""Training data from files: arrays, tables, folders of images. Tables are read by the reader of the device."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge.files import npy
from aeedge.files.delimited import Advice, TextTable
from aeedge.files.dialect import Head, Wishes, detect
from aeedge.files.images import Images, are_images
from aeedge.files.parquet import ParquetTable
from aeedge.files.rows import Wanted, column_order, row_files, shortened
from aeedge.files.source import Source
from aeedge_export.data.columns import kind_of_cells, note_by_values, why_not_by_kind, why_not_by_values
from aeedge_export.data.labels import as_classes


@dataclass(frozen=True)
class Selection:
    """Which columns of a table are read, and how, as far as the user said.

    Attributes:
        columns: only these; empty for all that are features.
        drop: not these.
        labels: source of the labels, which training does not use: a column, an array of the .npz, an .npy file, or
            "folders" for the name of each image's folder.
        weights: a column with the weight of each row.
        array: name of the array inside an .npz.
        wishes: how text files are written; None where it is to be found out.
        resize: of images, (height, width) to scale them to.
        skip_bad: of images, leave out files that cannot be read or are of another shape than most, with a note.
    """

    columns: Sequence[str] = ()
    drop: Sequence[str] = ()
    labels: str | None = None
    weights: str | None = None
    array: str | None = None
    wishes: Wishes | None = None
    resize: tuple[int, int] | None = None
    skip_bad: bool = False

    @property
    def others(self) -> tuple[str, ...]:
        """Columns that are read beside the features: labels, weights."""
        return tuple(name for name in (self.labels, self.weights) if name is not None)


@dataclass(frozen=True)
class Dataset:
    """Rows that were read.

    Attributes:
        X: (n, ...); NaN where a value is missing.
        features: names of the columns, None without.
        units: of the columns, None without.
        labels: a class for each row, (n,), None without.
        weights: of each row, (n,), None without.
        dialect: how the first text file is written, for the bundle; None for other files.
        notes: what was found, guessed and left out, in sentences.
    """

    X: NDArray[Any]
    features: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    labels: NDArray[Any] | None = None
    weights: NDArray[np.float32] | None = None
    dialect: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())


def _drop(name: str) -> str:
    return f"leave the column out (--drop {shlex.quote(name) if name.isprintable() else 'NAME'})"


class TrainingAdvice(Advice):
    """What to do about a cell, in the options of `aeedge train`."""

    text = staticmethod(lambda name: f"correct it, or {_drop(name)}")
    missing = staticmethod(
        lambda name: f"leave such rows out (--missing drop), fill them (--missing median), or {_drop(name)}"
    )


def read(
    *paths: str | os.PathLike[str], selection: Selection | None = None, missing: bool = False, **selected: Any
) -> Dataset:
    """Read rows to train on.

    Args:
        paths: files of one kind, or folders of them, or of images of one size, which become rows (channels, height,
            width); "-" for standard input.
        selection: which columns, and how; or its fields by name.
        missing: whether values may be missing in tables; they become NaN. Otherwise they are an InputError.

    Returns:
        The rows; those of a single .npy stay memory-mapped.

    Raises:
        InputError: missing, of an unknown format, damaged, empty, or with cells that are not numbers (line and column
            are named).
    """
    wanted = selection or Selection(**selected)
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
    sources = _sources(paths)
    kinds = {source.kind for source in sources}
    if len(kinds) > 1:
        raise InputError(f"{sources[0].name}, …: expected files of one kind, got {', '.join(sorted(kinds))}")
    if kinds <= {"npy", "npz"}:
        return _arrays(sources, wanted)
    return _tables(sources, wanted, missing)


def _sources(paths: Sequence[str | os.PathLike[str]]) -> list[Source]:
    return [Source(file) for file in row_files(paths)]


# --- arrays


def _arrays(sources: Sequence[Source], wanted: Selection) -> Dataset:
    name = sources[0].name
    if wanted.columns or wanted.drop or wanted.weights:
        raise InputError(
            f"{name}: columns can be chosen by name in tables only (.csv, .parquet); slice the array instead"
        )
    if wanted.wishes is not None:
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
    return Dataset(X, labels=labels, notes=(f"{_named(sources)}: {len(X):,} rows of {shape} {X.dtype}",))


def _array(source: Source, array: str | None) -> NDArray[Any]:
    found: NDArray[Any]
    if source.kind == "npy":
        header = npy.npy_header(source)
        try:
            found = np.load(source.path, mmap_mode="r") if source.path else np.load(source.open_seekable())
        except (ValueError, OSError, EOFError) as error:
            shape = header.shape
            raise InputError(
                f"{source.name}: expected an array of shape {shape}, got less ({error}); copy it again"
            ) from None
    else:
        found = _npz(source, npy.npz_member(source, array))
    if found.ndim < 2 or not found.size:
        raise InputError(f"{source.name}: expected rows of shape (n, ...), got an array of shape {found.shape}")
    return found


def _npz(source: Source, member: str) -> NDArray[Any]:
    member = npy.npz_member(source, member)
    try:
        with source.open_seekable() as stream, np.load(stream, allow_pickle=False) as archive:
            found: NDArray[Any] = archive[member]
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{source.name}, array {member!r}: cannot be read ({error}); copy it again") from None
    return found


def _label_file(place: Path, count: int) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(place, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{place}: expected an array of labels, but it cannot be read ({error})") from None
    return as_classes(found, count, str(place))


# --- tables


@dataclass(frozen=True)
class _Table:
    """A table of one file: its columns, and a function that reads some of them."""

    source: Source
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    examples: tuple[str, ...]
    named: bool
    units: tuple[str, ...] | None
    head: Head | None
    parquet: ParquetTable | None

    def read(
        self, order: Sequence[int], others: Sequence[int], *, missing: bool
    ) -> tuple[NDArray[np.float32], list[list[Any]]]:
        """Rows (n, k) of the columns `order`, and the content of the columns `others`, one list for each."""
        if self.parquet is not None:
            blocks = list(self.parquet.blocks(order, missing=missing))
            return _float32(blocks, len(order)), [self.parquet.text(self.names[i]) for i in others]
        assert self.head is not None
        table = TextTable(self.source, self.head, TrainingAdvice)
        found = list(table.blocks(order, missing=missing, text=others))
        text = list(chain.from_iterable(part for _, part in found))
        return _float32([block for block, _ in found], len(order)), [
            [row[i] for row in text] for i in range(len(others))
        ]


def _float32(blocks: Sequence[NDArray[np.float64]], width: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which is found later
        return np.concatenate([np.empty((0, width), np.float32), *(block.astype(np.float32) for block in blocks)])


def _open_table(source: Source, wishes: Wishes | None) -> _Table:
    if source.kind == "parquet":
        if wishes is not None:
            raise InputError(
                f"{source.name}: only text files have a header, a delimiter and a decimal mark; leave them out"
            )
        table = ParquetTable(source)
        return _Table(source, table.names, table.kinds, ("",) * len(table.names), True, None, None, table)
    head = detect(source.head, source.is_whole, source.name, wishes)
    if not head.records:
        raise InputError(f"{source.name}: expected rows of numbers, but it has none")
    cells = [[row[i] for _, row in head.records if i < len(row)] for i in range(head.width)]
    kinds = tuple(kind_of_cells(column, head.dialect.decimal) for column in cells)
    examples = tuple(next((cell.strip() for cell in column if cell.strip()), "")[:20] for column in cells)
    names = head.names or tuple(f"x{i}" for i in range(head.width))
    return _Table(source, names, kinds, examples, head.names is not None, head.units, head, None)


def _tables(sources: Sequence[Source], wanted: Selection, missing: bool) -> Dataset:
    if wanted.array is not None:
        raise InputError(f"{sources[0].name}: an array can be named in an .npz only; leave --array {wanted.array} out")
    first = _open_table(sources[0], wanted.wishes)
    names, left_out = _chosen(first, wanted)
    rows, others = _read_all(first, sources[1:], names, wanted, missing)
    if not len(rows):
        raise InputError(f"{sources[0].name}: expected rows of numbers, but it has none")
    keep = range(len(names))
    if not wanted.columns:
        why = {name: why_not_by_values(name, rows[:, i]) for i, name in enumerate(names)}
        left_out |= {name: reason for name, reason in why.items() if reason}
        keep = [i for i, name in enumerate(names) if not why[name]] or range(len(names))  # type: ignore[assignment]
    if len(keep) < len(names):
        names, rows = [names[i] for i in keep], np.ascontiguousarray(rows[:, list(keep)])
    kept, places = set(names), {name: i for i, name in enumerate(first.names)}
    left_out = {name: reason for name, reason in left_out.items() if name not in kept}
    positions = [places[name] for name in names]
    named = first.named or len(names) < len(first.names)
    notes = [*_described(sources, first, len(rows), names, left_out)]
    notes += filter(None, (note_by_values(name, rows[:, i]) for i, name in enumerate(names)))
    labels = (
        None
        if wanted.labels is None
        else as_classes(np.array(others[0], object), len(rows), f"{sources[0].name}, column {wanted.labels!r}")
    )
    weights = None if wanted.weights is None else _weights(others[-1], wanted.weights, sources[0].name)
    return Dataset(
        rows,
        tuple(names) if named else None,
        None if first.units is None else tuple(first.units[i] for i in positions),
        labels,
        weights,
        None
        if first.head is None
        else first.head.dialect._asdict() | {"width": first.head.width, "columns": positions},
        tuple(notes),
    )


def _read_all(
    first: _Table, rest: Sequence[Source], names: Sequence[str], wanted: Selection, missing: bool
) -> tuple[NDArray[np.float32], list[list[Any]]]:
    """The rows of all files, and the columns beside the features."""
    parts: list[tuple[NDArray[np.float32], list[list[Any]]]] = []
    for table in (first, *(_open_table(source, wanted.wishes) for source in rest)):
        known = Wanted((*names, *wanted.others))
        order, _ = column_order(table.source.name, table.names, len(table.names), known)
        if not set(known.columns or ()) <= set(table.names):
            raise InputError(
                f"{table.source.name}: expected the columns of {first.source.name}, got {shortened(table.names)}"
            )
        parts.append(table.read(order[: len(names)], order[len(names) :], missing=missing))
    rows = parts[0][0] if len(parts) == 1 else np.concatenate([found for found, _ in parts])
    return rows, [list(chain.from_iterable(found[i] for _, found in parts)) for i in range(len(wanted.others))]


def _chosen(table: _Table, wanted: Selection) -> tuple[list[str], dict[str, str]]:
    """Names of the columns to read, and why the others are left out."""
    known = set(table.names)
    for name in (*wanted.columns, *wanted.drop, *wanted.others):
        if name not in known:
            raise InputError(f"{table.source.name}: expected a column {name!r}, got {shortened(table.names)}")
    left_out = dict.fromkeys(wanted.drop, "--drop") | dict.fromkeys(wanted.others, "labels")
    if wanted.weights is not None:
        left_out[wanted.weights] = "weights"
    if wanted.columns:
        return [name for name in wanted.columns if name not in left_out], left_out
    chosen = []
    for name, kind, example in zip(table.names, table.kinds, table.examples):
        reason = left_out.get(name) or why_not_by_kind(name, kind, example)
        if reason:
            left_out[name] = reason
        else:
            chosen.append(name)
    if not chosen:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in list(left_out.items())[:5])
        raise InputError(f"{table.source.name}: no column is left of {shortened(table.names)} ({reasons})")
    return chosen, left_out


def _weights(values: Sequence[Any], name: str, where: str) -> NDArray[np.float32]:
    try:
        return np.array([float(value) for value in values], np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{where}, column {name!r}: expected a weight in each row, got something else") from None


def _described(
    sources: Sequence[Source], first: _Table, count: int, names: Sequence[str], left_out: dict[str, str]
) -> list[str]:
    """What was read, in sentences."""
    how = "Parquet" if first.head is None else first.head.dialect.describe()
    found = [f"{_named(sources)}: {count:,} rows; {how}", f"inputs ({len(names)}): {shortened(names)}"]
    if left_out:
        reasons = [f"{name or repr(name)} ({reason})" for name, reason in left_out.items()]
        found.append(f"left out: {shortened(reasons)}")
    return found + list(first.head.notes if first.head else ())


def _named(sources: Sequence[Source]) -> str:
    return sources[0].name + (f" and {len(sources) - 1} more files" if len(sources) > 1 else "")


# --- images


def _images(paths: Sequence[str | os.PathLike[str]], wanted: Selection) -> Dataset:
    name = os.fspath(paths[0])
    if wanted.labels not in (None, "folders"):
        raise InputError(f"{name}: labels of images: expected 'folders' or an .npy file, got {wanted.labels!r}")
    if wanted.columns or wanted.drop or wanted.weights or wanted.array or wanted.wishes:
        raise InputError(f"{name}: images have no columns, arrays, header or delimiter; leave such options out")
    images = Images(paths, resize=wanted.resize, skip_bad=wanted.skip_bad)
    rows = images.read()
    shape = "×".join(map(str, rows.shape[1:]))
    read = (
        f"{name}{' …' if len(paths) > 1 else ''}: {len(rows):,} images of {shape} (channels×height×width), {rows.dtype}"
    )
    labels = np.array([file.parent.name for file in images.row_files]) if wanted.labels else None
    return Dataset(rows, labels=labels, notes=(read, *images.notes))
