"""What a stream of windows is compared with to find drift, as calibration.npz holds it for each variant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aeedge.record import Record

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from aeedge.bundle.golden import Wanted

LEVELS = tuple(i / 16 for i in range(1, 16))  # of the quantiles of scores
WAVES = 3  # components of their shares


class DriftReference(Record):
    """Latents and scores of non-overlapping windows, summed up; q ≤ 48 latents, m ≤ q components of them.

    Attributes:
        index: (q,) int64, which of the flattened latents are looked at, ascending.
        projection, offset: (m, q) and (m,), components = projection @ latents - offset, of variance 1 about 0.
        second: (m, m), the mean of the products of two components.
        mean_scale, second_scale: (m,) and (m, m), standard deviations of the moving averages while nothing changes.
        edges, shares: (15,), quantiles of scores, and the share of scores that are no higher.
        share_scale: (3,), standard deviations of the first components of the moving averages of shares.
        limits: (3,), of the statistics of mean, second moments and scores.

    All but `index` are float32. `aeedge.signals.drift` makes and uses them.
    """

    index: NDArray[np.int64]
    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    second: NDArray[np.float32]
    mean_scale: NDArray[np.float32]
    second_scale: NDArray[np.float32]
    edges: NDArray[np.float32]
    shares: NDArray[np.float32]
    share_scale: NDArray[np.float32]
    limits: NDArray[np.float32]


def wanted(latents: int, components: int) -> dict[str, Wanted]:
    """Dtype, and shape of a row, of each array."""
    rows = {"index": (), "projection": (latents,), "second": (components,), "second_scale": (components,)}
    return {name: ("int64" if name == "index" else "float32", rows.get(name, ())) for name in DriftReference._fields}


def checked(arrays: Mapping[str, NDArray[Any]], latents: int, components: int, most: int) -> DriftReference:
    """Arrays of these dtypes, with the numbers of rows and values that they must have.

    Args:
        arrays: by name.
        latents, components: q and m.
        most: the number of latents that the model has.

    Raises:
        ValueError: they have not; the message is the part of a sentence that follows the file's name.
    """
    count = {"index": latents, "edges": len(LEVELS), "shares": len(LEVELS), "share_scale": WAVES, "limits": 3}
    for name, values in arrays.items():
        rows = count.get(name, components)
        if len(values) != rows or not np.isfinite(values).all():
            raise ValueError(f"expected {rows} rows of finite numbers as 'drift.{name}'")
        if name in ("mean_scale", "second_scale", "share_scale", "limits") and not (values > 0).all():
            raise ValueError(f"expected numbers above 0 as 'drift.{name}'")
    found = DriftReference(**arrays)
    if not (found.index[0] >= 0 and found.index[-1] < most and (np.diff(found.index) > 0).all()):
        raise ValueError(f"expected numbers of latents, 0 to {most - 1}, in order as 'drift.index'")
    if not ((np.diff(found.edges) >= 0).all() and (found.shares >= 0).all() and (found.shares <= 1).all()):
        raise ValueError("expected quantiles in order as 'drift.edges', and shares of 0 to 1 as 'drift.shares'")
    return found
