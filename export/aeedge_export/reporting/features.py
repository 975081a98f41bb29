"""The reconstruction error of each column of a table, channel of a signal, or feature of a front end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge_export.reporting.pictures import image_shape
from aeedge_export.run import Run

_MOST = 30  # shown


def names(run: Run) -> list[str]:
    """What the errors are of; empty for images, and for signals of one channel."""
    shape = run.design.input_shape
    if run.front_end is not None:
        return list(run.front_end.names)
    if len(shape) == 1:
        named = list(run.features or (f"x{i}" for i in range(shape[0])))
        return [] if image_shape(shape, run.features) else named
    count = shape[-1 if run.design.channels_last else 0]
    if len(shape) != 2 or count == 1:
        return []
    return [f"channel {i}" for i in range(count)] if run.signal is None else list(run.signal.names)


def kind(run: Run) -> str:
    """What one of them is called."""
    if run.front_end is not None:
        return f"feature of {run.front_end.kind}"
    return "feature" if len(run.design.input_shape) == 1 else "channel"


def errors(run: Run, ours: NDArray[Any], pca: NDArray[Any] | None = None) -> list[dict[str, Any]]:
    """The largest mean squared errors, at most 30.

    Args:
        run: whose rows they are of.
        ours: mean squared error of each value of a row, in scaled units, flat or of the row's shape.
        pca: that of PCA likewise, where it is known.

    Returns:
        Dicts with "index" into `names`, "error" and with `pca` "pca".
    """
    count = len(names(run))
    if not count:
        return []
    means = {name: _means(run, part, count) for name, part in (("error", ours), ("pca", pca)) if part is not None}
    order = np.argsort(-means["error"], kind="stable")[:_MOST]
    return [
        {"index": int(i), **{name: float(f"{found[i]:.5g}") for name, found in means.items()}} for i in order.tolist()
    ]


def _means(run: Run, squares: NDArray[Any], count: int) -> NDArray[Any]:
    """The mean of each column or channel, (count,)."""
    last = run.design.channels_last or len(run.design.input_shape) == 1
    grouped = squares.reshape((-1, count) if last else (count, -1))
    found: NDArray[Any] = grouped.mean(axis=0 if last else 1)
    return found
