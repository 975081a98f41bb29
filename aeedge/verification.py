"""Compare computed rows with recorded ones: does the model still say here what it said when it was made?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.bundle.manifest import Tolerance

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Deviation(NamedTuple):
    """The row that comes nearest to its tolerance, or exceeds it by the most.

    Attributes:
        what: "latent", "reconstruction" or "score".
        row: its index.
        error: largest absolute error within that row.
        allowed: the largest that the tolerance allows there.
    """

    what: str
    row: int
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether every row is within its tolerance."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        verdict = "within" if self.ok else "more than"
        return f"{self.what} of row {self.row} differs by {self.error:.3g}, {verdict} the allowed {self.allowed:.3g}"


def deviation(what: str, got: NDArray[Any], recorded: NDArray[Any], tolerance: Tolerance) -> Deviation:
    """Find the worst row of two arrays of shape (n, ...); a row that is not finite where the other is, is the worst."""
    got = np.asarray(got, np.float64).reshape(len(got), -1)
    recorded = np.asarray(recorded, np.float64).reshape(len(recorded), -1)
    with np.errstate(invalid="ignore"):
        same = (got == recorded) | (np.isnan(got) & np.isnan(recorded))  # also equal infinities
        error = np.where(same, 0.0, np.abs(got - recorded)).max(axis=1)
    error = np.where(np.isnan(error), np.inf, error)
    magnitude = np.abs(np.where(np.isfinite(recorded), recorded, 0.0)).max(axis=1)
    allowed = tolerance.atol + tolerance.rtol * magnitude
    row = int(np.argmax(error - allowed if np.isinf(error).any() else error / np.maximum(allowed, 1e-300)))
    return Deviation(what, row, float(error[row]), float(allowed[row]))
