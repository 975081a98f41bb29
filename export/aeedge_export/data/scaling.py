"""Statistics of the training rows, and the scaler that is fitted to them and exported inside the graphs.

The encoder sees (x - mean) / scale; the decoder's output is mapped back with x * scale + mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from aeedge.errors import InputError

SCALINGS = ("auto", "standard", "robust", "minmax", "none")
_CHUNK_BYTES = 2**24  # of float64: what stays near the CPU is faster, and little memory
_BLOCKS = 32  # of chunks, shared among the processes of a group
_PICKED_ROWS, _PICKED_VALUES = 4096, 2**22
_MOSTLY_DARK, _NEARLY_DARK = 0.75, 0.97  # shares of rows, chosen on subsets of 30 to 5 000 rows of digits and MNIST
_UNLIKE = 0.05  # of the largest deviation of a channel
_PIXELS = 64  # bytes in a flat row from which on it is an image; fewer are a table


@dataclass(frozen=True)
class Statistics:
    """Statistics of each value over n rows, float64 arrays of the shape of one row."""

    rows: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Mask of the values that never change (up to float32's resolution)."""
        span = self.max - self.min
        resolution: NDArray[np.bool_] = span <= 1e-7 * np.maximum(np.abs(self.max), np.abs(self.min))
        return resolution


