"""Whether the rows of a table are in time order, by the cells of its time columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from aeedge.files.dialect import MISSING

_DATE = re.compile(r"(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


def moment(text: str, *, day_first: bool = True) -> tuple[float, ...] | None:
    """A date, a time of day, or both as numbers that compare as they do; None for other text.

    Args:
        text: such as "2026-01-31 12:00:00.5", "31.1.2026" or "1/31/2026 9:05 PM".
        day_first: whether 1.2.2026 is in February.
    """
    date = _DATE.match(text)
    rest = text if date is None else text[date.end() :]
    if date is None and not re.match(r"\d{1,2}:\d{2}", text):
        return None
    found: list[float] = []
    if date is not None:
        first, second, third = (int(part) for part in date.groups())
        if len(date[1]) == 4:
            found = [first, second, third]
        else:
            found = [third, second, first] if day_first else [third, first, second]
    clock = [float(part.replace(",", ".")) for part in _NUMBER.findall(rest)]
    half = re.search(r"\b\d[\d:.,]*\s*([ap])\.?m", rest, re.IGNORECASE)
    if clock and half:
        clock[0] = clock[0] % 12 + (12 if half[1] in "pP" else 0)
    return (*found, *clock, *[0.0] * (3 - len(clock)))


def in_time_order(cells: Sequence[Any]) -> bool:
    """Whether moments rise, or stay, from row to row, and are not all the same.

    Args:
        cells: text, or values that can be compared; those that are missing are passed over.
    """
    if not any(isinstance(cell, str) for cell in cells):
        return _rises([cell for cell in cells if cell is not None])
    texts = [text for cell in cells if (text := str(cell).strip()).lower() not in MISSING]
    try:  # fast, and knows offsets from UTC
        return _rises([datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts])
    except ValueError:
        return any(_rises([moment(text, day_first=first) for text in texts]) for first in (True, False))


def _rises(values: Sequence[Any]) -> bool:
    try:
        return len(values) > 1 and values[0] != values[-1] and all(a <= b for a, b in pairwise(values))
    except TypeError:  # None, or with and without an offset
        return False
