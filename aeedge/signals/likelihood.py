"""How rare a window is among those that a stream had lately: for signals that do not stay as they were in training.

The idea is the anomaly likelihood of Ahmad, Lavin, Purdy and Agha, "Unsupervised real-time anomaly detection for
streaming data" (Neurocomputing 262, 2017): a score means little by itself where a signal wanders, its place in the
scores' own rolling distribution does. Here the tail is an exponential one, because roots of scores, which are about as
large as residuals, have heavier tails than a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.detection.calibration import as_number
from aeedge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEMORY = 2_000  # windows: a week of samples every 5 minutes; 1 000 to 4 000 do as well
FALSE_ALARM_RATE = 0.001
_WARM_UP = 30  # windows
_HELD = 0.25  # of the memory, in which a peak is forgotten to 1/e
_LEAST_SPREAD = 0.01  # of root scores, plus as much of their mean: signals without any noise have none


class Likelihood:
    """The likelihood that scores are higher than normal operation explains, 0 to 1, window by window.

    Of each score, mean m and standard deviation s of its root are those of about the last `memory` windows,
    exponentially weighted. A window is z = (√score - m) / s above them, by the score with the largest z, and has the
    likelihood 1 - k exp(-1 - z), at least 0, with k scores. So, while nothing changes, no more than a share p of all
    windows has a likelihood above 1 - p, if the roots have no heavier tail than an exponential distribution; those of
    normally distributed residuals have a lighter one.

    What goes on is not news: the likelihood is 0 where z is not above its largest value so far, which is forgotten to
    1/e within a quarter of the memory. The first windows have the likelihood 0.

    Args:
        scores: how many a window has, k.
        memory: windows, at least 100.
    """

    def __init__(self, scores: int = 1, memory: int = MEMORY) -> None:
        self.memory = memory
        self._forget = math.exp(-1 / (_HELD * memory))
        self._count, self._peak = 0, 0.0
        self._mean, self._variance = [0.0] * scores, [0.0] * scores

    def update(self, scores: Sequence[float]) -> float:
        """Take the scores of a window (k,), at least 0; a window with NaN or infinity is passed over: NaN."""
        if not all(0 <= score < math.inf for score in scores):
            return math.nan
        warm = self._count >= _WARM_UP
        self._count = min(self._count + 1, self.memory)
        weight, z = 1 / self._count, 0.0
        for i, score in enumerate(scores):
            mean, variance = self._mean[i], self._variance[i]
            change = math.sqrt(score) - mean
            if warm:
                z = max(z, change / (math.sqrt(variance) + _LEAST_SPREAD * (1 + mean)))
            self._mean[i] = mean + weight * change
            self._variance[i] = (1 - weight) * (variance + weight * change * change)
        self._peak *= self._forget
        if z <= self._peak:
            return 0.0
        self._peak = z
        return max(0.0, 1 - len(scores) * math.exp(-1 - z))

    def state(self) -> dict[str, NDArray[Any]]:
        """What is to be kept over a restart: an array of 2 + 2 k numbers."""
        return {"values": np.array([self._count, self._peak, *self._mean, *self._variance], np.float64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where `state` was called.

        Raises:
            InputError: this is no state, or one of another number of scores.
        """
        values, k = np.asarray(state.get("values")), len(self._mean)
        if (
            values.shape != (2 + 2 * k,)
            or values.dtype != np.float64
            or not (np.isfinite(values) & (values >= 0)).all()
        ):
            raise InputError(f"state: expected that of a likelihood, {2 + 2 * k} numbers from 0, got something else")
        count, self._peak = values[:2].tolist()
        self._count = min(int(count), self.memory)
        self._mean, self._variance = values[2 : 2 + k].tolist(), values[2 + k :].tolist()


def adapted_threshold(threshold: float | None, false_alarm_rate: float | None) -> float:
    """The likelihood above which a window is anomalous: `threshold`, or what leaves the rate, by default 0.001.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if threshold is not None:
        return as_number("threshold", threshold, 0.0, 1.0, "a likelihood between 0 and 1, for the stream adapts")
    rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
    return 1 - as_number("false_alarm_rate", rate, 0.0, 1.0, "a share between 0 and 1")
