"""Labels for the report: a class for each row, from whatever a file or a caller holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aeedge.errors import InputError
from aeedge.files.dialect import MISSING

UNLABELLED = ""


def as_classes(labels: ArrayLike, count: int, where: str = "labels") -> NDArray[Any]:
    """One class for each row: whole numbers as integers, everything else as text, "" where there is none.

    Args:
        labels: (count,) of any dtype.
        count: number of rows.
        where: for messages.

    Raises:
        InputError: another shape.
    """
    found = np.asarray(labels)
    if found.shape != (count,):
        raise InputError(
            f"{where}: expected one label for each of the {count} rows, got an array of shape {found.shape}"
        )
    if found.dtype.kind in "iub":
        return found
    texts = np.array([_text(value) for value in found.tolist()])
    try:
        whole = texts.astype(np.int64)
    except (ValueError, OverflowError):
        return texts
    return whole if (whole.astype(str) == texts).all() else texts


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    return UNLABELLED if text.lower() in MISSING else text
