"""What is read to train on: which part of the data is wanted, and the rows that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.files.sniffing import DialectOptions
from aeedge.files.source import Source
from aeedge_export.data.conditions import Comparison, parse_condition


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
        dialect: how text files are written; None where it is to be found out.
        resize: of images, (height, width) to scale them to.
        skip_bad: of images, leave out files that cannot be read or are of another shape than most, with a note.
        select: only these rows of a table or an .npz, such as "anomaly == 0" (`data.conditions`).
        times: whether to see if a table's time columns rise.
        time: the column that tells the time of each row; it is no feature.
        clock: whether the cells of columns that may tell the time are wanted, for `Dataset.clock`.
        stream: whether .npy or .parquet files stay where they are, as `Shards`; None for where they have 1 GB or more.
    """

    columns: Sequence[str] = ()
    drop: Sequence[str] = ()
    labels: str | None = None
    weights: str | None = None
    array: str | None = None
    dialect: DialectOptions | None = None
    resize: tuple[int, int] | None = None
    skip_bad: bool = False
    select: str | None = None
    times: bool = False
    time: str | None = None
    clock: bool = False
    stream: bool | None = False

    @property
    def condition(self) -> tuple[Comparison, ...]:
        """`select`, understood."""
        return () if self.select is None else parse_condition(self.select)

    @property
    def others(self) -> tuple[str, ...]:
        """Columns that are read beside the features: labels, weights, time, those of `select`."""
        names = (self.labels, self.weights, self.time, *(comparison.column for comparison in self.condition))
        return tuple(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Dataset:
    """Rows that were read.

    Attributes:
        X: (n, ...); NaN where a value is missing; `Shards` where the rows are streamed.
        features: names of the columns, None without.
        units: of the columns, None without.
        labels: a class for each row, (n,), None without.
        weights: of each row, (n,), None without.
        dialect: how the first text file is written, for the bundle; None for other files.
        time_column: name of the column that tells the time of each row; None without, or where nobody asked.
        time_ordered: whether its values rise.
        selected: mask of the rows that `Selection.select` wants; None for all.
        clock: cells of the columns that may tell the time, by name; empty where nobody asked.
        clock_units: their units, where the table has some.
        notes: what was found, guessed and left out, in sentences.
    """

    X: NDArray[Any]
    features: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    labels: NDArray[Any] | None = None
    weights: NDArray[np.float32] | None = None
    dialect: dict[str, Any] | None = None
    time_column: str | None = None
    time_ordered: bool = False
    selected: NDArray[np.bool_] | None = None
    clock: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    clock_units: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that the columns have or, without a header, get where they are read; none of arrays."""
        return self.features or tuple(f"x{i}" for i in (self.dialect or {}).get("columns", ()))

    def taken(self, rows: NDArray[np.bool_], *notes: str) -> Dataset:
        """Some of the rows, (n,) bool, and notes about them."""
        labels = None if self.labels is None else self.labels[rows]
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, X=self.X[rows], labels=labels, weights=weights, selected=None, notes=(*self.notes, *notes))


def named(sources: Sequence[Source]) -> str:
    """Several files in a sentence."""
    return sources[0].name + (f" and {len(sources) - 1} more files" if len(sources) > 1 else "")