@dataclass(frozen=True)
class Scaler:
    """`mean` and `scale`, float32, that broadcast to one row; `kind` names the method that fitted them."""

    kind: str
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def identity(self) -> bool:
        """Whether scaling changes nothing."""
        return bool((self.mean == 0).all() and (self.scale == 1).all())

    def __call__(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Raw rows to scaled rows, float32."""
        X = np.asarray(X, np.float32)
        if self.identity:
            return X
        scaled: NDArray[np.float32] = X - self.mean
        scaled /= self.scale
        return scaled


class Group(Protocol):
    """Processes that have the same rows (`aeedge_export.training.distributed.Group`)."""

    rank: int
    size: int
    local_size: int

    def gathered(self, value: Any) -> list[Any]:
        """What each process gave, in the order of ranks, the same in all of them."""


class Look(Protocol):
    """What `scan` shows the rows to, once, a chunk at a time."""

    @property
    def state(self) -> Any:
        """What it has seen, to be sent to other processes."""

    def __call__(self, block: int, start: int, chunk: NDArray[np.float64]) -> None:
        """See the rows (m, *shape) from index `start` on, which belong to a block of chunks."""

    def merge(self, states: list[Any]) -> None:
        """Replace what this one has seen by what all have seen, in the order of ranks."""


class _Moments(NamedTuple):
    """Of some rows: their number, means, sums of squared deviations from these, minima and maxima."""

    rows: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]

    @classmethod
    def of(cls, X: NDArray[np.float64]) -> _Moments:
        """Those of rows (n, *shape)."""
        mean = X.mean(axis=0)
        return cls(len(X), mean, np.square(X - mean).sum(axis=0), X.min(axis=0), X.max(axis=0))

    def merged(self, other: _Moments) -> _Moments:
        """Those of both (Chan, Golub and LeVeque 1983)."""
        rows, step = self.rows + other.rows, other.mean - self.mean
        mean = self.mean + step * (other.rows / rows)
        squares = self.squares + other.squares + np.square(step) * (self.rows * other.rows / rows)
        return _Moments(rows, mean, squares, np.minimum(self.min, other.min), np.maximum(self.max, other.max))


class Moments:
    """Statistics of some rows.

    Those of the blocks are merged in the order of blocks, so the result is the same to the bit however many processes
    share them.

    Args:
        shape: of a row.
        rows: indices of the rows that count, each as often as it is there; None for all.
    """

    def __init__(self, shape: tuple[int, ...], rows: NDArray[np.intp] | None = None) -> None:
        self._shape, self._rows = shape, None if rows is None else in_order(rows)
        self.state: dict[int, _Moments] = {}

    def __call__(self, block: int, start: int, chunk: NDArray[np.float64]) -> None:
        """See some rows."""
        if self._rows is not None:
            chunk = chunk[among(self._rows, start, len(chunk))]
        if len(chunk):
            found, before = _Moments.of(chunk), self.state.get(block)
            self.state[block] = found if before is None else before.merged(found)

    def merge(self, states: list[dict[int, _Moments]]) -> None:
        """Take what all processes have seen."""
        self.state = {block: found for state in states for block, found in state.items()}

    @property
    def statistics(self) -> Statistics:
        """Of what was seen."""
        if not self.state:
            none = np.zeros(self._shape)
            return Statistics(0, none, none, none + np.inf, none - np.inf)
        whole = reduce(_Moments.merged, (self.state[block] for block in sorted(self.state)))
        return Statistics(whole.rows, whole.mean, np.sqrt(whole.squares / whole.rows), whole.min, whole.max)


class FiniteCheck:
    """Checks that all values are finite and fit float32.

    Args:
        X: rows (n, *shape); `X.place(row)`, if there is such a method, tells where a row is.
        features: names of the columns, None without.
    """

    state = None

    def __init__(self, X: Any, features: tuple[str, ...] | None = None) -> None:
        self._place: Callable[[int], str] = getattr(X, "place", lambda row: f"row {row}")
        self._features = features

    def __call__(self, block: int, start: int, chunk: NDArray[Any]) -> None:
        """See some rows.

        Raises:
            InputError: a value does not fit; row and column of the first are named.
        """
        fits = fit_float32(chunk)
        if fits.all():
            return
        at = tuple(int(i) for i in np.argwhere(~fits)[0])
        where = f"column {at[1]}" if len(at) == 2 else f"position {at[1:]}"
        name = f" ({self._features[at[1]]!r})" if self._features and len(at) == 2 else ""
        place = self._place(start + at[0])
        advice = "drop or fill such rows first" if np.isnan(chunk[at]) else "drop such rows first"
        raise InputError(
            f"expected finite numbers that fit float32, got {chunk[at]} in {place}, {where}{name}: "
            f"NaN and infinity are not taken; {advice}"
        )

    def merge(self, states: list[None]) -> None:
        """Nothing: what is wrong was raised."""


def fit_float32(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the values that are finite and fit float32."""
    found: NDArray[np.bool_] = np.abs(values) <= np.finfo(np.float32).max  # False for NaN as well
    return found


def scan(X: NDArray[Any], *look: Look, group: Group | None = None) -> None:
    """One pass over rows (n, *shape), in chunks; what is larger than memory is never held whole.

    The processes of a group share the blocks of chunks, and what each has seen is merged.

    Raises:
        InputError: what `look` raises of the first rows at fault, in all of the processes.
    """
    parts = list(gen_batches(len(X), max(1, _CHUNK_BYTES // (8 * row_size(X)))))
    blocks = np.array_split(np.arange(len(parts)), min(_BLOCKS, len(parts)))
    rank, size = (0, 1) if group is None else (group.rank, group.size)
    fault: tuple[int, str] | None = None  # of which block
    block = 0
    try:
        for block in range(rank, len(blocks), size):
            for part in (parts[i] for i in blocks[block]):
                chunk = np.asarray(X[part], np.float64)
                for one in look:
                    one(block, part.start, chunk)
    except InputError as error:
        if group is None:
            raise
        fault = block, str(error)
    if group is None:
        return
    faults, states = zip(*group.gathered((fault, [one.state for one in look])))
    if found := [each for each in faults if each is not None]:
        raise InputError(min(found)[1])  # of the first rows, as one process would
    for one, seen in zip(look, zip(*states)):
        one.merge(list(seen))


def fit_statistics(X: NDArray[Any], rows: NDArray[np.intp] | None = None, group: Group | None = None) -> Statistics:
    """Statistics of finite rows `X[rows]` (all by default), in one pass."""
    moments = Moments(X.shape[1:], rows)
    scan(X, moments, group=group)
    return moments.statistics


def check_finite(X: NDArray[Any], features: tuple[str, ...] | None = None) -> None:
    """Check that all values of rows (n, *shape) are finite and fit float32.

    Raises:
        InputError: some do not; row and column of the first are named.
    """
    scan(X, FiniteCheck(X, features))


def row_size(X: NDArray[Any]) -> int:
    """Number of values in a row, from 1."""
    return max(1, math.prod(X.shape[1:]))


def in_order(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices, sorted; the same array where they are."""
    return rows if bool((rows[1:] >= rows[:-1]).all()) else np.sort(rows)


def among(rows: NDArray[np.intp], start: int, count: int) -> Any:
    """Which of the `count` rows from `start` on are among sorted indices: an index into these rows."""
    low, high = np.searchsorted(
        rows, np.array((start, start + count), rows.dtype)
    )  # of another type, all are converted
    distinct = high - low == count and rows[low] == start and bool((np.diff(rows[low:high]) == 1).all())
    return slice(None) if distinct else rows[low:high] - start


def picked(X: NDArray[Any], rows: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Indices of the rows of `pick_rows`."""
    count = len(X) if rows is None else len(rows)
    most = max(2, min(_PICKED_ROWS, _PICKED_VALUES // row_size(X), count))
    chosen = np.linspace(0, count - 1, most).astype(np.intp)
    return chosen if rows is None else rows[chosen]


def pick_rows(X: NDArray[Any], rows: NDArray[np.intp] | None = None) -> NDArray[Any]:
    """At most 4 096 rows spread over `X[rows]` (all by default), fewer of long rows."""
    return np.asarray(X[picked(X, rows)])


def robust_statistics(sample: NDArray[Any]) -> Statistics:
    """Median and interquartile range / 1.349 of each value of some raw rows, in the place of mean and deviation."""
    rows = np.asarray(sample, np.float64)
    lower, middle, upper = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
    return Statistics(len(rows), middle, (upper - lower) / 1.349, rows.min(axis=0), rows.max(axis=0))


def fit_scaler(kind: str, stats: Statistics, sample: NDArray[Any], *, channels_last: bool = False) -> Scaler:
    """Fit a scaler: "standard" (mean 0, deviation 1), "robust" (median 0, interquartile range 1.349, which is deviation
    1 of normally distributed values), "minmax" (0 to 1), "none", or "auto".

    "auto" uses one common mapping to 0..1 for images, for flags of type bool or uint8, and where values share bounds
    and spread, as flattened pixels do; signals, and images whose channels have unlike units, are standardised per
    channel, the first axis of a row or with `channels_last` the last one; otherwise each value is standardised.
    Constant values get scale 1.

    Args:
        kind: the method.
        stats: of the training rows.
        sample: some of these rows, raw, as `pick_rows` returns them.
        channels_last: the layout of signals.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in SCALINGS:
        raise InputError(f"scaling: expected {', '.join(SCALINGS)}, got {kind!r}")
    if kind == "none":
        return _common(kind, 0.0, 1.0)
    if kind == "auto":
        unlike = stats.mean.ndim > 2 and sample.dtype != np.uint8 and _unlike_channels(stats, channels_last)
        if not unlike and (is_image(stats.mean.shape, sample.dtype) or share_range(sample)):
            return _common("shared", *_common_bounds(stats, sample.dtype))
        if stats.mean.ndim > 1:
            return _by_channel(stats, channels_last)
        kind = "standard"
    if kind == "robust":
        found = robust_statistics(sample)
        return _each(kind, stats, found.mean, np.where(found.std > 0, found.std, stats.std))
    if kind == "standard":
        return _each(kind, stats, stats.mean, stats.std)
    return _each(kind, stats, stats.min, stats.max - stats.min)


def _common(kind: str, low: float, high: float) -> Scaler:
    """One mapping of all values, from `low` and `high` to 0 and 1."""
    return Scaler(kind, np.array(low, np.float32), np.array(high - low, np.float32))


def _each(kind: str, stats: Statistics, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> Scaler:
    """A mapping for each value; constant values get scale 1."""
    scale = np.where(stats.constant, 1.0, scale)
    return Scaler(kind, mean.astype(np.float32), np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32))


def is_image(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Rows with three axes are images, and so are bytes, except for a table's few."""
    return len(shape) > 2 or (dtype == np.uint8 and (len(shape) == 2 or shape[0] >= _PIXELS))


def _common_bounds(stats: Statistics, dtype: np.dtype[Any]) -> tuple[float, float]:
    """The bounds of all values: of the type where they are nearly used, otherwise those of the rows."""
    low, high = float(stats.min.min()), float(stats.max.max())
    if dtype == np.uint8 and high > 63:
        return 0.0, 255.0
    if dtype in (np.uint8, np.bool_) and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1.0


def _by_channel(stats: Statistics, channels_last: bool) -> Scaler:
    """One mean and one deviation for each channel, over all samples or pixels."""
    mean, spread = _of_channels(stats, channels_last)
    spread = np.where(spread <= 1e-7 * np.abs(mean), 1.0, spread)
    return Scaler("channel", mean.astype(np.float32), spread.astype(np.float32))


def _of_channels(stats: Statistics, channels_last: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel, (channels, 1, ...) or (..., 1, channels)."""
    axes = range(stats.mean.ndim)
    rest = tuple(axes[:-1] if channels_last else axes[1:])
    mean = stats.mean.mean(axis=rest, keepdims=True)
    return mean, np.sqrt((stats.std**2 + (stats.mean - mean) ** 2).mean(axis=rest, keepdims=True))


def _unlike_channels(stats: Statistics, channels_last: bool) -> bool:
    """Whether a channel that varies would disappear beside the others under a common scale: bands of unlike units."""
    spread = _of_channels(stats, channels_last)[1]
    return bool((spread[spread > 0] < _UNLIKE * spread.max()).any())


def crowded(sample: NDArray[Any], stats: Statistics) -> float:
    """Share of values of some rows, as `pick_rows` returns them, at the minimum or maximum of all values."""
    return float(((sample <= stats.min.min()) | (sample >= stats.max.max())).mean())


def share_range(sample: NDArray[Any]) -> bool:
    """Whether the values of flat rows (m, d) share bounds and spread, as pixels do, and flags of type bool or uint8.

    Of the values that vary, 8 or more, nearly all reach the common minimum (half of integers, as counts of a
    converter), at least half nearly reach the common maximum, hardly any exceeds it, and none is narrow. A few extreme
    cells have no say.
    """
    if sample.ndim != 2:
        return False
    if sample.dtype == np.bool_ or (sample.dtype == np.uint8 and sample.max() <= 1):
        return True
    cut = min(max(1, len(sample) // 500), (len(sample) - 1) // 2)
    inner = np.sort(sample, axis=0)[cut : len(sample) - cut].astype(np.float64)
    inner = inner[:, inner[-1] > inner[0]]
    if inner.shape[1] < 8:
        return False
    low, high = inner[0], inner[-1]
    bottom, top = float(np.median(low)), float(np.quantile(high, 0.75))
    margin = 0.1 * (top - bottom)
    enough = 0.9 if sample.dtype.kind == "f" else 0.5
    share = (np.abs(low - bottom) <= 1e-6 * margin).mean() >= enough and (high >= top - margin).mean() >= 0.5
    return bool(share and (high <= top + margin).mean() >= 0.95 and not _narrow(inner, bottom, top).any())


def nearly_constant(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the values of scaled rows that vary less than 1 % as much as the median of them; of tables alone.

    Values that hardly ever leave their minimum, such as pixels at the border, are none of them.
    """
    if rows.ndim != 2:
        return np.zeros(rows.shape[1:], np.bool_)
    spread = rows.std(axis=0, dtype=np.float64)
    varying = rows.max(axis=0) > rows.min(axis=0)
    usual = float(np.median(spread[varying])) if varying.any() else 0.0
    rare = (rows == rows.min(axis=0)).mean(axis=0) >= _NEARLY_DARK
    found: NDArray[np.bool_] = varying & (spread < 0.01 * usual) & ~rare
    return found


def _narrow(inner: NDArray[np.float64], bottom: float, top: float) -> NDArray[np.bool_]:
    """Values that would disappear beside the others under a common scale: they vary, but in a small part of its range.

    A pixel that is dark in most rows may vary as little, but reaches farther in some.
    """
    spread, dark = inner.std(axis=0), (inner <= bottom).mean(axis=0)
    weak = (dark < _MOSTLY_DARK) | ((dark < _NEARLY_DARK) & (inner[-1] < bottom + 0.15 * (top - bottom)))
    seen = (inner > bottom).sum(axis=0) >= 20  # rows; fewer say little about a value
    narrow: NDArray[np.bool_] = (spread < 0.2 * np.median(spread)) & weak & seen
    return narrow
