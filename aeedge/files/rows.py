"""Files of rows, opened for a model and read block by block in bounded memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, absent, printable, shortened
from aeedge.files import delimited, npy
from aeedge.files.dialect import Cell, Dialect
from aeedge.files.images import Images, are_images
from aeedge.files.jsonlines import JsonTable
from aeedge.files.parquet import ParquetTable
from aeedge.files.sniffing import DialectOptions, Head, detect, fits
from aeedge.files.source import STDIN, SUFFIXES, Source, reading
from aeedge.files.wav import WavFile, WavFormat

Part = tuple[NDArray[Any], list[list[Any]]]
"""Rows (m, *row), and of each column that is kept beside them its m values, as text or Python objects."""
OF_IMAGES = "file"  # what can be kept beside images: the path of each one's file


@dataclass(frozen=True)
class Wanted:
    """What a model takes.

    Attributes:
        columns: names of the values of a row; None where they have none.
        shape: of a row; None if unknown.
        dtype: of the values.
        recorded: how the table was written that it was trained on, from its manifest; None if unknown.
        keep: names of columns whose values are wanted beside the rows, as they are.
        time: name of a column that is kept before the others, if it is there; its position where columns have no names;
            "DAY HOUR" for two columns that are joined.
    """

    columns: Sequence[str] | None = None
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    recorded: Mapping[str, Any] | None = None
    keep: Sequence[str] = ()
    time: str | None = None

    @property
    def size(self) -> int | None:
        """Number of values in a row; None if unknown."""
        return None if self.shape is None else math.prod(self.shape)


@dataclass(frozen=True)
class RowFile:
    """An input: `parts()` yields rows and what is kept beside them; `count` is the number of rows, if it is known.

    `notes` says what was guessed or left out; more may be added while parts are read. Of an array `row` is the shape of
    a row, of a WAV file `wav` its format; a table has `names` of its columns, if they have some, and the `decimal` mark
    of its text. `has_time`: whether the first of the columns that are kept is the wanted time.
    """

    parts: Callable[[], Iterator[Part]]
    count: int | None
    notes: list[str] = field(default_factory=list)
    row: tuple[int, ...] | None = None
    wav: WavFormat | None = None
    names: Sequence[str] | None = None
    decimal: str = "."
    has_time: bool = False

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The rows alone: arrays of shape (m, *row)."""
        return (block for block, _ in self.parts())


def open_rows(
    path: str | os.PathLike[str],
    wanted: Wanted | None = None,
    *,
    array: str | None = None,
    dialect: DialectOptions | None = None,
    missing: bool = False,
    infinite: bool | None = None,
) -> RowFile:
    """Open a file of rows.

    Args:
        path: .npy; .npz; text with any usual delimiter (.csv, .tsv, .txt, …); JSON lines (.jsonl, .ndjson); .parquet;
            .wav, whose samples are rows; all also compressed by gzip; "-" for standard input.
        wanted: the model's input. Columns of a table with a header are matched by name, in any order; an array that has
            the shape of one row is one row.
        array: name of the array inside an .npz.
        dialect: how a text file is written, as far as it is known.
        missing: whether cells without a value become NaN; otherwise they are an InputError.
        infinite: whether cells of tables may hold infinity and what is beyond float32; None for as `missing`.

    Raises:
        InputError: missing, another format, damaged, cells that are not numbers, missing columns.
    """
    source, wanted = Source(path), wanted or Wanted()
    if array is not None and source.kind != "npz":
        raise InputError(f"{source.name}: an array can be named in an .npz only (--array {array}); leave it out")
    if dialect is not None and source.kind != "text":
        raise InputError(
            f"{source.name}: only text files have a header, a delimiter and a decimal mark; leave them out"
        )
    if source.kind in ("npy", "npz", "wav"):
        if wanted.keep:
            raise InputError(
                f"{source.name}: expected a table with a column '{printable(wanted.keep[0])}', got an array"
            )
        if source.kind == "wav":
            file = WavFile(source)
            row = (file.format.channels,)
            return RowFile(lambda: ((block, []) for block in file.blocks()), file.count, file.notes, row, file.format)
        if source.kind == "npy":
            return _array_rows(npy.npy_header(source).shape, lambda: npy.npy_blocks(source), wanted)
        member = npy.npz_member(source, array)
        shape = npy.npz_header(source, member).shape
        return _array_rows(shape, lambda: npy.npz_blocks(source, member), wanted)
    table = _table(source, wanted, dialect)
    notes = table.notes
    kind = "CSV: " if source.kind == "text" else ""
    notes[:0] = [f"read as {kind}{table.describe()}"] if source.is_pipe else []
    if isinstance(table, JsonTable):
        _check_keys(source.name, table.names, wanted.columns)
    time = _time_places(table.names, table.width, wanted)
    known = wanted
    if time and table.names is None:
        others = [i for i in range(table.width) if i not in time]
        known = replace(wanted, recorded={"width": table.width, "columns": others})
    elif time and table.names is not None:
        known = replace(wanted, keep=(*wanted.keep, *(table.names[i] for i in time)))
    order, more = column_order(source.name, table.names, table.width, known)
    kept = time + _positions(source.name, table.names, wanted.keep)
    notes += more
    decimal = table.head.dialect.decimal if isinstance(table, delimited.TextTable) else "."

    def parts() -> Iterator[Part]:
        for block, columns in table.blocks(order, missing=missing, infinite=infinite, text=kept):
            if len(time) > 1:
                columns = [[f"{day} {hour}" for day, hour in zip(*columns[:2])], *columns[2:]]
            yield block, [[Cell(v) for v in column] for column in columns] if source.kind == "text" else columns

    return RowFile(parts, table.count, notes, names=table.names, decimal=decimal, has_time=bool(time))


