"""Whether the rows of a table are in time order, by the cells of a column of times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import numpy as np

from aeedge.files.dialect import MISSING

_DATE = re.compile(r"(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})")
_CLOCK = re.compile(r"\d{1,2}:\d{2}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_HALF = re.compile(r"\d\s*([ap])\.?m", re.IGNORECASE)
_BACK = 0.01  # of the whole time
_UNREADABLE = 0.05  # of the cells


def moment(text: str, *, day_first: bool = True) -> float | None:
    """A date, a time of day, or both, in seconds; None for other text.

    Args:
        text: such as "2026-01-31 12:00:00.5", "31.1.2026" or "1/31/2026 9:05 PM".
        day_first: whether 1.2.2026 is in February.
    """
    found = _DATE.match(text)
    if found is None and not _CLOCK.match(text):
        return None
    days, rest = 0, text
    if found is not None:
        parts = [int(part) for part in found.groups()]
        year, month, day = parts if len(found[1]) == 4 else (parts[2], *(parts[1::-1] if day_first else parts[:2]))
        try:
            days = date(year, month, day).toordinal()
        except ValueError:
            return None
        rest = text[found.end() :]
    clock = [float(part.replace(",", ".")) for part in _NUMBER.findall(rest)[:3]]
    half = _HALF.search(rest)
    if clock and half:
        clock[0] = clock[0] % 12 + (12 if half[1] in "pP" else 0)
    return 86400.0 * days + sum(part * unit for part, unit in zip(clock, (3600, 60, 1)))


def in_time_order(cells: Sequence[Any], *, strictly: bool = False) -> bool:
    """Whether moments rise, or stay, from row to row.

    Args:
        cells: text, dates, or numbers; those that are missing, and a few that are none of these, are passed over.
        strictly: or may go back by 1 % of the whole time: clocks are set back, and messages overtake each other.
    """
    for moments in _readings(cells):
        values = np.array(moments, np.float64)
        unreadable = np.isnan(values)
        values = values[~unreadable]
        if len(values) > 1 and unreadable.mean() <= _UNREADABLE:
            back = np.maximum.accumulate(values) - values
            if values[-1] > values[0] and back.max() <= (0 if strictly else _BACK) * np.ptp(values):
                return True
    return False


def _readings(cells: Sequence[Any]) -> Iterator[Sequence[float | None]]:
    """What cells may mean, in seconds: 1.2.2026 is in February or in January."""
    if all(isinstance(cell, (int, float)) for cell in cells):
        yield cells
        return
    texts = [text for cell in cells if (text := str(cell).strip()).lower() not in MISSING]
    try:  # fast, and knows offsets from UTC
        found = [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in texts]
        yield [(one - found[0]).total_seconds() for one in found]
    except (ValueError, TypeError):
        for day_first in (True, False):
            yield [moment(text, day_first=day_first) for text in texts]
