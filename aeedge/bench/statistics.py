"""Statistics of latencies: percentiles that a sample supports, early stopping, bootstrap intervals, slopes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

CONFIDENCE = 0.99
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_T_OVER_Z = {4: 1.79, 5: 1.57, 6: 1.44, 7: 1.36, 8: 1.30, 9: 1.26, 11: 1.21, 14: 1.16, 19: 1.11, 29: 1.07}


def allowed_above(count: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """How many of `count` latencies may lie above a bound for it to hold the percentile with this confidence; -1: none.

    The largest t with P(Binomial(count, 1 - percentile/100) <= t) <= 1 - confidence.
    """
    above = 1 - percentile / 100
    if count < 1 or count * np.log1p(-above) > np.log1p(-confidence):
        return -1
    k = np.arange(int(count * above) + 2)  # the answer lies below the mean
    ratio = np.log((count - k[:-1]) / (k[:-1] + 1)) + np.log(above / (1 - above))
    pmf = np.concatenate([[0.0], np.cumsum(ratio)]) + count * np.log1p(-above)
    return int(np.searchsorted(np.logaddexp.accumulate(pmf), np.log1p(-confidence), side="right")) - 1


def least_count(percentile: float) -> int:
    """Latencies needed for an early-stopping estimate of a percentile: 64 for p90, 662 for p99, as in MLPerf."""
    count = 2
    while allowed_above(count, percentile) < 1:
        count += 1
    return count


def early_stopping(latencies: ArrayLike, percentile: float) -> float | None:
    """MLPerf's early-stopping estimate: with 99 % confidence the percentile is not above it; None for too few.

    Source: MLPerf Inference rules, appendix on early stopping (binomial bound on the order statistics).
    """
    values = np.sort(np.asarray(latencies, np.float64))
    above = allowed_above(len(values), percentile)
    return None if above < 1 else float(values[len(values) - above])


def percentiles(latencies: ArrayLike) -> dict[str, float | None]:
    """p50, p90, p99, p99.9 by name; None where the sample is too small (see `least_count`)."""
    values = np.asarray(latencies, np.float64)
    return {
        f"p{q:g}": float(np.percentile(values, q)) if allowed_above(len(values), q) >= 1 else None for q in PERCENTILES
    }


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def median_interval(values: ArrayLike) -> Interval:
    """The median, and order statistics below and above it: 99 % confidence for each, of seven values or more.

    Of eleven values or more the interval leaves out the smallest and the largest, so that one odd value does not decide
    it; of fewer than seven it is their whole range.
    """
    found = np.sort(np.asarray(values, np.float64))
    left_out = max(0, allowed_above(len(found), 50.0))
    return Interval(float(np.median(found)), float(found[left_out]), float(found[-1 - left_out]))


def clustered_ratio(ratios: Floats, draws: int = 4000, seed: int = 0) -> Interval:
    """Typical ratio of blocks grouped by load, shape (loads, blocks), and its 99 % interval.

    Each load of a bundle has other addresses in memory and runs a little differently, so whole loads are drawn, then
    blocks within them. With few loads a percentile interval is too narrow; it is widened as Student's t requires
    (T. Hesterberg, What Teachers Should Know About the Bootstrap, 2015).
    """
    logs = np.log(ratios)
    loads, blocks = logs.shape
    random = np.random.default_rng(seed)
    rows = random.integers(loads, size=(draws, loads, 1))
    picked = logs[rows, random.integers(blocks, size=(draws, loads, blocks))]
    return _interval(float(np.median(logs, axis=1).mean()), np.median(picked, axis=2).mean(axis=1), loads)


def independent_ratio(new: Floats, old: Floats, draws: int = 4000, seed: int = 0) -> Interval:
    """Ratio of two separate runs, each with one value per load, and its 99 % interval, widened as above."""
    a, b = np.log(new), np.log(old)
    random = np.random.default_rng(seed)
    drawn = [np.mean(random.choice(values, size=(draws, len(values))), axis=1) for values in (a, b)]
    return _interval(float(a.mean() - b.mean()), drawn[0] - drawn[1], min(len(a), len(b)))


def _interval(estimate: float, drawn: Floats, groups: int) -> Interval:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail]) - estimate
    freedom = max((n for n in _T_OVER_Z if n <= groups - 1), default=4)
    widened = _T_OVER_Z[freedom] * np.sqrt(groups / max(groups - 1, 1))
    return Interval(
        *(float(np.exp(value)) for value in (estimate, estimate + widened * low, estimate + widened * high))
    )


def slope(x: ArrayLike, y: ArrayLike) -> float:
    """Theil-Sen slope: the median over all pairs of points, robust against outliers."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    i, j = np.triu_indices(len(x), 1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


def histogram(latencies: ArrayLike, bins: int = 60) -> dict[str, list[float]]:
    """Counts between logarithmic edges up to the 99.9th percentile, and in one more bin up to the largest latency.

    A single stall of a millisecond would otherwise leave all calls of some microseconds in the first bin.
    """
    values = np.maximum(np.asarray(latencies, np.float64), 1e-3)
    low, high = float(values.min()), float(np.percentile(values, 99.9, method="higher"))
    edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    edges[0] = low
    edges[-1] = np.nextafter(max(high, edges[-1]), np.inf)  # the last bin is of what is above the percentile
    edges = np.append(edges, max(float(values.max()), edges[-1]))
    counts, _ = np.histogram(values, edges)
    return {"edges": [float(f"{edge:.5g}") for edge in edges], "counts": [int(count) for count in counts]}
