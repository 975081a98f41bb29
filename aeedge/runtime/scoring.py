"""How strange a row is: how badly the model reconstructs it, in the units that the model was trained in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeedge.bundle.manifest import ScoreSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.runtime.batch import Block


def residual(x: Block, reconstruction: NDArray[np.float32], spec: ScoreSpec) -> NDArray[np.float32]:
    """(x - reconstruction) / scale: raw rows (n, *shape) to a float32 array of the same shape."""
    with np.errstate(all="ignore"):
        difference = np.subtract(x, reconstruction, dtype=np.float32)
        difference /= spec.scale
    return difference


def score(x: Block, reconstruction: NDArray[np.float32], spec: ScoreSpec) -> NDArray[np.float32]:
    """Mean squared residual of each row: raw rows (n, *shape) to (n,) float32. Infinity beyond float32."""
    flat = residual(x, reconstruction, spec).reshape(len(x), -1)
    with np.errstate(all="ignore"):
        total: NDArray[np.float32] = np.einsum("ij,ij->i", flat, flat)
    total /= np.float32(flat.shape[1])
    return total
