"""Missing values in training rows: refused, left out with their rows, or filled with medians, as a device does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import InputSpec, Missing
from aeedge.errors import InputError, printable, shortened
from aeedge.runtime.missing import fill_missing
from aeedge_export.data.dataset import Dataset
from aeedge_export.data.outliers import find_outliers

POLICIES = ("refuse", "drop", "median")


def treat_missing(data: Dataset, policy: str) -> tuple[Dataset, Missing | None]:
    """Leave out or fill what is missing: NaN, and codes such as -9999 that stand for it.

    Args:
        data: rows as they were read.
        policy: "refuse" (nothing is changed), "drop" (the rows are left out) or "median" (of each value).

    Returns:
        The rows without missing values, and what a device needs to treat its rows likewise; None for "refuse".

    Raises:
        InputError: an unknown policy, or nothing is left.
    """
    if policy not in POLICIES:
        raise InputError(f"missing: expected {', '.join(POLICIES)}, got {policy!r}")
    if policy == "refuse":
        return data, None
    if data.X.dtype.kind != "f":
        raise InputError(f"missing: expected rows of floats, in which values can be missing, got {data.X.dtype}")
    X = np.array(data.X)
    codes = find_codes(X, data.features)
    flat = X.reshape(len(X), -1)
    for column, values in codes.items():
        flat[np.isin(flat[:, column], values), column] = np.nan
    gone = np.isnan(flat)
    names = data.features or [str(i) for i in range(flat.shape[1])]
    by_name = {names[column]: tuple(values) for column, values in codes.items()}
    notes = [
        f"'{printable(name)}': {shortened([f'{v:g}' for v in values])} taken for missing"
        for name, values in by_name.items()
    ]
    if policy == "drop":
        keep = ~gone.any(axis=1)
        if not keep.any():
            raise InputError(
                "missing: every row has a missing value, so none is left; use median, or leave columns out"
            )
        left_out = len(X) - int(keep.sum())
        notes.append(f"{left_out} of {len(X)} rows had missing values and were left out")
        return replace(data, X=X).taken(keep, *notes), Missing("drop", by_name)
    empty = np.flatnonzero(gone.all(axis=0))
    if len(empty):
        raise InputError(f"missing: column '{printable(names[empty[0]])}' has no value at all; leave it out")
    fill = np.nanmedian(flat, axis=0)
    np.copyto(flat, np.broadcast_to(fill, flat.shape), where=gone)
    counts = gone.sum(axis=0)
    worst = ", ".join(f"{printable(names[i])} {counts[i]}" for i in np.argsort(-counts, kind="stable")[:5] if counts[i])
    notes.append(f"{int(counts.sum())} missing values were filled with medians" + (f" ({worst})" if worst else ""))
    return replace(data, X=X, notes=(*data.notes, *notes)), Missing("median", by_name, tuple(map(float, fill)))


def treat_as_trained(data: Dataset, spec: InputSpec) -> Dataset:
    """Fill missing values of other rows as a device does, or leave such rows out.

    Raises:
        InputError: nothing is left.
    """
    if data.X.dtype.kind != "f":
        return data
    filled, count = fill_missing(data.X, spec)
    kept = np.array([not gone.any() for gone in np.isnan(filled)], np.bool_)
    if not kept.any():
        raise InputError("expected rows without missing values, but every row has one; use other rows")
    left_out = len(kept) - int(kept.sum())
    notes = [f"{left_out} of {len(kept)} rows had missing values and were left out"] if left_out else []
    if spec.missing is not None and spec.missing.fill is not None and count:
        notes.append(f"{count} missing values were filled as in training")
    return replace(data, X=filled).taken(kept, *notes)


def find_codes(X: NDArray[Any], features: tuple[str, ...] | None) -> dict[int, list[float]]:
    """Codes for missing values by column, such as -9999; found only in tables."""
    if X.ndim != 2:
        return {}
    gone = np.isnan(X)
    filled = np.where(gone, np.nanmedian(X, axis=0), X) if gone.any() else X
    found: dict[int, list[float]] = {}
    for finding in find_outliers(np.nan_to_num(filled), features).findings:
        if finding.code is not None and finding.column is not None:
            found.setdefault(finding.column, []).append(finding.code)
    return found
