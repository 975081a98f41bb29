"""Tables to train on, read by the reader of the device; columns that are no features are left out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, absent, printable, shortened
from aeedge.files.delimited import Advice, TextTable
from aeedge.files.dialect import number
from aeedge.files.jsonlines import JsonTable, value_of
from aeedge.files.parquet import ParquetTable
from aeedge.files.rows import Wanted, column_order
from aeedge.files.sniffing import DialectOptions, Head, detect
from aeedge.files.source import Source
from aeedge_export.data.columns import (
    find_time,
    kind_of_cells,
    kind_of_values,
    note_by_values,
    rises_evenly,
    time_columns,
    why_not_by_kind,
    why_not_by_values,
)
from aeedge_export.data.conditions import matching
from aeedge_export.data.dataset import Dataset, Selection, named
from aeedge_export.data.labels import as_classes


def _drop(name: str) -> str:
    return f"leave the column out (--drop {shlex.quote(name) if name == printable(name) else 'NAME'})"


class _TrainingAdvice(Advice):
    """What to do about a cell, in the options of `aeedge train`."""

    text = staticmethod(lambda name: f"correct it, or {_drop(name)}")
    missing = staticmethod(
        lambda name: f"leave such rows out (--missing drop), fill them (--missing median), or {_drop(name)}"
    )


@dataclass(frozen=True)
class _Table:
    """A table of one file: its columns, and a function that reads some of them."""

    source: Source
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    examples: tuple[str, ...]
    rows: TextTable | JsonTable | ParquetTable

    @property
    def head(self) -> Head | None:
        """How a text file is written; None for other files."""
        return self.rows.head if isinstance(self.rows, TextTable) else None

    @property
    def decimal(self) -> str:
        """The decimal mark."""
        return "." if self.head is None else self.head.dialect.decimal

    @property
    def times(self) -> tuple[str, ...]:
        """Columns that may hold times; an index may, too."""
        return time_columns(self.names, self.rows.kinds if isinstance(self.rows, ParquetTable) else self.kinds)

    @property
    def clock(self) -> tuple[str, ...]:
        """Columns that may tell the time of samples: `times`, or a first column that rises evenly from the start."""
        first = [number(row[0], self.decimal) for _, row in self.head.records] if self.head else []
        return self.times or (self.names[:1] if rises_evenly(first) else ())

    def read(
        self, order: Sequence[int], others: Sequence[int], *, missing: bool, infinite: bool | None = None
    ) -> tuple[NDArray[np.float32], list[list[Any]]]:
        """Rows (n, k) of the columns `order`, and the content of the columns `others`, one list for each."""
        found = list(self.rows.blocks(order, missing=missing, infinite=infinite, text=others))
        kept = [list(chain.from_iterable(part[i] for _, part in found)) for i in range(len(others))]
        return _float32([block for block, _ in found], len(order)), kept


def _float32(blocks: Sequence[NDArray[np.float64]], width: int) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which is found later
        return np.concatenate([np.empty((0, width), np.float32), *(block.astype(np.float32) for block in blocks)])


def _open_table(source: Source, dialect: DialectOptions | None) -> _Table:
    if source.kind != "text" and dialect is not None:
        raise InputError(
            f"{source.name}: only text files have a header, a delimiter and a decimal mark; leave them out"
        )
    if source.kind == "parquet":
        table = ParquetTable(source)
        kinds = tuple("index" if name in table.index else kind for name, kind in zip(table.names, table.kinds))
        return _Table(source, table.names, kinds, ("",) * table.width, table)
    if source.kind == "jsonl":
        lines = JsonTable(source, _TrainingAdvice)
        places: Sequence[Any] = range(lines.width) if lines.names is None else lines.names
        columns = [[value_of(row, place) for row in lines.records] for place in places]
        kinds = tuple(map(kind_of_values, columns))
        examples = tuple(next((v[:20] for v in column if isinstance(v, str)), "") for column in columns)
        return _Table(source, lines.names or _counted(lines.width), kinds, examples, lines)
    head = detect(source.head, source.is_whole, source.name, dialect)
    if not head.records:
        raise InputError(f"{source.name}: expected rows of numbers, but it has none")
    cells = [[row[i] for _, row in head.records if i < len(row)] for i in range(head.width)]
    kinds = tuple(kind_of_cells(column, head.dialect.decimal) for column in cells)
    examples = tuple(next((cell.strip() for cell in column if cell.strip()), "")[:20] for column in cells)
    text = TextTable(source, head, _TrainingAdvice)
    return _Table(source, head.names or _counted(head.width), kinds, examples, text)


def _counted(width: int) -> tuple[str, ...]:
    """Names of columns that have none."""
    return tuple(f"x{i}" for i in range(width))


def table_names(source: Source, dialect: DialectOptions | None) -> tuple[str, ...]:
    """Names of all columns."""
    return _open_table(source, dialect).names


def read_tables(sources: Sequence[Source], wanted: Selection, missing: bool) -> Dataset:
    """Read tables with the same columns as one.

    Args:
        sources: files of one kind, text, JSON lines or Parquet; the first one decides which columns are read.
        wanted: which columns, and how.
        missing: whether values may be missing; they become NaN.

    Raises:
        InputError: no rows, no columns, cells that are not numbers (line and column are named).
    """
    if wanted.array is not None:
        raise InputError(f"{sources[0].name}: an array can be named in an .npz only; leave --array {wanted.array} out")
    first = _open_table(sources[0], wanted.dialect)
    names, left_out = _chosen(first, wanted)
    clock = () if not wanted.clock else (wanted.time,) if wanted.time else first.clock
    times = first.times if wanted.times else ()
    rows, others, starts = _read_all(
        first, sources[1:], names, (*wanted.others, *times, *clock), wanted.dialect, missing, wanted.select is not None
    )
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
    is_named = first.rows.names is not None or len(names) < len(first.names)
    notes = [*_described(sources, first, len(rows), names, left_out)]
    notes += filter(None, (note_by_values(name, rows[:, i]) for i, name in enumerate(names)))
    labels = (
        None
        if wanted.labels is None
        else as_classes(
            np.array(others[wanted.labels], object), len(rows), f"{sources[0].name}, column {wanted.labels!r}"
        )
    )
    weights = None if wanted.weights is None else _weights(others[wanted.weights], wanted.weights, sources[0].name)
    selected = matching(wanted.condition, others, first.decimal, sources[0].name) if wanted.condition else None
    units = dict(zip(first.names, (first.head.units if first.head else None) or ()))
    time_column, time_ordered = find_time({name: others[name] for name in times}, first.decimal, starts)
    return Dataset(
        rows,
        tuple(names) if is_named else None,
        None if first.head is None or first.head.units is None else tuple(first.head.units[i] for i in positions),
        labels,
        weights,
        _dialect(first, positions),
        time_column,
        time_ordered,
        selected,
        {name: others[name] for name in clock},
        {name: units[name] for name in clock if name in units},
        tuple(notes),
    )


def _dialect(table: _Table, positions: list[int]) -> dict[str, Any] | None:
    """What a device needs to read rows without names alike; None where names are enough."""
    if table.head is None and table.rows.names is not None:
        return None
    written = {} if table.head is None else table.head.dialect._asdict()
    return {**written, "width": table.rows.width, "columns": positions}


def _read_all(
    first: _Table,
    rest: Sequence[Source],
    names: Sequence[str],
    others: Sequence[str],
    dialect: DialectOptions | None,
    missing: bool,
    infinite: bool,
) -> tuple[NDArray[np.float32], dict[str, list[Any]], list[int]]:
    """The rows of all files, the cells of the columns `others`, by name, and where each file begins."""
    others = tuple(dict.fromkeys(others))
    known = Wanted((*names, *others))
    parts: list[tuple[NDArray[np.float32], list[list[Any]]]] = []
    for table in (first, *(_open_table(source, dialect) for source in rest)):
        order, _ = column_order(table.source.name, table.names, len(table.names), known)
        if not set(known.columns or ()) <= set(table.names):
            raise InputError(
                f"{table.source.name}: expected the columns of {first.source.name}, got {shortened(table.names)}"
            )
        parts.append(table.read(order[: len(names)], order[len(names) :], missing=missing, infinite=infinite))
    rows = parts[0][0] if len(parts) == 1 else np.concatenate([found for found, _ in parts])
    starts = np.cumsum([0, *(len(found) for found, _ in parts[:-1])]).tolist()
    cells = {name: list(chain.from_iterable(found[i] for _, found in parts)) for i, name in enumerate(others)}
    return rows, cells, starts


def _chosen(table: _Table, wanted: Selection) -> tuple[list[str], dict[str, str]]:
    """Names of the columns to read, and why the others are left out."""
    known = set(table.names)
    for name in (*wanted.columns, *wanted.drop, *wanted.others):
        if name not in known:
            raise InputError(f"{table.source.name}: {absent(name, table.names)}")
    left_out = dict.fromkeys((one.column for one in wanted.condition if one.column not in wanted.columns), "--select")
    left_out |= dict.fromkeys(wanted.drop, "--drop")
    beside = ((wanted.labels, "labels"), (wanted.weights, "weights"), (wanted.time, "the time"))
    left_out |= {name: why for name, why in beside if name is not None}
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
        reasons = "; ".join(f"'{printable(name)}': {reason}" for name, reason in list(left_out.items())[:5])
        raise InputError(f"{table.source.name}: no column is left of {shortened(table.names)} ({reasons})")
    return chosen, left_out


def _weights(values: Sequence[Any], name: str, where: str) -> NDArray[np.float32]:
    try:
        return np.array([float(value) for value in values], np.float32)
    except (TypeError, ValueError):
        raise InputError(
            f"{where}, column '{printable(name)}': expected a weight in each row, got something else"
        ) from None


def _described(
    sources: Sequence[Source], first: _Table, count: int, names: Sequence[str], left_out: dict[str, str]
) -> list[str]:
    """What was read, in sentences."""
    how = first.rows.describe()
    found = [f"{named(sources)}: {count:,} rows; {how}", f"inputs ({len(names)}): {shortened(names)}"]
    if left_out:
        reasons = [f"{printable(name) or repr(name)} ({reason})" for name, reason in left_out.items()]
        found.append(f"left out: {shortened(reasons)}")
    return found + list(first.rows.notes)
