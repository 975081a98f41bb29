"""Order statistics of more scores than memory holds: a histogram that parts of an archive fill and that is merged.

A log-linear histogram, as HdrHistogram and DDSketch keep (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable
quantile sketch with relative-error guarantees", PVLDB 2019), whose bins cost no logarithm: floats that are not negative
are in the order of their bits, and the upper bits of a float are its bin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from aeedge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.types import Floats

RELATIVE_ERROR = 2.0**-13  # how far the upper edge of a bin is above what lies in it, at most
_SHIFT = np.int64(
    52 - 13
)  # bits of a float64 below those that are a bin; of float32 the subnormal ones are no exception


class ScoreSketch:
    """A histogram of scores that are not negative, by which their order statistics are known to `RELATIVE_ERROR`.

    Merging loses nothing, and its order makes no difference: the sketch of all scores is that of any parts of them.
    It has 8,192 bins for a factor of two, of which only those with scores take memory, 12 bytes each.

    Args:
        scores: (n,), added at once.
    """

    relative_error = RELATIVE_ERROR

    def __init__(self, scores: ArrayLike = ()) -> None:
        self._bins: NDArray[np.int32] = np.empty(0, np.int32)  # ascending
        self._counts: NDArray[np.int64] = np.empty(0, np.int64)
        self.add(scores)

    @property
    def count(self) -> int:
        """How many scores were added."""
        return int(self._counts.sum())

    def add(self, scores: ArrayLike) -> None:
        """Count more scores.

        Args:
            scores: of any shape, float32.

        Raises:
            InputError: some are negative, NaN or infinite; none is counted.
        """
        values = np.asarray(scores, np.float32).reshape(-1)
        fits = (values >= 0) & (values < np.inf)  # False for NaN
        if not fits.all():
            wrong, bad = values[~fits][0], int((~fits).sum())
            raise InputError(
                f"calibration: expected finite scores from 0 on, got {wrong:g} ({bad:,} of {len(values):,} are not so)"
            )
        bits = np.abs(values).astype(np.float64).view(np.int64)  # abs: -0.0 is 0
        self._merge(*np.unique((bits >> _SHIFT).astype(np.int32), return_counts=True))

    def merge(self, other: ScoreSketch) -> None:
        """Count the scores of another sketch, too."""
        self._merge(other._bins, other._counts)

    def _merge(self, bins: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        self._bins, at = np.unique(np.concatenate([self._bins, bins]), return_inverse=True)
        merged = np.zeros(len(self._bins), np.int64)
        np.add.at(merged, at, np.concatenate([self._counts, counts]))
        self._counts = merged

    def __add__(self, other: ScoreSketch) -> ScoreSketch:
        total = ScoreSketch()
        total.merge(self)
        total.merge(other)
        return total

    @overload
    def at_rank(self, rank: int) -> np.float32: ...

    @overload
    def at_rank(self, rank: NDArray[np.integer]) -> Floats: ...

    def at_rank(self, rank: Any) -> Any:
        """The k-th highest score, or a little more: never below it, at most `RELATIVE_ERROR` above.

        Args:
            rank: k, from 1 to `count`; or many, of any shape.

        Returns:
            The largest float32 of the score's bin; of the shape of `rank`.
        """
        from_top = np.cumsum(self._counts[::-1])
        at = np.searchsorted(from_top, rank)
        if np.min(rank) < 1 or np.max(at) >= len(from_top):
            raise IndexError(f"rank: expected 1 to {self.count:,}, got {rank}")
        return self._edges()[::-1][at]

    def above(self, score: float) -> int:
        """How many scores are above this one: exact for what `at_rank` gives, otherwise rather too many."""
        return int(self._counts[self._edges() > np.float32(score)].sum())

    def _edges(self) -> Floats:
        """The largest float32 of each bin."""
        beyond = ((self._bins.astype(np.int64) + 1) << _SHIFT) - 1
        with np.errstate(over="ignore", under="ignore"):
            edges = beyond.view(np.float64).astype(np.float32)
            return np.where(edges > beyond.view(np.float64), np.nextafter(edges, np.float32(0)), edges)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoreSketch):
            return NotImplemented
        return np.array_equal(self._bins, other._bins) and np.array_equal(self._counts, other._counts)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"ScoreSketch of {self.count:,} scores in {len(self._bins):,} bins"

    def __getstate__(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Distances of bins and counts, in as few bytes as their largest takes: most are 1 or 2 each."""
        return _narrow(np.diff(self._bins, prepend=np.int32(0))), _narrow(self._counts)

    def __setstate__(self, state: tuple[NDArray[Any], NDArray[Any]]) -> None:
        steps, counts = state
        self._bins, self._counts = np.cumsum(steps, dtype=np.int32), counts.astype(np.int64)


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """The same whole numbers from 0 on in the narrowest dtype."""
    return values.astype(np.min_scalar_type(values.max(initial=0)))