def _table(
    source: Source, wanted: Wanted, dialect: DialectOptions | None
) -> delimited.TextTable | JsonTable | ParquetTable:
    if source.kind == "parquet":
        return ParquetTable(source)
    if source.kind == "jsonl":
        return JsonTable(source)
    return delimited.TextTable(source, read_head(source, wanted, dialect))


def _check_keys(name: str, keys: Sequence[str] | None, columns: Sequence[str] | None) -> None:
    """Refuse objects without any of a model's features: unlike columns, keys have no order to fall back to."""
    if keys is not None and columns is not None and set(keys).isdisjoint(columns):
        raise InputError(
            f"{name}: expected objects with the keys {shortened(columns)}, got {shortened(keys)}; rename them, or "
            "write arrays of the values in this order"
        )


def _positions(name: str, names: Sequence[str] | None, keep: Sequence[str]) -> list[int]:
    """Where columns stand that are kept beside the rows.

    Raises:
        InputError: there is no such column, or columns have no names.
    """
    places = {each: i for i, each in enumerate(names or ())}
    lacking = next((each for each in keep if each not in places), None)
    if lacking is not None and names is None:
        raise InputError(f"{name}: expected a column '{printable(lacking)}' to keep, got columns without names")
    if lacking is not None:
        raise InputError(f"{name}: {absent(lacking, places, why=' to keep')}")
    return [places[each] for each in keep]


def _time_places(names: Sequence[str] | None, width: int, wanted: Wanted) -> list[int]:
    """Where the column of times stands, or those of day and hour whose names make the wanted one; else nothing."""
    if wanted.time is None:
        return []
    if names is None:
        at = int(wanted.time) if wanted.time.isdecimal() else width
        return [at] if at < width == len(wanted.columns or ()) + 1 else []
    if wanted.time in names:
        return [list(names).index(wanted.time)]
    pairs = ([i, j] for i, day in enumerate(names) for j, hour in enumerate(names) if f"{day} {hour}" == wanted.time)
    return next(pairs, [])


def _array_rows(shape: tuple[int, ...], blocks: Callable[[], Iterator[NDArray[Any]]], wanted: Wanted) -> RowFile:
    """The rows of an array; for a model, one that has the shape of a row, or a single axis, is one row."""
    if wanted.shape is None or shape[0] == 0 or (shape != wanted.shape and len(shape) > 1):
        return RowFile(lambda: ((block, []) for block in blocks()), shape[0], row=shape[1:])
    return RowFile(lambda: iter([(np.concatenate(list(blocks()))[np.newaxis], [])]), 1)


def read_head(source: Source, wanted: Wanted, dialect: DialectOptions | None) -> Head:
    """The head of a text file: in the recorded dialect where it fits, otherwise found out."""
    recorded = Dialect.parse(wanted.recorded)
    if recorded and wanted.recorded and dialect is None:
        columns = wanted.recorded.get("width", 0) if recorded.header == "none" else wanted.columns or ()
        found = fits(source.head, source.is_whole, source.name, recorded, columns)
        if found is not None:
            return found
    names = None if wanted.columns is None else tuple(wanted.columns)
    return detect(source.head, source.is_whole, source.name, (dialect or DialectOptions())._replace(names=names))


