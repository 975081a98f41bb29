"""How closely an int8 variant must follow fp32, measured on held-out rows without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from aeedge.detection.calibration import Calibration

Floats = NDArray[np.float32]

_NEIGHBOURS, _ROWS = 10, 2000
_ALARM_ROWS = 400


@dataclass(frozen=True)
class Quality:
    """int8 against fp32; what needs a decoder is None without one.

    Attributes:
        error_ratio: mean squared reconstruction error in scaled units, int8 / fp32.
        cosine, cosine_p1: similarity of a row's two latents: mean and first percentile over rows.
        neighbours: share of a row's ten nearest rows in latent space that stay among its ten nearest.
        rank: Spearman correlation of the rows' reconstruction errors, on which the order of alarms depends.
        alarms: share of the rows that both judge alike, each by its own threshold at a false-alarm rate of 1 %; None
            for fewer than 400 rows, where a single row would decide.
    """

    error_ratio: float | None
    cosine: float
    cosine_p1: float
    neighbours: float
    rank: float | None
    alarms: float | None = None

    def failures(self, limits: Quality) -> list[str]:
        """One message for each number outside its limit; empty if all are within the limits."""
        result = []
        for name, value in self.numbers().items():
            limit = getattr(limits, name)
            if not (value <= limit if name == "error_ratio" else value >= limit):  # NaN is within no limit
                relation = "at most" if name == "error_ratio" else "at least"
                result.append(f"{name} is {value:.4f}, allowed is {relation} {limit:g}")
        return result

    def numbers(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


LIMITS = Quality(error_ratio=1.01, cosine=0.999, cosine_p1=0.995, neighbours=0.95, rank=0.98, alarms=0.995)


def compare(
    latents: tuple[Floats, Floats], errors: tuple[Floats, Floats] | None, scores: tuple[Floats, Floats] | None = None
) -> Quality:
    """Measure the second of each pair (int8) against the first (fp32).

    Args:
        latents: (n, *latent_shape) each.
        errors: (n,) each: mean squared reconstruction error of each row; None without a decoder.
        scores: (n,) each: the rows' anomaly scores; None for the errors.
    """
    scores = scores or errors
    exact, quantized = (z[:_ROWS].reshape(len(z[:_ROWS]), -1).astype(np.float64) for z in latents)
    cosines = (normalize(exact) * normalize(quantized)).sum(axis=1)
    cosines[(exact == quantized).all(axis=1)] = 1.0  # also where both are zero, which have no direction
    ratio = rank = None
    if errors is not None:
        ratio = float(errors[1].mean(dtype=np.float64) / max(errors[0].mean(dtype=np.float64), 1e-30))
        alike = bool((errors[0] == errors[0][0]).all())  # no order that could be lost
        rank = 1.0 if alike else rank_correlation(*errors)
    return Quality(
        error_ratio=ratio,
        cosine=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        neighbours=float(_nearest(exact).multiply(_nearest(quantized)).sum() / (len(exact) * _NEIGHBOURS)),
        rank=rank,
        alarms=alarm_agreement(*scores) if scores is not None and len(exact) >= _ALARM_ROWS else None,
    )


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's correlation of two sequences of numbers (n,)."""
    return float(spearmanr(one, other).statistic)


def alarm_agreement(fp32: Floats, int8: Floats, rate: float = 0.01) -> float:
    """The share of rows that raise an alarm in both variants or in none, each by its own threshold at this rate."""
    alarms = [scores > Calibration(scores).threshold(rate) for scores in (fp32, int8)]
    return float((alarms[0] == alarms[1]).mean())


def _nearest(z: NDArray[np.float64]) -> Any:
    """Sparse (n, n): 1 where a column's row is among the ten nearest other rows of a row."""
    return NearestNeighbors(n_neighbors=_NEIGHBOURS, algorithm="brute").fit(z).kneighbors_graph()


def disagreement(fp32: Floats, int8: Floats) -> str:
    """Why int8 does not raise the alarms of fp32 on held-out rows; empty where it does, or there are too few rows."""
    agreement = alarm_agreement(fp32, int8) if len(fp32) >= _ALARM_ROWS else 1.0
    assert LIMITS.alarms is not None
    if agreement >= LIMITS.alarms:
        return ""
    return f"alarms agree on {agreement:.2%} of {len(fp32)} held-out rows, allowed is at least {LIMITS.alarms:.1%}"
