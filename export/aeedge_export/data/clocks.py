"""When the samples of a recording were taken: from columns of a table, and whether at a constant rate, without gaps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable
from aeedge.files.times import TimeFormat, duration_text, rate_said, rate_text, to_seconds

GAP = 1.5  # nominal steps; a longer one is a gap
IRREGULAR_GAP = 5.0  # median steps, between samples that are to be resampled
_JITTER, _RARE = 0.2, 0.01  # of a nominal step, beyond which a step is uneven; share of steps that may be
_BACKWARD = 0.1  # share of steps back, from which on a column tells no time
_COARSE = 0.1  # share of samples with the time of the one before, from which on the clock is too coarse
_UNREADABLE = 0.05  # share of cells
_CONTRADICTION = 0.05  # between a rate that was given and the times
_DAY = 86400.0
_OF_TIME = re.compile(r"(?:date|time|datetime|timestamp|ts)(?:[\W_].*)?", re.IGNORECASE)
_EXACT = 2e-4  # of a rate, within which a round number is meant


@dataclass(frozen=True)
class Clock:
    """The times of a recording's samples.

    Attributes:
        keep: indices of the samples, without those whose time is that of the one before; None for all.
        breaks: (m - 1,) bool, whether there is a gap after each kept sample, or the clock goes back.
        rate: samples a second; the median one where sampling is irregular.
        irregular: whether it is.
        longest: seconds from one sample to the next, beyond which there is a gap.
        notes: what was found, in sentences.
    """

    keep: NDArray[np.intp] | None
    breaks: NDArray[np.bool_]
    rate: float
    irregular: bool
    longest: float
    notes: tuple[str, ...]


def find_times(
    columns: Mapping[str, Sequence[Any]],
    decimal: str,
    where: str,
    asked: str | None = None,
    units: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, NDArray[np.float64], TimeFormat] | None:
    """The column that tells the time of each sample, its times (n,) in seconds and their format; None without.

    Args:
        columns: cells of the columns that may tell the time, by name. A date and a time of day are joined.
        decimal: the decimal mark of text.
        where: the file, for messages.
        asked: the column that must be it.
        units: of the columns, as far as they are known.

    Raises:
        InputError: `asked` tells no time.
    """
    found = {
        name: to_seconds(cells, decimal=decimal, name=f"{name} {units.get(name, '')}".rstrip())
        for name, cells in columns.items()
    }
    readable = {name: one for name, one in found.items() if np.isnan(one[0]).mean() <= _UNREADABLE}
    if asked is not None and asked not in readable:
        cell = next((c for c, t in zip(columns[asked], found[asked][0]) if np.isnan(t)), None)
        raise InputError(
            f"{where}, column '{printable(asked)}': expected the time of each sample, such as 2026-01-31 12:00:00 or "
            f"seconds, got '{printable(str(cell))}'; name another column (time=...), or give the rate"
        )
    days = [n for n, (t, how) in readable.items() if how.dated and (t[~np.isnan(t)] % _DAY == 0).all()]
    hours = [
        n
        for n, (_, how) in readable.items()
        if not how.dated and isinstance(_first(columns[n]), str) and _is_clock(columns[n])
    ]
    if days and hours and asked is None:
        day, hour = readable[days[0]], readable[hours[0]]
        return f"{days[0]} {hours[0]}", day[0] + hour[0], day[1]
    rising = [n for n, (t, how) in readable.items() if _rises(t, 0.5 if how.dated or n in hours else 0.99)]
    dated = [n for n, (_, how) in readable.items() if how.dated]
    name = next((n for n in (*dated, *rising, *readable) if (asked is None and n in rising) or n == asked), None)
    if name is None:  # of rows that are out of order, as `read_clock` says
        name = next((n for n in dated if _OF_TIME.fullmatch(n)), None)
    if name is None:
        return None
    times, how = readable[name]
    if name in hours:  # midnight is no step back
        times = times + _DAY * np.concatenate([[0], np.cumsum(np.diff(times) < -_DAY / 2)])
    return name, times, how


def _first(cells: Sequence[Any]) -> Any:
    return next((cell for cell in cells if cell is not None and str(cell).strip()), None)


def _is_clock(cells: Sequence[Any]) -> bool:
    return ":" in str(_first(cells))


def _rises(times: NDArray[np.float64], least: float) -> bool:
    """Whether at least this share of the steps do not go back, and some go on: a name alone is no proof."""
    steps = np.diff(times[~np.isnan(times)])
    return len(steps) > 0 and bool((steps >= 0).mean() >= least) and bool((steps > 0).any())


def read_clock(
    times: NDArray[np.float64], name: str, *, rate: float | None, dated: bool, resample: bool = False
) -> Clock:
    """Gaps in times, and the rate between them.

    Args:
        times: (n,), in seconds, NaN where a sample has none.
        name: of the recording, for messages.
        rate: that is known, in Hz; None to find it out.
        dated: whether times count from 1970, for messages.
        resample: whether irregular sampling is welcome.

    Raises:
        InputError: times that say nothing, contradict the rate, or are irregular.
    """
    steps = np.diff(times)
    forward = steps[steps > 0]
    if not len(forward):
        raise InputError(f"{name}: expected times that rise, but they do not; name another column (time=...)")
    if (steps < 0).sum() > _BACKWARD * len(steps):
        raise InputError(
            f"{name}: expected times that rise from sample to sample, but {(steps < 0).mean():.0%} of the steps go "
            "back; sort the rows, or name another column (time=...)"
        )
    same = steps == 0
    if rate is not None and same.sum() > _COARSE * len(steps):
        return _coarse(times, steps, name, rate, dated)
    keep, notes = None, []
    if same.any():
        if same.sum() > _COARSE * len(steps):
            raise InputError(
                f"{name}: expected a time of its own for each sample, but {same.mean():.0%} have that of the one "
                "before: this clock is too coarse; give the rate (rate=...), then it only shows gaps"
            )
        keep = np.flatnonzero(np.concatenate([[True], ~same]))
        notes.append(f"{counted(int(same.sum()), 'sample has', 'samples have')} the time of the one before: left out")
        times = times[keep]
        steps = np.diff(times)
    even = forward[forward <= GAP * np.median(forward)]
    step = float(even.mean())
    quantum = _quantum(times)
    ticks = step / quantum if quantum else 0.0
    rounded = abs(ticks - round(ticks)) > _RARE  # then steps differ by one tick of the clock
    limit = max(GAP * step, 1.001 * quantum * math.ceil(ticks - _RARE))
    uneven = (np.abs(even - step) > max(_JITTER * step, 1.01 * quantum * rounded)).mean()
    gaps = (forward > limit).mean()
    irregular = bool(uneven > _RARE or gaps > 0.25)
    found = _rounded(1 / step)
    if rate is not None and abs(rate * step - 1) > _CONTRADICTION and not irregular:
        raise InputError(
            f"rate: expected {rate_said(found)}, as the times of {name} say, got {rate_said(rate)}; leave it out, or "
            f"resample (resample='{rate_text(rate)}')"
        )
    if irregular and not resample:
        share = uneven if uneven > _RARE else gaps
        what = f"by more than {_JITTER:.0%} from {step:.4g} s" if uneven > _RARE else f"{step:.4g} s by half or more"
        low, high, typical = (*np.quantile(forward, (0.05, 0.95)), _rounded(1 / float(np.median(forward))))
        raise InputError(
            f"{name}: expected samples at a constant rate, but {share:.0%} of the steps in time differ {what} "
            f"(most are {low:.4g} to {high:.4g} s); have it resampled (resample='{rate_text(typical)}')"
        )
    limit = IRREGULAR_GAP * float(np.median(forward)) if irregular else limit
    broken, more = _breaks(times, steps, limit, dated)
    return Clock(keep, broken, found if rate is None else rate, irregular, limit, (*notes, *more))


def _coarse(times: NDArray[np.float64], steps: NDArray[np.float64], name: str, rate: float, dated: bool) -> Clock:
    """A clock that counts in longer steps than samples come in: it only shows gaps."""
    tick = float(np.median(steps[steps > 0]))
    longest = tick + GAP / rate + 1e-9
    broken, notes = _breaks(times, steps, longest, dated)
    inside = ~broken & ~np.isnan(steps)
    seconds = max(float(steps[inside].sum()), 1e-30)
    found, doubt = inside.sum() / seconds, tick * (broken.sum() + 1) / seconds
    if abs(found / rate - 1) > _CONTRADICTION + doubt:
        raise InputError(
            f"rate: expected about {rate_said(found)}, as the times of {name} say, got {rate_said(rate)}; correct it"
        )
    return Clock(None, broken, rate, False, longest, (f"its clock counts in steps of {tick:.4g} s", *notes))


def _breaks(
    times: NDArray[np.float64], steps: NDArray[np.float64], limit: float, dated: bool
) -> tuple[NDArray[np.bool_], list[str]]:
    """Where consecutive samples are too far apart or the clock goes back, and sentences about it."""
    notes = []
    for what, where in (("gap", steps > limit), ("step back of the clock", steps < 0)):
        places = np.flatnonzero(where)
        if len(places):
            worst = places[np.argmax(np.abs(steps[places]))]
            largest = f"{duration_text(float(np.abs(steps[worst])))} after {shown_time(times[worst], dated)}"
            many = what.replace("gap", "gaps").replace("step ", "steps ")
            notes.append(f"{counted(len(places), what, many)}, the largest {largest}")
    return (steps > limit) | (steps < 0), notes


def shown_time(seconds: float, dated: bool) -> str:
    """A time for people: a date, or seconds."""
    if not dated:
        return f"{seconds:.6g} s"
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=float(seconds))
    except OverflowError:
        return f"{seconds:.6g} s"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, one: str, many: str) -> str:
    """A number of things in words."""
    return f"{count:,} {one if count == 1 else many}"


def _quantum(times: NDArray[np.float64]) -> float:
    """The unit that times are rounded to, in seconds: a power of ten from 1 to 1e-6, or 0 where they are finer."""
    known = times[~np.isnan(times)][:10_000]
    for digits in range(7):
        scaled = known * 10.0**digits
        if (np.abs(scaled - np.rint(scaled)) <= np.maximum(4 * np.spacing(np.abs(scaled)), 1e-6)).all():
            return float(10.0**-digits)
    return 0.0


def _rounded(rate: float) -> float:
    """A rate or its period as the round number that is meant, where one is near; otherwise six digits."""
    for digits in (2, 3, 4, 5):
        for near in (float(f"{rate:.{digits}g}"), 1 / float(f"{1 / rate:.{digits}g}")):
            if abs(near / rate - 1) <= _EXACT:
                return near
    return float(f"{rate:.7g}")
