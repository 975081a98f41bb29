"""Whether the rows of a table are in time order, by the cells of a column of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aeedge.files.dialect import MISSING
from aeedge.files.times import moment

_BACK = 0.01  # of the whole time
_UNREADABLE = 0.05  # of the cells


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
    for day_first in (True, False):
        yield [moment(text, day_first=day_first) for text in texts]
