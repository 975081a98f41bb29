"""Rows that are windows of a recording: whether they overlap, and what their channels usually look like."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import SignalSpec
from aeedge.signals.health import reference_of

_PAIRS = 8  # of neighbours that must agree
_LEAST_SAMPLES = 8  # of a window


def windows_per_span(X: NDArray[Any]) -> int:
    """How many rows on from a row the first one is that shares no sample with it; 0 where rows do not overlap.

    Args:
        X: rows (n, samples), (n, channels, samples) or (n, samples, channels).
    """
    if len(X) < 2 * _PAIRS or X.ndim not in (2, 3):
        return 0
    first = np.linspace(0, len(X) - 2, _PAIRS).astype(int)
    for axis in range(1, X.ndim):
        pairs = [np.moveaxis(np.asarray(X[i : i + 2]), axis, 1) for i in first]
        length = int(X.shape[axis])
        for hop in range(1, length - length // 4 if length >= _LEAST_SAMPLES else 1):  # a quarter overlaps at least
            if all(map(_overlap, pairs, [hop] * _PAIRS)):
                return -(-length // hop)
    return 0


def with_reference(signal: SignalSpec, X: NDArray[Any], rows: NDArray[np.intp] | None = None) -> SignalSpec:
    """A signal that knows its windows' range, runs, …, which a device's health checks compare with.

    Args:
        signal: what a row is.
        X: raw windows (n, window, width).
        rows: indices of those that count, in order; None for all. Of windows that overlap by more than half some are
            passed over: the others have their samples.
    """
    rows = np.arange(len(X)) if rows is None else rows
    step = max(1, signal.window // (2 * signal.hop))
    measured = X[..., : len(signal.channels)]
    return signal._replace(reference=reference_of(measured, np.union1d(rows[::step], rows[-1:])))


def _overlap(pair: NDArray[Any], hop: int) -> bool:
    """Whether the second of two rows begins `hop` samples after the first, with something that varies in common."""
    common = pair[0, hop:]
    return np.array_equal(pair[1, : len(common)], common) and bool((common != common[:1]).any())
