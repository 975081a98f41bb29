"""What an int8 variant must keep of the fp32 one, measured on held-out rows without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_NEIGHBOURS, _ROWS = 10, 2000


@dataclass(frozen=True)
class Quality:
    """int8 against fp32; what needs a decoder is None without one.

    Attributes:
        error_ratio: mean squared reconstruction error in scaled units, int8 / fp32.
        cosine, cosine_p1: of a row's two latents: mean and first percentile over rows.
        neighbours: share of a row's ten nearest rows in latent space that stay among its ten nearest.
        rank: Spearman correlation of the rows' reconstruction errors, which is what an alarm depends on.
    """

    error_ratio: float | None
    cosine: float
    cosine_p1: float
    neighbours: float
    rank: float | None

    def failures(self, gates: Quality) -> list[str]:
        """What misses its gate, in words; empty if all pass."""
        result = []
        for name, value in self.numbers().items():
            limit = getattr(gates, name)
            if not (value <= limit if name == "error_ratio" else value >= limit):  # NaN passes no gate
                relation = "at most" if name == "error_ratio" else "at least"
                result.append(f"{name} is {value:.4f}, allowed is {relation} {limit:g}")
        return result

    def numbers(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


GATES = Quality(error_ratio=1.01, cosine=0.999, cosine_p1=0.995, neighbours=0.95, rank=0.98)


def compare(latents: tuple[Floats, Floats], errors: tuple[Floats, Floats] | None) -> Quality:
    """Measure the second of each pair (int8) against the first (fp32).

    Args:
        latents: (n, k) each.
        errors: (n,) each: mean squared reconstruction error of each row; None without a decoder.
    """
    exact, ours = (z[:_ROWS].astype(np.float64) for z in latents)
    cosines = _cosines(exact, ours)
    ratio = rank = None
    if errors is not None:
        ratio = float(errors[1].mean(dtype=np.float64) / max(errors[0].mean(dtype=np.float64), 1e-30))
        rank = float(np.corrcoef(_ranks(errors[0]), _ranks(errors[1]))[0, 1])
    return Quality(
        error_ratio=ratio,
        cosine=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        neighbours=_overlap(_nearest(exact), _nearest(ours)),
        rank=rank,
    )


def _cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.where(norms > 0, (a * b).sum(axis=1) / np.maximum(norms, 1e-30), (a == b).all(axis=1)))


def _nearest(z: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices (n, 10) of each row's nearest other rows."""
    squares = np.square(z).sum(axis=1)
    distances = squares[:, None] + squares - 2 * z @ z.T
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :_NEIGHBOURS]


def _overlap(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    return float(np.mean([len(np.intersect1d(x, y)) / a.shape[1] for x, y in zip(a, b)]))


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])
