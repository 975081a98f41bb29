"""Split conformal calibration: from the scores of normal samples to p-values, thresholds and false-alarm rates.

Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005); for anomaly detection Laxhammar and Falkman
(2015), and Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values" (2023). If the
calibration samples and a new one are exchangeable and the calibration samples had no say in training, an alarm at the
rate α comes for a normal sample with a probability of at most α, whatever the network and the distribution.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from aeedge.bundle.manifest import LARGEST_SCORE, MOST_SCORES
from aeedge.errors import InputError
from aeedge.record import Record

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.types import Floats

_BAND_STEP = 2**16  # numbers of alarms at a time
_MANY = 10**10  # calibration samples, from which on more make no difference, but for rounding
_ROUNDING, _RELATIVE = 1e-9, 1e-15  # 0.29 · 100 is no less than 29
# Times a calibration score, and beyond it: more than rounding makes of the same sample elsewhere.
_RAISED, _FLOOR = 1.00001, 1e-9


class ThresholdRule(Record):
    """How a threshold follows from calibration scores; at most one of the first three is given.

    Attributes:
        false_alarm_rate: the largest share of normal samples that may raise an alarm, above 0, below 1: with the
            finite-sample guarantee of split conformal prediction.
        quantile: of the calibration scores, above 0, below 1: the threshold itself is one of them, without a guarantee.
        threshold: a score; compared as float32.
        contamination: the share of the calibration samples that may be anomalous, 0 to 0.5: as many of the highest
            scores are left out first. What is promised then holds if they were anomalous indeed.
    """

    false_alarm_rate: float | None = None
    quantile: float | None = None
    threshold: float | None = None
    contamination: float = 0.0

    def checked(self) -> ThresholdRule:
        """The same with plain numbers.

        Raises:
            InputError: more than one rule, or a number out of range.
        """
        given = {name: getattr(self, name) for name in self._fields[:3] if getattr(self, name) is not None}
        if len(given) > 1:
            both = " and ".join(f"{name}={value!r:.20}" for name, value in given.items())
            raise InputError(f"expected one rule for the threshold, got {both}; leave one out")
        for name, value in given.items():
            given[name] = as_threshold(value) if name == "threshold" else as_number(name, value, 0.0, 1.0)
        limits = math.nextafter(0.0, -1.0), math.nextafter(0.5, 1.0)
        share = as_number("contamination", self.contamination, *limits, "a number from 0 to 0.5")
        if share and "threshold" in given:
            raise InputError("contamination: a threshold that is given does not depend on the scores; leave one out")
        return ThresholdRule(**given, contamination=share)

    def document(self) -> dict[str, float]:
        """What was given, as JSON."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return {name: value for name, value in given.items() if name != "contamination" or value}


@runtime_checkable
class Ranked(Protocol):
    """Order statistics of scores, `raised`, counted from the highest; `aeedge.archive.sketch.ScoreSketch` has them.

    Attributes:
        relative_error: how far `at_rank` may be above the score that has the rank.
    """

    relative_error: float

    @property
    def count(self) -> int:
        """How many scores there are."""

    def at_rank(self, rank: Any) -> Any:
        """The rank-th highest score, from 1 on, or of many ranks; never lower than it."""

    def above(self, score: float) -> int:
        """How many scores are above one; exact for what `at_rank` gives, otherwise no fewer."""


class _Sorted:
    """Order statistics of an array of scores."""

    relative_error = 0.0

    def __init__(self, scores: Floats) -> None:
        self._scores = np.sort(scores.reshape(-1))
        self.count = len(self._scores)
        bad = int((~np.isfinite(self._scores)).sum())
        if bad:
            raise InputError(
                "calibration: expected finite scores of one or more normal samples, got "
                f"{bad} of {self.count} that are not finite"
            )

    def at_rank(self, rank: Any) -> Any:
        return self._scores[self.count - rank]

    def above(self, score: float) -> int:
        return self.count - int(np.searchsorted(self._scores, np.float32(score), side="right"))


