"""Labels for the report: a class for each row, from whatever a file or a caller holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aeedge.errors import InputError
from aeedge.files.dialect import MISSING

UNLABELLED = ""
_ANOMALOUS = ("1", "1.0", "true", "yes", "anomaly", "anomalous", "abnormal", "outlier", "fault", "faulty", "attack")
_NORMAL = ("0", "0.0", "false", "no", "normal", "ok", "good", "nominal", "healthy", "inlier", "n", "benign")


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
        whole = np.array([_whole(text) for text in texts.tolist()], np.int64)
    except (ValueError, OverflowError):
        return texts
    return whole


def anomalous_class(classes: Sequence[str], counts: Sequence[int]) -> str | None:
    """Which of two classes is the anomalous one: by its name, else the rarer one; None where there are not two."""
    if len(classes) != 2:
        return None
    for one, other in (classes, classes[::-1]):
        if one.lower() in _ANOMALOUS or other.lower() in _NORMAL or (one, other) in (("-1", "1"), ("-1.0", "1.0")):
            return one
    return classes[int(np.argmin(counts))]


def _whole(text: str) -> int:
    """The whole number that a text is, also as 1.0 or 1e0; not 007, which is a name."""
    number = int(text) if text.lstrip("-").isdecimal() else int(float(text))
    if str(number) != text and (text.lstrip("-").isdecimal() or number != float(text)):
        raise ValueError(text)
    return number


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    return UNLABELLED if text.lower() in MISSING else text
