"""Sensor health: whether a window can be believed before a model is asked about it.

Each measured channel is compared with what training windows had, by the same statistics: its range, the longest run of
equal samples, how many samples sit at the window's extremes, and how many are 0. What is far from all of training is a
broken sensor; what is only unlike training is left to the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import HEALTH
from aeedge.errors import InputError
from aeedge.record import Record
from aeedge.runtime.missing import missing_values

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from aeedge.bundle.manifest import InputSpec

FEW = {"longest_run": 5, "at_extreme": 8, "zeros": 8, "missing": 0}  # samples that are no fault, whatever training had
FEW_NEW_ZEROS = 3  # likewise, where training had no zeros at all
TIMES = 3.0  # as many as in any training window are no fault
MARGIN = 1.0  # of the training range, on both sides of it
LEVEL = 0.1  # of the largest magnitude: the least margin, for channels that hardly moved in training
COUNTS = HEALTH[2:]
_BLOCK_BYTES = 2**22
_LARGEST = float(np.finfo(np.float32).max)


class Fault(Record):
    """What is wrong with a window, so that a model's verdict on it means nothing.

    Attributes:
        kind: "stuck", "out of range", "saturated", "not finite" or "missing"; of streams also "gap" and "clock".
        channel: the channel's name; None where it concerns all.
        detail: what was found, and what was expected, as part of a sentence.
    """

    kind: str
    channel: str | None
    detail: str


class HealthCheck:
    """Finds broken sensors in single windows. Has no state: safe to call from many threads.

    Args:
        reference: what `reference_of` found in training windows; empty where there were none: then only NaN, infinity
            and missing values are faults.
        names: of the channels, the measured ones first. Those that `reference` does not know are not checked.
        dtype: of raw samples.
        spec: of the model's input, where missing values are to be told from broken ones.
    """

    def __init__(
        self, reference: Mapping[str, Any], names: Sequence[str], dtype: DTypeLike, spec: InputSpec | None = None
    ) -> None:
        self._names, self._dtype, self._spec = tuple(names), np.dtype(dtype), spec
        self._has_codes = spec is not None and spec.missing is not None and bool(spec.missing.codes)
        self._known = all(reference.get(key) is not None for key in HEALTH)
        self._measured = len(reference["low"]) if self._known else len(self._names)
        if not self._known:
            return
        low, high = (np.array(reference[key], np.float64) for key in ("low", "high"))
        with np.errstate(over="ignore"):
            margin = np.maximum(MARGIN * (high - low), LEVEL * np.maximum(np.abs(low), np.abs(high)))
            margin[low == high] = np.inf  # set points may be set
        self._range, (self._low, self._high) = (low, high), _limits(low - margin, high + margin, self._dtype)
        self._usual = {key: np.array(reference[key], np.float64) for key in COUNTS}
        self._most = {key: np.clip(TIMES * found, FEW[key], 2**31) for key, found in self._usual.items()}
        self._most["missing"] = self._usual["missing"]
        self._most["zeros"][self._usual["zeros"] == 0] = FEW_NEW_ZEROS
        self._crosses = (low < 0) & (high > 0) & (self._usual["zeros"] > 0)  # converters of few steps meet 0 on the way
        self._least = {key: float(found.min(initial=np.inf)) for key, found in self._most.items()}

    def check(self, window: ArrayLike) -> tuple[Fault, ...]:
        """Faults of a raw window (length, channels), in the order of the channels; none of a healthy one.

        Raises:
            InputError: the window has no numbers, or too few channels.
        """
        samples = np.asarray(window)
        if samples.ndim != 2 or samples.shape[1] < self._measured or samples.dtype.kind not in "fiub":
            raise InputError(
                f"window: expected numbers (samples, channels) of {len(self._names)} channels, "
                f"got an array {samples.shape} {samples.dtype}"
            )
        rows = np.ascontiguousarray(samples.T[: self._measured])
        missing = self._coded(samples) if self._has_codes else None
        if not rows.size or (missing is None and self._is_usual(rows)):
            return ()
        found: list[Fault] = []
        with np.errstate(all="ignore"):
            for i in range(self._measured):
                faults = self._faults_of(i, rows[i], None if missing is None else missing[i])
                found += [Fault(kind, self._names[i], detail) for kind, detail in faults]
        return tuple(found)

    def _is_usual(self, rows: NDArray[Any]) -> bool:
        """Whether (channels, samples) are surely without a fault, by one quick look at all channels."""
        if not self._known:
            return rows.dtype.kind != "f" or np.count_nonzero(np.isfinite(rows)) == rows.size
        low, high = np.minimum.reduce(rows, 1), np.maximum.reduce(rows, 1)  # NaN, where there is any
        if np.count_nonzero((low >= self._low) & (high <= self._high)) < self._measured:
            return False
        zeros = rows.size - np.count_nonzero(rows)  # of all channels, which is counted fastest
        if zeros > self._least["zeros"] and (_sums(rows == 0) > self._most["zeros"]).any():
            return False
        same = rows[:, 1:] == rows[:, :-1]
        return not np.count_nonzero(same) or self._is_as_flat(rows, low, high, same)

    def _is_as_flat(self, rows: NDArray[Any], low: NDArray[Any], high: NDArray[Any], same: NDArray[np.bool_]) -> bool:
        """Whether runs of equal samples, and samples at the extremes, are as in training."""
        extreme = _sums((rows == low[:, np.newaxis]) | (rows == high[:, np.newaxis])) - 2
        if (extreme > self._most["at_extreme"]).any():
            return False
        text, length, most = same.tobytes(), same.shape[1], self._most["longest_run"].astype(np.int64)
        if b"\1" * min(length, int(most.min())) not in text:  # a search of bytes is the fastest way
            return True
        starts = range(0, len(text), length)
        return all(
            few > length or text.find(b"\1" * few, start, start + length) < 0
            for few, start in zip(most.tolist(), starts)
        )

    def _coded(self, samples: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Mask of the codes for missing values, (channels, samples); None where there are none."""
        if self._spec is None or samples.shape != self._spec.shape:
            return None
        found = missing_values(samples[np.newaxis], self._spec)[0].T
        return found if found.any() else None

    def _faults_of(self, i: int, row: NDArray[Any], coded: NDArray[np.bool_] | None) -> list[tuple[str, str]]:
        """Kind and detail of the faults of a channel."""
        row = np.array(row, np.result_type(row, np.float32))
        if coded is not None:
            row[coded] = np.nan
        found: list[tuple[str, str]] = []
        length = len(row)
        missing, infinite = (int(np.count_nonzero(of(row))) for of in (np.isnan, np.isinf))
        usual = {key: int(of[i]) for key, of in self._usual.items()} if self._known else {"missing": 0}
        if self._spec is None or self._spec.missing is None:
            infinite += missing
        elif missing > usual["missing"]:
            found += [_said("missing", missing, length, "missing", usual["missing"])]
        if infinite:
            found += [("not finite", f"{infinite} of {length} samples are NaN or infinite")]
        if not self._known or missing == length:
            return found
        row[np.isinf(row)] = np.nan
        low, high = np.fmin.reduce(row), np.fmax.reduce(row)
        if low < self._low[i] or high > self._high[i]:
            worst = low if low < self._low[i] else high
            found += [("out of range", f"{worst:g}, in training {self._range[0][i]:g} to {self._range[1][i]:g}")]
        run, extreme, zeros = (int(of[0]) for of in counts(row[np.newaxis]))
        is_clipped = extreme > self._most["at_extreme"][i] and self._is_clipped(i, row, low, high)
        if is_clipped:
            found += [_said("saturated", extreme, length, f"at {low:g} or {high:g}", usual["at_extreme"])]
        if run > self._most["longest_run"][i] and (not is_clipped or low == high):
            found += [_said("stuck", run, length, f"{_longest(row):g} in a row", usual["longest_run"])]
        most = max(self._most["zeros"][i], length / 4 if self._crosses[i] else 0)
        if zeros > most and low < high:
            found += [_said("missing", zeros, length, "0", usual["zeros"])]
        return found

    def _is_clipped(self, i: int, row: NDArray[Any], low: Any, high: Any) -> bool:
        """Whether samples at the extremes are flat tops: at the limit of the dtype, or reached and left.

        What sits at an end of the training range, as at 0 of what is never negative, is natural.
        """
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            if high >= limits.max or low <= limits.min < 0:
                return True
        natural = [end for end, usual in ((low, self._range[0][i]), (high, self._range[1][i])) if end == usual]
        at = np.concatenate([[False], ((row == low) | (row == high)) & ~np.isin(row, natural), [False]])
        if np.count_nonzero(at) <= self._most["at_extreme"][i]:
            return False
        starts, ends = np.flatnonzero(at[1:] & ~at[:-1]), np.flatnonzero(at[:-1] & ~at[1:])
        inside = (ends - starts > 1) & (starts > 0) & (ends < len(row))
        return bool(low < high and (len(starts) > 2 or inside.any()))