def column_order(
    name: str, names: Sequence[str] | None, width: int, wanted: Wanted
) -> tuple[list[int], tuple[str, ...]]:
    """The columns to read, in the model's order, and notes where some are not used or names do not match.

    Raises:
        InputError: a column is missing.
    """
    everything, columns = list(range(width)), wanted.columns
    if names is None:
        positions = (wanted.recorded or {}).get("columns")
        if positions and (wanted.recorded or {}).get("width") == width and set(positions) <= set(everything):
            return list(positions), ()
        if columns is not None and width != len(columns):
            raise InputError(
                f"{name}: expected a header with the names of the columns, or {len(columns)} columns, got {width}"
            )
        return everything, ()
    if columns is None:
        named = [i for i in everything if names[i] and not names[i].startswith("Unnamed: ")]
        if width != wanted.size and len(named) == wanted.size:
            return named, ("columns without a name were left out",)
        return everything, ()
    places = {each: i for i, each in enumerate(names)}
    lacking = [each for each in columns if each not in places]
    if lacking:
        if len(lacking) == len(columns) == width:
            return everything, ("no column name matches the model's features; columns are read in order",)
        raise InputError(
            f"{name}: expected a column '{printable(lacking[0])}', got {shortened(names)}; rename or add it"
        )
    extra = sorted(set(places) - {*columns, *wanted.keep}, key=places.__getitem__)
    notes = (f"columns that the model does not use: {shortened(extra)}",) if extra else ()
    return [places[each] for each in columns], notes


def row_files(paths: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Files of rows, with those in folders, sorted by name; names that begin with a dot or _ are passed over there.

    Raises:
        InputError: a folder without such files.
    """
    files: list[str | os.PathLike[str]] = []
    for path in paths:
        if os.fspath(path) == STDIN or not os.path.isdir(path):
            files.append(path)
            continue
        with reading(os.fspath(path)):
            inside = sorted(file for file in Path(path).iterdir() if file.is_file() and _is_row_file(file.name))
        if not inside:
            raise InputError(f"{path}: expected images or files of rows ({', '.join(SUFFIXES)}), but there are none")
        files += inside
    return files


def _is_row_file(name: str) -> bool:
    return name[0] not in "._" and Path(name.removesuffix(".gz")).suffix.lower() in SUFFIXES


def _named(images: Images, wanted: Wanted) -> Iterator[Part]:
    """Rows of images, each with the name of its file where that is wanted."""
    assert wanted.shape is not None
    done = 0
    for block in images.blocks(wanted.shape, wanted.dtype):
        files = images.row_files[done : done + len(block)]
        yield block, [[os.fspath(file) for file in files] for _ in wanted.keep]
        done += len(block)


def row_place(paths: Sequence[str | os.PathLike[str]], row: int, dialect: DialectOptions | None = None) -> str:
    """Where a row of files is, for messages: "x.csv, line 17", with the header and from 1, or "x.npy, row 15 (counted
    from 0)".
    """
    for path in row_files(paths):
        source = Source(path)
        if source.is_pipe:
            break
        if source.kind in ("text", "jsonl"):
            table = _table(source, Wanted(), dialect if source.kind == "text" else None)
            assert not isinstance(table, ParquetTable)
            for line in table.lines():
                if row == 0:
                    return f"{source.name}, line {line}"
                row -= 1
            continue
        count = open_rows(path).count
        if count is None or row < count:
            return f"{source.name}, row {row} (counted from 0)"
        row -= count
    return f"{os.fspath(paths[0])}, row {row} (counted from 0)"


def open_all(
    paths: Sequence[str | os.PathLike[str]],
    wanted: Wanted | None = None,
    *,
    resize: tuple[int, int] | None = None,
    skip_bad: bool = False,
    **options: Any,
) -> RowFile:
    """Images, or several files of rows and all files of folders, one after the other as one; see `open_rows`.

    Args:
        paths: of files and folders.
        wanted: the model's input.
        resize: (height, width) that images are scaled to.
        skip_bad: leave out images that cannot be read or do not fit.
        options: of `open_rows`.
    """
    if are_images(paths):
        if wanted is None or wanted.shape is None:
            raise InputError(f"{paths[0]}: expected a file of rows, got images")
        if other := [name for name in wanted.keep if name != OF_IMAGES]:
            raise InputError(f"{paths[0]}: of images only '{OF_IMAGES}' can be kept, got '{printable(other[0])}'")
        images = Images(paths, resize=resize, skip_bad=skip_bad, finite=not options.get("missing"))
        return RowFile(lambda: _named(images, wanted), None, images.notes)
    if resize or skip_bad:
        raise InputError(f"{paths[0]}: only images can be resized or skipped; leave --resize and --skip-bad out")
    files = row_files(paths)
    if [os.fspath(file) for file in files].count(STDIN) > 1:
        raise InputError("standard input: can be read only once; name it once")
    first = open_rows(files[0], wanted, **options)
    if len(files) == 1:
        return first
    notes = list(first.notes)

    def parts() -> Iterator[Part]:
        for i, file in enumerate(files):  # opened when its turn comes: there may be thousands
            rows = open_rows(file, wanted, **options) if i else first
            notes.extend(note for note in rows.notes if note not in notes)
            yield from rows.parts()
            notes.extend(note for note in rows.notes if note not in notes)

    return RowFile(parts, None, notes)
