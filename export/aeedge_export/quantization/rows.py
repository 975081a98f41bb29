"""Calibration rows: as many as it takes, of the right shape, finite, and in the range of the example."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aeedge.errors import InputError
from aeedge_export.data.rows import row_keys
from aeedge_export.quantization.choice import LEAST_ROWS

_MARGIN, _OUTSIDE = 0.25, 0.05  # ranges beyond the example's, and the share of values that may lie there


def calibration_rows(calibration: ArrayLike | None, example: NDArray[Any], least: int = LEAST_ROWS) -> NDArray[Any]:
    """Rows of the example's shape and dtype; the example itself where there are no others.

    Raises:
        InputError: too few, another shape, not numbers, NaN or infinity, or values outside the range of the example.
    """
    rows = example if calibration is None else np.asarray(calibration)
    if rows.dtype.kind not in "fiub":
        raise InputError(f"calibration: expected numbers, got dtype {rows.dtype}")
    if rows.shape[1:] != example.shape[1:]:
        raise InputError(f"calibration: expected rows of shape {example.shape[1:]}, got {rows.shape[1:]}")
    if len(rows) < least:
        raise InputError(
            f"calibration: expected {least} or more rows (a third each to calibrate, to choose, to judge), "
            f"got {len(rows)}; pass more rows, or leave out int8"
        )
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise InputError(f"calibration: expected finite numbers, got {rows[at]} in row {at[0]}, position {at[1:]}")
    _check_range(rows, example)
    if example.dtype.kind in "iu" and rows.dtype.kind == "f" and (rows != np.rint(rows)).any():
        raise InputError(f"calibration: expected {example.dtype} (raw integers, as the model takes), got {rows.dtype}")
    return np.require(rows, example.dtype, ("C", "W"))


def apart_from(rows: NDArray[Any], normal: NDArray[Any]) -> NDArray[Any]:
    """The rows that are not among those that calibrate the threshold, which must have no say in int8.

    Raises:
        InputError: too few are left.
    """
    taken = Counter(key.tobytes() for key in row_keys(normal, rows.dtype))
    kept = []
    for key in (key.tobytes() for key in row_keys(rows, rows.dtype)):
        kept.append(not taken[key])
        taken[key] -= taken[key] > 0  # of rows that repeat, as many as calibrate
    left: NDArray[Any] = rows[np.array(kept)]
    if len(left) < LEAST_ROWS:
        raise InputError(
            f"calibration: expected {LEAST_ROWS} or more rows beside those that calibrate the threshold, got "
            f"{len(left)} of {len(rows)}; pass more rows, or leave out int8"
        )
    return left


def _check_range(rows: NDArray[Any], example: NDArray[Any]) -> None:
    """Refuse rows of another sensor: steps calibrated for them would be too coarse or would clip."""
    axes = 0 if rows.ndim == 2 else tuple(range(rows.ndim))
    low, high = example.min(axis=axes).astype(np.float64), example.max(axis=axes).astype(np.float64)
    slack = _MARGIN * np.maximum(high - low, 1e-3 * np.maximum(np.abs(low), np.abs(high)))
    outside = (rows < low - slack) | (rows > high + slack)
    if outside.mean() > _OUTSIDE:
        at = tuple(int(i) for i in np.argwhere(outside)[0])
        bounds = [float(b[at[1]] if rows.ndim == 2 else b) for b in (low, high)]
        raise InputError(
            f"calibration: {outside.mean():.0%} of its values lie outside the range of the example, "
            f"for instance {rows[at]} in row {at[0]} (the example has {bounds[0]:.4g} to {bounds[1]:.4g}); "
            "is it from the same sensor, in the same units?"
        )
