"""The handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998, UCI Machine Learning Repository)."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write(path: Path) -> str:
    """Write X, (1797, 64) float32 from 0 to 16, and y, (1797,) int64, to an .npz; a description of it."""
    from sklearn.datasets import load_digits

    found = load_digits()
    X, y = found.data.astype(np.float32), found.target
    with path.open("wb") as file:
        np.savez_compressed(file, X=X, y=y)
    return f"X {X.shape} float32, grey levels from 0 to 16; y {y.shape}, the digit"
