"""What is read to train on: which part of the data is wanted, and the rows that were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.files.sniffing import DialectOptions
from aeedge.files.source import Source


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
    """

    columns: Sequence[str] = ()
    drop: Sequence[str] = ()
    labels: str | None = None
    weights: str | None = None
    array: str | None = None
    dialect: DialectOptions | None = None
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

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that the columns have or, without a header, get where they are read; none of arrays."""
        return self.features or tuple(f"x{i}" for i in (self.dialect or {}).get("columns", ()))


def named(sources: Sequence[Source]) -> str:
    """Several files in a sentence."""
    return sources[0].name + (f" and {len(sources) - 1} more files" if len(sources) > 1 else "")
