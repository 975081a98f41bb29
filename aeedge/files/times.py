"""What cells that tell the time mean, in seconds since 1970: text, dates, numbers of any unit.

How a column is written is found out once (`find_format`); then each cell is read by itself, as a stream needs it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge.files.dialect import MISSING, number
from aeedge.record import Record

EPOCHS = ((5e8, 4e9, 1.0), (5e11, 4e12, 1e-3), (5e14, 4e15, 1e-6), (5e17, 4e18, 1e-9))
"""Ranges of numbers that count from 1970 (to 2096), each with its unit in seconds."""

_UNITS = {
    "s|secs?|seconds?": 1.0,
    "ms|msecs?|milliseconds?|millis": 1e-3,
    "us|µs|μs|usecs?|microseconds?|micros": 1e-6,
    "ns|nsecs?|nanoseconds?|nanos": 1e-9,
    "min|minutes?": 60.0,
    "h|hrs?|hours?": 3600.0,
    "d|days?": 86400.0,
}
_NAMES = {1.0: "seconds", 1e-3: "milliseconds", 1e-6: "microseconds", 1e-9: "nanoseconds"} | {
    60.0: "minutes",
    3600.0: "hours",
    86400.0: "days",
}
_UNIT_IN_NAME = {re.compile(rf"(?:.*[\W_])?(?:{names})[\W_]*", re.IGNORECASE): unit for names, unit in _UNITS.items()}
_ORIGIN = date(1970, 1, 1).toordinal()
_START = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MONTHS = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{3}(?:\d{3})?)?)?(?:[+-]\d\d:\d\d)?)?", re.ASCII)
_WEEKDAY = re.compile(r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+", re.IGNORECASE)
_NUMBERS = re.compile(r"(\d{4}|\d\d?)[-/.](\d\d?)[-/.](\d{4}|\d\d?)(?!\d)", re.ASCII)
_COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:[T ]?(\d\d)(\d\d)(\d\d)?)?(?=[.,Z+-]|$)", re.ASCII)
_DAY_MONTH = re.compile(r"(\d{1,2})[-/. ]+([a-z]{3})[a-z]*\.?[-/., ]+(\d{4}|\d\d(?!\d))", re.IGNORECASE | re.ASCII)
_MONTH_DAY = re.compile(r"([a-z]{3})[a-z]*\.? +(\d{1,2}),? +(\d{4})", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(
    r"[T:,. ]*(?:(\d{1,2})(?:[:.h](\d\d)(?:[:.](\d\d(?:[.,]\d+)?))?)?)?h?\s*([ap]\.?m\.?)?\s*"
    r"(Z|UTC|GMT|(?:UTC|GMT)?[+-]\d\d(?::?\d\d)?)?(?:\s*\[[\w/+-]+\])?\s*",
    re.IGNORECASE | re.ASCII,
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?$")
_RATE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµμ/]*)", re.IGNORECASE | re.ASCII)
_RATE_UNITS = {"": 1.0, "hz": 1.0, "khz": 1e3, "MHz": 1e6, "mHz": 1e-3, "sps": 1.0}
_RATES = (1e-9, 1e12)  # Hz: a sample in 30 years, and what no sensor gives; also of manifests
_SAMPLE = 1000  # cells that show how a column is written


def moment(text: str, *, day_first: bool = True) -> float | None:
    """A date, a time of day, or both, in seconds since 1970, or since midnight without a date; None for other text.

    Args:
        text: such as "2026-01-31 12:00:00.5", "2026-01-31T12:00+01:00", "31.1.2026", "1/31/2026 9:05 PM" or "31 Jan
            2026 12:00 GMT"; UTC where it names no zone.
        day_first: whether 1.2.2026 is in February.
    """
    text = text.strip()
    if _ISO.fullmatch(text):  # fast; not of leap seconds, nor of 24:00 before Python 3.14
        with suppress(ValueError):
            return _of_datetime(datetime.fromisoformat(text))
    text = text[found.end() :] if (found := _WEEKDAY.match(text)) else text
    days, rest = _date(text, day_first)
    if days is None or (rest == text and not re.match(r"\d{1,2}:\d\d", text)):
        return None
    clock = _CLOCK.fullmatch(rest)
    if clock is None:
        return None
    hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in clock.groups()[:3])
    if clock[4]:
        hours = hours % 12 + (12 if clock[4][0] in "pP" else 0)
    if hours > 24 or minutes > 59 or seconds > 61:
        return None
    return 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds - _offset(clock[5] or "")


def _date(text: str, day_first: bool) -> tuple[int | None, str]:
    """The day that text begins with, counted from 1970, and the rest; all of the text where there is none."""
    if found := _NUMBERS.match(text):
        first, second, third = (int(part) for part in found.groups())
        if len(found[1]) == 4:
            year, month, day = first, second, third
        elif len(found[3]) > 1:
            year, month, day = (third, second, first) if day_first else (third, first, second)
        else:  # a version
            return None, text
    elif found := _DAY_MONTH.match(text):
        day, month, year = int(found[1]), _month(found[2]), int(found[3])
    elif found := _MONTH_DAY.match(text):
        month, day, year = _month(found[1]), int(found[2]), int(found[3])
    elif found := _COMPACT.match(text):
        year, month, day = (int(part) for part in found.groups()[:3])
        clock = ":".join(part for part in found.groups()[3:] if part)
        text = f"{text[: found.end(3)]}{clock}{text[found.end() :]}"  # with colons
        return _ordinal(year, month, day), text[found.end(3) :]
    else:
        return 0, text
    return _ordinal(year + (0 if year > 99 else 2000 if year < 70 else 1900), month, day), text[found.end() :]


def _month(name: str) -> int:
    return _MONTHS.index(name.lower()) if name.lower() in _MONTHS else 0


def _ordinal(year: int, month: int, day: int) -> int | None:
    try:
        return date(year, month, day).toordinal() - _ORIGIN
    except ValueError:
        return None


def _offset(zone: str) -> int:
    """Seconds east of Greenwich."""
    found = _OFFSET.search(zone)
    return 0 if found is None else int(f"{found[1]}1") * (3600 * int(found[2]) + 60 * int(found[3] or 0))


def as_rate(name: str, value: Any) -> float:
    """A rate in samples a second: from a number of Hz, or text such as "50Hz", "8kHz", "100/s", or a period: "5min".

    Args:
        name: of the parameter, for messages.
        value: a number or text.

    Raises:
        InputError: something else, or not above 0.
    """
    rate = math.nan
    if isinstance(value, str) and (found := _RATE.fullmatch(value.strip())):
        number, unit = float(found[1]), found[2]
        factor = _RATE_UNITS.get(unit, _RATE_UNITS.get(unit.lower()))
        period = next((s for names, s in _UNITS.items() if re.fullmatch(names, unit.removeprefix("/"), re.I)), 0.0)
        if factor is not None:
            rate = number * factor
        elif period and number:
            rate = number / period if unit.startswith("/") else 1 / (number * period)
    elif isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        rate = float(value)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(
            f"{name}: expected samples a second above 0, such as 50Hz, 8kHz or 100/s, or the time between two, such as "
            f"5min, got {value!r:.60}"
        )
    return rate


def rate_text(rate: float) -> str:
    """A rate in Hz as text that `as_rate` reads: "50Hz", or where samples are rare the time between two: "5min"."""
    if rate >= 0.5:
        return f"{rate:.6g}Hz"
    seconds = float(f"{1 / rate:.6g}")
    size, unit = next(((s, u) for s, u in ((86400, "d"), (3600, "h"), (60, "min")) if seconds % s == 0), (1, "s"))
    return f"{seconds / size:.6g}{unit}"


def rate_said(rate: float) -> str:
    """A rate in Hz for people: "50 Hz", or "a sample every 5min"."""
    return f"{rate:.6g} Hz" if rate >= 0.5 else f"a sample every {rate_text(rate)}"


def duration_text(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds:.4g} s" if seconds < 1000 else f"{seconds:,.0f} s"


class TimeFormat(Record):
    """How the cells of a column tell the time.

    `numbers`: whether text is numbers rather than dates. `unit`: seconds that a number counts in. `day_first`: whether
    1.2.2026 is in February. `compact`: whether numbers such as 20260131 are dates. `decimal`: the decimal mark of text.
    `dated`: whether times count from 1970, otherwise from some start. `note`: what was guessed, a part of a sentence;
    empty where nothing was.
    """

    numbers: bool = False
    unit: float = 1.0
    day_first: bool = True
    compact: bool = False
    decimal: str = "."
    dated: bool = True
    note: str = ""

    def seconds(self, cell: Any) -> float:
        """The time that one cell tells, NaN where it cannot be read or is missing."""
        if isinstance(cell, str):
            return self._of_text(cell)
        if isinstance(cell, (int, float, np.integer, np.floating)) and not isinstance(cell, bool):
            if self.compact:
                return self.seconds(f"{cell:.0f}" if math.isfinite(cell) else "")
            return float(cell) * self.unit if math.isfinite(cell) else math.nan
        if isinstance(cell, np.datetime64):
            return float(_of_datetime64(np.array([cell]))[0])
        if isinstance(cell, (date, time, timedelta)):
            return _of_datetime(cell)
        return math.nan

    def _of_text(self, cell: str) -> float:
        """What was decided is tried first: it is fast."""
        for as_number in (self.numbers, not self.numbers):
            found = self._number(cell) if as_number else moment(cell, day_first=self.day_first)
            if found is not None:
                return found
        return math.nan

    def _number(self, cell: str) -> float | None:
        value = None if self.compact else number(cell, self.decimal)
        return value if value is None else value * self.unit if math.isfinite(value) else math.nan

    def column(self, cells: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
        """The times of many cells, (n,), or an array of numbers or dates; NaN where one cannot be read."""
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            return _of_datetime64(cells)
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiu" and not self.compact:
            values = cells.astype(np.float64) * self.unit
            return np.where(np.isfinite(values), values, np.nan)
        if not self.numbers and all(isinstance(cell, str) and len(cell) > 9 and cell[4] == "-" for cell in cells):
            with suppress(ValueError), warnings.catch_warnings():  # of zones
                warnings.simplefilter("ignore")
                return _of_datetime64(np.array(cells, "datetime64[us]"))
        return np.array([self.seconds(cell) for cell in cells], np.float64)


def find_format(cells: Sequence[Any] | NDArray[Any], *, decimal: str = ".", name: str = "") -> TimeFormat:
    """How cells tell the time: found out from those that are there, be it one of a stream or a whole column.

    Args:
        cells: text, numbers, dates (`datetime`, `numpy.datetime64`); those that are missing are passed over.
        decimal: the decimal mark of text.
        name: of the column, which may end in a unit: "time_ms", "t [us]". Numbers are taken for seconds otherwise, or
            for what their size says where they count from 1970 (`EPOCHS`).
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        return TimeFormat()
    if len(cells) > _SAMPLE:
        cells = [cells[i] for i in np.linspace(0, len(cells) - 1, _SAMPLE).astype(int)]
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip().lower() not in MISSING]
    numbers = [
        float(cell)
        for cell in cells
        if isinstance(cell, (int, float, np.integer, np.floating)) and not isinstance(cell, bool)
    ]
    found = [number(text, decimal) for text in texts]
    if 2 * found.count(None) > len(found) + len(numbers):
        return _of_texts(texts, decimal)
    values = [value for value in (*numbers, *(v for v in found if v is not None)) if math.isfinite(value)]
    if not values:
        return TimeFormat(decimal=decimal)
    return _of_numbers(values, decimal, name)


