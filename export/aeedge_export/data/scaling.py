"""Statistics of the training rows, and the scaler that is fitted to them and exported inside the graphs.

The encoder sees (x - mean) / scale; the decoder's output is mapped back with x * scale + mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches

from aeedge.errors import InputError

SCALINGS = ("auto", "standard", "minmax", "none")
_CHUNK_BYTES = 2**26


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
        return X if self.identity else ((X - self.mean) / self.scale).astype(np.float32)


def fit_statistics(X: NDArray[Any], rows: NDArray[np.intp] | None = None) -> Statistics:
    """One pass over finite rows `X[rows]` (all by default), in chunks: a memory-mapped array is never held whole."""
    moments = StandardScaler()  # merges float64 means and variances of chunks (Chan, Golub, LeVeque 1983)
    shape = X.shape[1:]
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for _, chunk in _chunks(X, rows):
        moments.partial_fit(chunk.reshape(len(chunk), -1))
        low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
    mean, std = moments.mean_.reshape(shape), np.sqrt(moments.var_).reshape(shape)
    return Statistics(int(moments.n_samples_seen_), mean, std, low, high)


def check_finite(X: NDArray[Any], features: tuple[str, ...] | None = None) -> None:
    """Check that all values of rows (n, *shape) are finite and fit float32.

    Raises:
        InputError: some do not; row and column of the first are named.
    """
    for start, chunk in _chunks(X):
        fits = np.abs(chunk) <= np.finfo(np.float32).max  # False for NaN as well
        if fits.all():
            continue
        at = tuple(int(i) for i in np.argwhere(~fits)[0])
        where = f"column {at[1]}" if len(at) == 2 else f"position {at[1:]}"
        name = f" ({features[at[1]]!r})" if features and len(at) == 2 else ""
        raise InputError(
            f"expected finite numbers that fit float32, got {chunk[at]} in row {start + at[0]}, {where}{name}: "
            "NaN and infinity cannot be used for training; drop or fill such rows first"
        )


def _chunks(X: NDArray[Any], rows: NDArray[np.intp] | None = None) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Float64 chunks of bounded size, each with the index of its first row."""
    step = max(1, _CHUNK_BYTES // max(1, 8 * X[0].size))
    for part in gen_batches(len(X) if rows is None else len(rows), step):
        yield part.start, np.asarray(X[part] if rows is None else X[rows[part]], np.float64)


def fit_scaler(kind: str, stats: Statistics, dtype: np.dtype[Any], *, channels_last: bool = False) -> Scaler:
    """Fit a scaler: "standard" (mean 0, deviation 1), "minmax" (0 to 1), "none", or "auto".

    "auto" uses one common mapping to 0..1 where values share their bounds, as pixels do; signals (rows of shape
    (channels, samples), or (samples, channels) with `channels_last`) are standardised per channel; otherwise each value
    is standardised. Constant values get scale 1.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in SCALINGS:
        raise InputError(f"scaling: expected {', '.join(SCALINGS)}, got {kind!r}")
    shape = stats.mean.shape
    one, zero = np.float32(1), np.float32(0)
    if kind == "none":
        return Scaler(kind, np.array(zero), np.array(one))
    if kind == "auto":
        if dtype == np.uint8:
            return Scaler("shared", np.array(zero), np.array(np.float32(255)))
        if len(shape) == 2:
            return _by_channel(stats, time_axis=0 if channels_last else 1)
        if len(shape) > 2 or _share_bounds(stats):
            low, high = float(stats.min.min()), float(stats.max.max())
            return Scaler("shared", np.array(np.float32(low)), np.array(np.float32(high - low or 1.0)))
        kind = "standard"
    mean, scale = (stats.mean, stats.std) if kind == "standard" else (stats.min, stats.max - stats.min)
    scale = np.where(stats.constant, 1.0, scale)
    return Scaler(kind, mean.astype(np.float32), np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32))


def _by_channel(stats: Statistics, time_axis: int) -> Scaler:
    """One mean and one deviation for each channel, over all samples."""
    mean = stats.mean.mean(axis=time_axis, keepdims=True)
    spread = np.sqrt((stats.std**2 + (stats.mean - mean) ** 2).mean(axis=time_axis, keepdims=True))
    spread = np.where(spread <= 1e-7 * np.abs(mean), 1.0, spread)
    return Scaler("channel", mean.astype(np.float32), spread.astype(np.float32))


def crowded(X: NDArray[Any], rows: NDArray[np.intp], stats: Statistics) -> float:
    """Share of values at the minimum or maximum of all values, from at most 4 096 rows spread over `X[rows]`."""
    some = np.asarray(X[rows[:: max(1, len(rows) // 4096)]])
    return float(((some <= stats.min.min()) | (some >= stats.max.max())).mean())


def _share_bounds(stats: Statistics) -> bool:
    """Whether at least half of the varying values reach nearly the same minimum and maximum (8 values or more)."""
    varying = ~stats.constant
    if varying.sum() < 8:
        return False
    low, high = float(stats.min.min()), float(stats.max.max())
    margin = 0.1 * (high - low)
    reach = (stats.min[varying] <= low + 1e-6 * margin) & (stats.max[varying] >= high - margin)
    return bool(reach.mean() >= 0.5)
