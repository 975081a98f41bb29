"""Gross outliers and codes for missing values, found in raw rows before anything is fitted to them.

A value is gross if it is far from the median of its column, and also far beyond the other values of the column: columns
with heavy tails have extreme values too, but with others on the way to them. Both are measured on statistics that a few
values of any size do not move. A column here is a value of a table's row, a channel of a signal or an image, or all
values of a row that share a range, such as pixels: a bright pixel in a place that is dark in other rows is no outlier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge_export.data.axes import channels_first
from aeedge_export.data.scaling import among, is_image, pick_rows, scan, share_range

_LEAST_ROWS = 20
_FAR = 10.0  # deviations from the median
_GAP = 3.0  # times the distance of the farthest value that is not gross
_CHANCE = 3.0  # minus log of the chance that a tail as heavy as the column's makes such a gap in any column
_TAIL, _TAIL_VALUES = 0.05, 10  # share and least number of values that a tail is judged by
_LEVELS = 20  # a column of fewer different values is discrete
_OUTLIERS = 0.02  # largest share of rows with outliers in one column
_REPEATS, _LEVEL = 0.05, 0.005  # largest share of a value that repeats without being a known code; in discrete columns
_ROWS_WITH_OUTLIERS = 0.2  # with more rows, extreme values are in the nature of the data
_ROWS_TO_KEEP = 0.1  # at least
_MODE_ROWS, _MODE_WIDTH = 10, 0.25
_RESOLUTION = 1e-7  # of float32
_SHOWN = 3
_MOST_FAR = 2**24  # values beyond the limit, 24 bytes each; more are in the nature of the data

_FILL = 1e15  # 1e20, 1e30, 9.96921e36, the largest float32
_NINES = re.compile(r"-9{3,}|9{4,}|-?999\.25")
_KNOWN = re.compile(r"-1|-99|999|-?99\.9+|-?9{3,}\.9+|-?(\d)\1{3,}|-32768|255|32767|65535|-2147483648|2147483647")


@dataclass(frozen=True)
class Finding:
    """Values of one column that do not belong to it.

    Attributes:
        column: index of the value in a table's row, or of the channel; None for values that share a range.
        place: the column for people, such as "column 'c'".
        code: the value that looks like a code for "missing"; None for outliers.
        rows: indices of the rows, the farthest value first.
        values: the value in each of these rows.
        deviations: distance of each value from the median, in robust standard deviations.
    """

    column: int | None
    place: str
    code: float | None
    rows: NDArray[np.intp]
    values: NDArray[np.float64]
    deviations: NDArray[np.float64]


@dataclass(frozen=True)
class Outliers:
    """Rows with gross outliers or codes for missing values.

    Attributes:
        mask: True for rows to leave out, (n,); all False if fewer than a tenth would be left.
        findings: codes, then outliers.
    """

    mask: NDArray[np.bool_]
    findings: tuple[Finding, ...] = ()

    @property
    def notes(self) -> list[str]:
        """The findings in sentences."""
        return self.sentences("training and comparison")

    def sentences(self, left_out_of: str) -> list[str]:
        """The findings in sentences that say what the rows were left out of."""
        if not self.findings:
            return []
        codes = [f for f in self.findings if f.code is not None]
        notes = [
            f"{f.place}: {_plain(f.values[0])} in {_rows(len(f.rows))} looks like a code for a missing value"
            for f in codes[:_SHOWN]
        ]
        if len(codes) > _SHOWN:
            notes[-1] += f"; so do values of {len(codes) - _SHOWN} more columns"
        gross = self.findings[len(codes) :]
        cells = sorted(
            (-far, f"{f.place}: {_plain(value)} in row {row} is {_size(far)} deviations away")
            for f in gross
            for far, value, row in zip(f.deviations[:_SHOWN], f.values, f.rows)
        )
        if cells:
            more = sum(len(f.rows) for f in gross) - _SHOWN
            notes.append("; ".join(text for _, text in cells[:_SHOWN]) + (f"; and {more} more" if more > 0 else ""))
        count = int(self.mask.sum())
        if count:
            notes[-1] += f". {_rows(count)} {'was' if count == 1 else 'were'} left out of {left_out_of}"
        else:
            notes[-1] += ". Too few rows would be left without them: all were kept; replace these values first"
        return notes


def find_outliers(
    X: NDArray[Any],
    features: Sequence[str] | None = None,
    rows: NDArray[np.intp] | None = None,
    span: int = 1,
    *,
    channels_last: bool = False,
) -> Outliers:
    """Find gross outliers and codes for missing values; the arguments are those of `OutlierSearch`."""
    search = OutlierSearch(X, features, rows, span, channels_last=channels_last)
    if search.needed:
        scan(X, search)
    return search.found()


class OutlierSearch:
    """Finds gross outliers and codes for missing values in chunks that are seen once, in order.

    Args:
        X: finite raw rows (n, *shape), of which some are read at once. Images of bytes have no outliers.
        features: names of the columns of (n, features), None without.
        rows: sorted indices of the rows to look at, (m,), all by default; others have no say.
        span: of windows that overlap, how many rows on from a row the first one is that shares no sample with it: one
            sample that is in all of them is no value that repeats.
        channels_last: the layout of signals and images.

    Attributes:
        needed: whether there is anything to look for; not any more after 16 777 216 values far from the others.
    """

    def __init__(
        self,
        X: NDArray[Any],
        features: Sequence[str] | None = None,
        rows: NDArray[np.intp] | None = None,
        span: int = 1,
        *,
        channels_last: bool = False,
    ) -> None:
        self._features, self._rows, self._span, self._last = features, rows, span, channels_last
        self._all, self._count = len(X), len(X) if rows is None else len(rows)
        shape = channels_first(np.broadcast_to(0, (1, *X.shape[1:])), channels_last).shape[1:]
        bytes_of_images = X.dtype == np.uint8 and is_image(shape, X.dtype)
        few = self._count < _LEAST_ROWS or 0 in X.shape[1:]
        self.needed = not (few or X.dtype == np.bool_ or bytes_of_images)
        self._kept: list[list[NDArray[Any]]] = [[], [], []]  # side and column, row, value
        if self.needed:
            self._measure(channels_first(np.asarray(pick_rows(X, rows), np.float64), channels_last))

    def _measure(self, sample: NDArray[np.float64]) -> None:
        """Median and spread of the columns, from some rows."""
        self._shape = _columns(sample)
        sample = sample.reshape(-1, *self._shape)
        self._ordered = np.sort(sample.swapaxes(1, 2).reshape(-1, self._shape[0]), axis=0)
        self._low, self._high = low, high = _without_codes(self._ordered)
        self._median, spread = _median_and_spread(self._ordered, low, high)
        ends = self._ordered[[low, high - 1], np.arange(self._shape[0])]
        median = self._median
        reach = np.maximum(sample.max(axis=2).clip(*ends) - median, median - sample.min(axis=2).clip(*ends))
        self._spread = np.maximum(spread, np.median(reach, axis=0) / 5)  # many values reach farther than one value
        self._farthest = np.zeros((2, self._shape[0]))

    def __call__(self, block: int, start: int, chunk: NDArray[np.float64]) -> None:
        """See the rows (m, *shape) from index `start` on: values beyond the limit on one side of a column are kept.

        Of a column of several values in a row, the lowest and the highest value of each row count.
        """
        if not self.needed:
            return
        first = start  # of these rows among those to look at
        if self._rows is not None:
            first = int(np.searchsorted(self._rows, self._rows.dtype.type(start)))
            chunk = chunk[among(self._rows, start, len(chunk))]
        if not len(chunk):
            return
        limit, median, farthest = _FAR * self._spread, self._median, self._farthest
        grouped = channels_first(chunk, self._last).reshape(-1, *self._shape)
        for side, (sign, extreme) in enumerate(((-1, np.min), (1, np.max))):
            top = sign * (extreme(grouped, axis=(0, 2)) - median)
            farthest[side] = np.maximum(farthest[side], np.where(top > limit, 0, top))
            some = np.flatnonzero(top > limit)
            value = extreme(grouped[:, some], axis=2)
            distance = sign * (value - median[some])
            far = distance > limit[some]
            farthest[side, some] = np.maximum(farthest[side, some], np.where(far, 0, distance).max(axis=0))
            row, at = np.nonzero(far)
            for kept, new in zip(self._kept, (side * self._shape[0] + some[at], row + first, value[far])):
                kept.append(new)
        if sum(map(len, self._kept[0])) > _MOST_FAR:
            self.needed, self._kept = False, [[], [], []]

    @property
    def state(self) -> Any:
        """The values beyond the limit, how far the others reach, and whether there is anything to look for."""
        kept = [np.concatenate(each) if each else np.empty(0, np.intp) for each in self._kept]
        return kept, getattr(self, "_farthest", 0.0), self.needed

    def merge(self, states: list[Any]) -> None:
        """Take what all processes have seen."""
        kept, farthest, needed = zip(*states)
        self.needed = all(needed)
        if self.needed:
            self._kept = [[each for each in column if len(each)] or [column[0]] for column in zip(*kept)]
            self._farthest = np.maximum.reduce(farthest)
            self.needed = sum(map(len, self._kept[0])) <= _MOST_FAR

    def found(self) -> Outliers:
        """What is found in all chunks."""
        mask, count = np.zeros(self._all, np.bool_), self._count
        if not self.needed:
            return Outliers(mask)
        codes: list[Finding] = []
        gross: list[Finding] = []
        median, spread, shape = self._median, self._spread, self._shape
        for column, at, values, farthest in self._far_values():
            inner = self._ordered[self._low[column] : self._high[column], column]
            deviations = np.abs(values - median[column]) / (spread[column] or 1.0)
            if spread[column] > 0:
                tail = np.sort(np.abs(inner - median[column]) / spread[column])
                isolated = deviations >= _first_gap(np.sort(deviations), farthest / spread[column], tail, shape[0])
                at, values, deviations = at[isolated], values[isolated], deviations[isolated]
            index = None if shape[0] == 1 < shape[1] else column
            place = _place(index, shape, self._features)
            for code, mine in _sorted_out(values, inner, count, constant=spread[column] == 0):
                order = np.flatnonzero(mine)[np.argsort(-deviations[mine], kind="stable")]
                code = None if len(order) > 1 and np.ptp(at[order]) < self._span else code
                one = Finding(index, place, code, at[order], values[order], deviations[order])
                (gross if code is None else codes).append(one)
        findings = (*codes, *_without_modes(gross, count))
        if self._rows is not None:
            findings = tuple(replace(finding, rows=self._rows[finding.rows]) for finding in findings)
        for finding in findings:
            mask[finding.rows] = True
        return Outliers(mask if mask.sum() <= (1 - _ROWS_TO_KEEP) * count else np.zeros_like(mask), findings)

    def _far_values(self) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float64], float]]:
        """Of each column and side with values beyond the limit: column, rows, values, farthest distance within it."""
        place, row, value = map(np.concatenate, self._kept)
        order = np.lexsort((row, place))
        places, first = np.unique(place[order], return_index=True)
        for one, part in zip(places, np.split(order, first[1:])):
            yield int(one % self._shape[0]), row[part], value[part], float(self._farthest.flat[one])


def _columns(sample: NDArray[Any]) -> tuple[int, int]:
    """Number of columns in a row, and of values in each: (d, 1) of tables, (channels, ...) of signals and images."""
    size = sample[0].size
    if sample.ndim > 2:
        return sample.shape[1], size // sample.shape[1]
    return (1, size) if share_range(sample) else (size, 1)


def _median_and_spread(
    ordered: NDArray[np.float64], low: NDArray[np.intp], high: NDArray[np.intp], *, codes: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and robust standard deviation of sorted columns (m, d), each of its values from index `low` to `high`.

    The deviation is the larger of those that the central half and the central 96 % of the values suggest; while there
    may be codes among them, that of the central half, unless it is 0.
    """

    def value(index: NDArray[np.intp]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = ordered[index.clip(0, len(ordered) - 1), np.arange(len(index))]
        return values

    def width(q: float) -> NDArray[np.float64]:
        cut = np.ceil(q * (high - low - 1)).astype(np.intp)
        return value(high - 1 - cut) - value(low + cut)

    median, half, most = value((low + high) // 2), width(0.25) / 1.349, width(0.02) / 4.107
    spread = np.where(half > 0, half, most) if codes else np.maximum(half, most)
    return median, np.where(spread > _RESOLUTION * np.abs(median), spread, 0.0)


def _without_codes(ordered: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First index and end of the values of sorted columns (m, d) that are left without codes, which are at the ends."""
    m, d = ordered.shape
    low, high = np.zeros(d, np.intp), np.full(d, m, np.intp)
    for _ in range(2):  # two codes on each side
        for side in (0, 1):
            end = np.where(side, high - 1, low)
            value = ordered[end, np.arange(d)]
            run = (ordered == value).sum(axis=0)
            inner_low, inner_high = (low, high - run) if side else (low + run, high)
            some = np.flatnonzero((run > 1) & (inner_high - inner_low >= m / 2))
            if not len(some):
                continue
            median, spread = _median_and_spread(ordered[:, some], inner_low[some], inner_high[some], codes=True)
            nearest = ordered[np.where(side, inner_high - 1, inner_low)[some], some]
            distance = np.abs(value[some] - median)
            far = (distance > _FAR * spread) & (distance > _GAP * np.abs(nearest - median))
            for i, constant in zip(some[far], spread[far] == 0):
                if _is_code(value[i], run[i], _REPEATS * m, constant):
                    low[i], high[i] = inner_low[i], inner_high[i]
    return low, high


def _first_gap(deviations: NDArray[np.float64], nearest: float, tail: NDArray[np.float64], columns: int) -> float:
    """The smallest of sorted deviations with a gap before it that the tail does not explain; infinite without.

    In a tail that falls like a power, the logarithm of a gap is exponential with the mean excess of the logarithms
    (Hill 1975); the gap has to be too wide for the widest of all columns and sides.
    """
    before = np.r_[max(nearest, 1.0), deviations[:-1]]
    for i in np.flatnonzero(deviations / before >= _GAP):
        below = tail[(tail > 0) & (tail < deviations[i])]
        if len(below) < 2 * _TAIL_VALUES:
            continue
        top = below[-max(_TAIL_VALUES, int(_TAIL * len(below))) :]
        excess = float(np.log(top / top[0]).mean())
        if np.log(deviations[i] / before[i]) >= excess * (_CHANCE + np.log(2 * columns)):
            return float(deviations[i])
    return np.inf


def _sorted_out(
    values: NDArray[np.float64], inner: NDArray[np.float64], total: int, *, constant: bool
) -> Iterator[tuple[float | None, NDArray[np.bool_]]]:
    """Each code among isolated values of a column with a mask of its values, and None with that of the outliers.

    Args:
        values: the isolated values.
        inner: a sample of the others.
        total: number of rows.
        constant: whether nearly all others are equal: what differs may be a flag, and only certain codes count.
    """
    kinds, counts = np.unique(values, return_counts=True)
    discrete = len(np.unique(inner)) < _LEVELS
    most = _LEVEL * total if discrete else max(3.0, _REPEATS * total)
    codes = [value for value, count in zip(kinds.tolist(), counts) if _is_code(value, count, most, constant)]
    for code in codes:
        yield code, values == code
    outliers = ~np.isin(values, codes)
    if discrete:
        outliers &= ~np.isin(values, kinds[counts > most])  # one of its levels
    if constant:
        outliers &= np.abs(values) >= _FILL
    if 0 < outliers.sum() <= max(1, _OUTLIERS * total):
        yield None, outliers


def _is_code(value: float, count: int, most: float, constant: bool) -> bool:
    """Whether a value that occurs `count` times, far from all others, looks like a code for "missing"."""
    text = _plain(value)
    if count > 1 and (_NINES.fullmatch(text) or abs(value) >= _FILL):
        return True
    known = count > 1 and _KNOWN.fullmatch(text) is not None
    return not constant and (known or (value != 0 and 2 < count <= most))


def _without_modes(findings: list[Finding], rows: int) -> list[Finding]:
    """Drop what is no outlier after all: rows that deviate together, to similar values, are a mode of operation.

    And drop everything if too many rows have outliers: then extreme values are in the nature of the data.
    """
    together = np.zeros(rows, np.intp)
    for f in findings:
        together[f.rows] += 1 if f.column is not None or np.ptp(f.values) > 0 else 2  # all values of a row alike

    def mode(f: Finding) -> bool:
        alike = f.deviations.std() <= _MODE_WIDTH * f.deviations.mean()
        return len(f.rows) >= _MODE_ROWS and alike and (together[f.rows] > 1).mean() >= 0.5

    kept = [f for f in findings if not mode(f)]
    affected = len(np.unique(np.concatenate([f.rows for f in kept]))) if kept else 0
    return kept if affected <= max(1, _ROWS_WITH_OUTLIERS * rows) else []


def _place(column: int | None, shape: tuple[int, int], features: Sequence[str] | None) -> str:
    if column is None:
        return "values"
    if shape[1] > 1:
        return f"channel {column}"
    return f"column {features[column]!r}" if features is not None else f"column {column}"


def _plain(value: float) -> str:
    """A number in the shortest form that float32 tells apart, without an exponent where it is not long."""
    short = np.float32(value)
    exact = float(value) if float(value).is_integer() and abs(value) < _FILL else float(str(short))
    return f"{exact:.0f}" if exact.is_integer() and abs(exact) < _FILL else f"{exact:g}"


def _size(deviations: float) -> str:
    return f"{deviations:.0f}" if deviations < 1e6 else f"{deviations:.0e}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