def to_seconds(
    cells: Sequence[Any] | NDArray[Any], *, decimal: str = ".", name: str = ""
) -> tuple[NDArray[np.float64], TimeFormat]:
    """The times of a column, (n,), and how they are written; see `find_format`."""
    found = find_format(cells, decimal=decimal, name=name)
    return found.column(cells), found


def _of_numbers(values: Sequence[float], decimal: str, name: str) -> TimeFormat:
    if all(1.9e7 < value < 2.1e7 and value == int(value) and moment(f"{value:.0f}") is not None for value in values):
        return TimeFormat(compact=True, decimal=decimal, note=f"numbers such as {values[0]:.0f} are taken for dates")
    middle = sorted(values)[len(values) // 2]
    for low, high, unit in EPOCHS:
        if low <= middle <= high:
            return TimeFormat(True, unit, decimal=decimal, note=f"numbers are taken for {_NAMES[unit]} since 1970")
    if 1.9e13 < middle < 2.1e13 and moment(f"{middle:.0f}") is not None:
        return TimeFormat(compact=True, decimal=decimal, note=f"numbers such as {middle:.0f} are taken for dates")
    unit = next((unit for pattern, unit in _UNIT_IN_NAME.items() if pattern.fullmatch(name)), 1.0)
    return TimeFormat(True, unit, decimal=decimal, dated=False, note=f"numbers are taken for {_NAMES[unit]}")


def _of_texts(texts: Sequence[str], decimal: str) -> TimeFormat:
    """Day or month first: under which more dates can be read, then under which they rise in the smaller steps."""
    readings = {day_first: [moment(text, day_first=day_first) for text in texts] for day_first in (True, False)}
    unlike = next((text for text, *both in zip(texts, *readings.values()) if both[0] != both[1]), None)

    def badness(day_first: bool) -> tuple[int, float]:
        known = [value for value in readings[day_first] if value is not None]
        return readings[day_first].count(None), sum(abs(b - a) for a, b in pairwise(known))

    day_first = badness(True) <= badness(False)
    known = [value for value in readings[day_first] if value is not None]
    order = "day first" if day_first else "month first"
    note = f"dates such as {unlike} are read {order}" if badness(True)[0] == badness(False)[0] and unlike else ""
    dated = any(value >= 2 * 86400 for value in known)  # not times of day alone
    return TimeFormat(day_first=day_first, decimal=decimal, dated=dated, note=note)


def _of_datetime(cell: date | time | timedelta) -> float:
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    if isinstance(cell, time):
        return 3600.0 * cell.hour + 60.0 * cell.minute + cell.second + 1e-6 * cell.microsecond
    if not isinstance(cell, datetime):
        return 86400.0 * (cell.toordinal() - _ORIGIN)
    try:  # pandas' NaT is a datetime
        return ((cell if cell.tzinfo else cell.replace(tzinfo=timezone.utc)) - _START).total_seconds()
    except (ValueError, TypeError):
        return math.nan


def _of_datetime64(cells: NDArray[Any]) -> NDArray[np.float64]:
    found = cells.astype("datetime64[us]")
    return np.where(np.isnat(found), np.nan, found.astype(np.int64) / 1e6)