def counts(rows: NDArray[Any]) -> tuple[NDArray[np.intp], ...]:
    """Of each row (n, samples): its longest run of equal samples, samples at its extremes beyond one each, zeros."""
    at = np.arange(1, rows.shape[1], dtype=np.int32)
    changed = np.where(rows[:, 1:] == rows[:, :-1], np.int32(0), at)
    np.maximum.accumulate(changed, axis=1, out=changed)
    run = (at - changed).max(axis=1, initial=0) + 1
    low, high = np.fmin.reduce(rows, 1, keepdims=True), np.fmax.reduce(rows, 1, keepdims=True)
    extreme = np.count_nonzero((rows == low) | (rows == high), axis=1)
    return run, np.maximum(extreme - 2, 0), np.count_nonzero(rows == 0, axis=1)


def reference_of(windows: ArrayLike, rows: NDArray[np.intp] | None = None) -> dict[str, list[float]]:
    """What health checks compare with, as JSON: lists with a number for each channel.

    Args:
        windows: raw training windows (n, samples, channels), of the measured channels alone.
        rows: indices of those that count; None for all.

    Returns:
        "low" and "high" ends of the range; the most in any window of "longest_run" (equal samples), "at_extreme"
        (samples at the window's extremes beyond one each), "zeros" and "missing" (NaN) samples.

    Raises:
        InputError: no windows of numbers.
    """
    given = np.asarray(windows)
    if given.ndim != 3 or given.dtype.kind not in "fiub" or not given.size:
        raise InputError(f"windows: expected numbers (n, samples, channels), got an array {given.shape} {given.dtype}")
    channels = given.shape[2]
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    most = np.zeros((len(COUNTS), channels), np.int64)
    step = max(1, _BLOCK_BYTES // (8 * given[0].size))
    for start in range(0, len(given) if rows is None else len(rows), step):
        block = given[start : start + step] if rows is None else given[rows[start : start + step]]
        lines = block.swapaxes(1, 2).reshape(-1, given.shape[1])
        lines = np.array(lines, np.result_type(lines, np.float32))
        lines[np.isinf(lines)] = np.nan
        with np.errstate(invalid="ignore"):  # of NaN alone
            found = [*counts(lines), np.count_nonzero(np.isnan(lines), axis=1)]
            low = np.fmin(low, np.fmin.reduce(np.fmin.reduce(lines, 1).reshape(-1, channels)))
            high = np.fmax(high, np.fmax.reduce(np.fmax.reduce(lines, 1).reshape(-1, channels)))
        most = np.maximum(most, [of.reshape(-1, channels).max(axis=0) for of in found])
    low[unknown := low > high] = -_LARGEST
    high[unknown] = _LARGEST
    ends = {"low": np.clip(low, -_LARGEST, _LARGEST), "high": np.clip(high, -_LARGEST, _LARGEST)}
    return {key: of.tolist() for key, of in {**ends, **dict(zip(COUNTS, most))}.items()}


def _sums(found: NDArray[np.bool_]) -> NDArray[np.int32]:
    """How many there are in each row."""
    sums: NDArray[np.int32] = np.add.reduce(found, 1, np.int32)
    return sums


def _limits(low: NDArray[np.float64], high: NDArray[np.float64], dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """Limits as finite numbers of a dtype, which are compared fastest."""
    if dtype.kind == "f":
        return tuple(np.clip(of, -_LARGEST, _LARGEST).astype(np.float32) for of in (low, high))
    if dtype.itemsize > 2:
        return low, high
    most = np.iinfo(dtype)
    return tuple(np.clip(of, most.min, most.max).astype(dtype) for of in (np.ceil(low), np.floor(high)))


def _longest(row: NDArray[Any]) -> Any:
    """The value of the longest run."""
    starts = np.append(0, np.flatnonzero(row[1:] != row[:-1]) + 1)
    return row[starts[np.diff(np.append(starts, len(row))).argmax()]]


def _said(kind: str, count: int, length: int, what: str, usual: int) -> tuple[str, str]:
    return kind, f"{count} of {length} samples are {what}, {usual} at most in training"