class Calibration:
    """Scores of samples that are known to be normal, and what follows from them.

    Args:
        scores: (n,), in any order, without NaN; sorted here.
        count: how many samples calibrated; None for n. Where they are more, `scores` are as many of their order
            statistics as a bundle keeps, see `calibrate`.
        known: a threshold and its rate, where all samples tell that better than `scores` do.
    """

    def __init__(
        self, scores: ArrayLike, count: int | None = None, known: tuple[float, float] = (math.inf, 1.0)
    ) -> None:
        self.scores: Floats = np.sort(np.asarray(scores, np.float32).reshape(-1))
        self._edges = np.concatenate([self.scores, np.array([np.inf, np.nan], np.float32)])  # NaN is found after all
        self._p = np.append(np.arange(self.size + 1, 0, -1) / (self.size + 1), np.nan)
        self.count, self._known = count or self.size, known

    @property
    def size(self) -> int:
        """The number of calibration scores."""
        return len(self.scores)

    @property
    def smallest_rate(self) -> float:
        """The smallest false-alarm rate that these scores support, 1 / (n + 1)."""
        return 1 / (self.size + 1)

    def p_value(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-values: (1 + the number of calibration scores at least as high) / (n + 1).

        Args:
            scores: of any shape.

        Returns:
            float64 of the same shape, 1 / (n + 1) to 1; NaN where a score is NaN.
        """
        found: NDArray[np.float64] = self._p[self._edges.searchsorted(np.asarray(scores, np.float32))]
        return found

    def threshold(self, false_alarm_rate: float) -> float:
        """The threshold above which a normal sample comes with a probability of at most this rate.

        Raises:
            InputError: a rate that is none, or too small for so few scores; the message says how many are missing.
        """
        rate = as_number("false_alarm_rate", false_alarm_rate, 0.0, 1.0)
        threshold, known = self._known
        if known <= rate < self.smallest_rate:
            return threshold
        return float(self.scores[self.size - rank_of(rate, self.size)])

    def rate(self, threshold: float) -> float:
        """The probability of an alarm for a normal sample, s > threshold: (1 + the number of scores above) / (n + 1).

        Exact for a threshold that is one of the scores, otherwise an estimate that is rather too high.
        """
        above = self.size - int(np.searchsorted(self.scores, np.float32(threshold), side="right"))
        counted, (least, rate) = (above + 1) / (self.size + 1), self._known
        return min(counted, rate) if np.float32(threshold) >= np.float32(least) else counted


def calibrate(scores: ArrayLike | Ranked, rule: ThresholdRule) -> tuple[Calibration, float]:
    """The calibration scores that are kept, and the threshold.

    Scores are taken a hundred-thousandth higher than they are. A sample may be equal to a calibration sample, as where
    a machine stands still; its score is then the same but for rounding, which differs from batch to batch and from
    device to device, and must not decide on an alarm.

    Of N samples that are known by order statistics alone m = min(N, `MOST_SCORES`) scores are kept, the j-th highest
    being that of rank r(j) = ⌊j (N + 1) / (m + 1)⌋. What a reader makes of them is then right for all N:

    - the threshold of a rate k / (m + 1), the k-th highest, is that of all N, which has rank ⌊k / (m + 1) · (N + 1)⌋;
    - the p-value of a score is that of all N, (c + 1) / (N + 1) with c of them at least as high, rounded up to the next
      multiple of 1 / (m + 1): r(j) ≤ c exactly for the j < (c + 1) (m + 1) / (N + 1), and one more than their number is
      ⌈(c + 1) (m + 1) / (N + 1)⌉.

    An order statistic that is a little too high makes both more careful, never less.

    Args:
        scores: of normal samples, (n,), not negative; or the order statistics of such scores, which are `raised`.
        rule: how the threshold follows from them.

    Raises:
        InputError: a rule that does not fit, scores that are not finite, or too few.
    """
    rule, found = rule.checked(), ranked(scores)
    if not found.count:
        raise InputError("calibration: expected finite scores of one or more normal samples, got none")
    n = kept_of(found.count, rule.contamination)
    out = found.count - n
    if rule.threshold is not None:
        threshold = rule.threshold
    elif rule.quantile is not None:
        threshold = float(found.at_rank(out + n + 1 - max(math.ceil(rule.quantile * n - _ROUNDING), 1)))
    elif rule.false_alarm_rate is not None:
        threshold = float(found.at_rank(out + rank_of(rule.false_alarm_rate, n, all_kept=isinstance(found, _Sorted))))
    else:
        raise InputError("expected a false_alarm_rate, a quantile or a threshold, got none of them")
    m = n if isinstance(found, _Sorted) else min(n, MOST_SCORES)
    kept = found.at_rank(out + np.arange(1, m + 1) * (n + 1) // (m + 1))
    above = max(found.above(threshold) - out, 0)
    return Calibration(kept, n, (threshold, (above + 1) / (n + 1))), threshold


def ranked(scores: ArrayLike | Ranked, factor: float = 1.0) -> Ranked:
    """Order statistics of scores (n,), multiplied and `raised`; those that are given as they are.

    Raises:
        InputError: scores that are not finite.
    """
    return scores if isinstance(scores, Ranked) else _Sorted(raised(np.float32(factor) * np.asarray(scores)))


def rank_of(rate: float, count: int, *, all_kept: bool = True) -> int:
    """Which of so many scores, counted from the highest, is the threshold of a rate.

    `all_kept`: whether there can be no more than a bundle keeps.

    Raises:
        InputError: the rate is too small for so few; the message says how many are missing.
    """
    exact = rate * (count + 1)
    k = min(math.floor(exact + max(_ROUNDING, _RELATIVE * exact)), count)
    if k >= 1:
        return k
    needed = math.ceil(min((1 - _ROUNDING) / rate, 1e15) - 1)
    missing, most = needed - count, ""
    if needed > MOST_SCORES and all_kept:
        most = f" (a bundle keeps {MOST_SCORES:,}, enough for {rounded_up(1 / (MOST_SCORES + 1)):g})"
    raise InputError(
        f"false_alarm_rate: {rate:g} needs {needed:,} calibration samples, there are {count:,}: "
        f"{missing:,} {'is' if missing == 1 else 'are'} missing{most}; "
        f"the smallest rate here is {rounded_up(1 / (count + 1)):g}"
    )


def raised(scores: ArrayLike) -> Floats:
    """Scores (n,) a little higher, as `calibrate` takes them."""
    with np.errstate(over="ignore"):
        return (_RAISED * np.asarray(scores, np.float64) + _FLOOR).astype(np.float32)


def kept_of(count: int, contamination: float) -> int:
    """How many of so many scores are left when the highest are left out, a share of `contamination`."""
    return count - math.floor(contamination * count + _ROUNDING)


def chosen(count: int, *, time_ordered: bool, most: int = MOST_SCORES) -> NDArray[np.intp]:
    """Which of `count` samples are kept where they are more than `most`: drawn at random, or evenly spaced in time."""
    if count <= most:
        return np.arange(count)
    if time_ordered:
        return np.linspace(0, count - 1, most).astype(np.intp)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def alarm_band(rate: float, calibrated: int, count: int, coverage: float = 0.99) -> tuple[int, int]:
    """How many alarms of `count` normal samples are within chance: the central band of this coverage, both ends in it.

    The number is beta-binomial: that many calibration samples fix the threshold, which is random too.

    Args:
        rate: that the threshold realises on average, k / (calibrated + 1) with a whole k.
        calibrated: the number of calibration scores.
        count: of samples that are exchangeable with them.
        coverage: probability of the band, above 0, below 1.
    """
    calibrated = min(calibrated, _MANY)
    k = min(max(round(rate * (calibrated + 1)), 1), calibrated)
    rest, tail = calibrated + 1 - k, (1 - coverage) / 2
    of_all = math.lgamma(calibrated + 1) - math.lgamma(calibrated + 1 + count)
    log = math.lgamma(rest + count) - math.lgamma(rest) + of_all  # of no alarm
    below, low = 0.0, None
    for start in range(0, count + 1, _BAND_STEP):
        j = np.arange(start, min(start + _BAND_STEP, count + 1), dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):  # from the last one on
            steps = np.log((count - j) * (k + j) / ((j + 1) * (rest + count - j - 1)))
        logs = log + np.concatenate([[0.0], np.cumsum(steps[:-1])])
        cdf = below + np.cumsum(np.exp(logs))
        if low is None and cdf[-1] > tail:
            low = start + int(np.searchsorted(cdf, tail, side="right"))
        if cdf[-1] >= 1 - tail:
            return low or 0, start + int(np.searchsorted(cdf, 1 - tail, side="left"))
        log, below = logs[-1] + steps[-1], cdf[-1]
    return low or 0, count


def as_threshold(value: Any) -> float:
    """A score to compare with.

    Raises:
        InputError: it is none.
    """
    return as_number("threshold", value, -LARGEST_SCORE, LARGEST_SCORE, "a finite number within float32")


def as_number(name: str, value: Any, low: float, high: float, expected: str = "") -> float:
    """A number between two limits, both excluded.

    Raises:
        InputError: it is none.
    """
    real, number = isinstance(value, Real) and not isinstance(value, bool), math.nan
    if real:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not low < number < high:
        got = repr(number) if real else " ".join(f"{value!r:.80}".split())
        raise InputError(f"{name}: expected {expected or f'a number above {low:g} and below {high:g}'}, got {got}")
    return number


def rounded_up(rate: float) -> float:
    """Three digits of a rate that are no less than it."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return math.ceil(rate / unit - _ROUNDING) * unit
