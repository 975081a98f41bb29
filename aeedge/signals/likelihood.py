"""How rare a score is among those that a stream had lately: for signals that do not stay as they were in training.

The idea is the anomaly likelihood of Ahmad, Lavin, Purdy and Agha, "Unsupervised real-time anomaly detection for
streaming data" (Neurocomputing 262, 2017): a score means little by itself where a signal wanders, its place in the
scores' own rolling distribution does. Here the tail is an exponential one, because roots of scores, which are about as
large as residuals, have heavier tails than a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    """The likelihood that a score is higher than normal operation explains, 0 to 1, window by window.

    Mean m and standard deviation s of the root of the scores are those of about the last `memory` windows,
    exponentially weighted. A score whose root is z = (√score - m) / s above them has the likelihood 1 - exp(-1 - z).
    So, while nothing changes, no more than a share p of all windows has a likelihood above 1 - p, if the roots have no
    heavier tail than an exponential distribution; those of normally distributed residuals have a lighter one.

    What goes on is not news: the likelihood is 0 where z is not above its largest value so far, which is forgotten to
    1/e within a quarter of the memory. The first windows have the likelihood 0.

    Args:
        memory: windows, at least 100.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.memory = memory
        self._forget = math.exp(-1 / (_HELD * memory))
        self._count, self._mean, self._variance, self._peak = 0, 0.0, 0.0, 0.0

    def update(self, score: float) -> float:
        """Take the score of a window, at least 0; one that is not finite is passed over, and has the likelihood NaN."""
        if not 0 <= score < math.inf:
            return math.nan
        root = math.sqrt(score)
        change = root - self._mean
        z = 0.0
        if self._count >= _WARM_UP:
            z = change / (math.sqrt(self._variance) + _LEAST_SPREAD * (1 + self._mean))
        self._count = min(self._count + 1, self.memory)
        weight = 1 / self._count
        self._mean += weight * change
        self._variance = (1 - weight) * (self._variance + weight * change * change)
        self._peak *= self._forget
        if z <= self._peak:
            return 0.0
        self._peak = z
        return -math.expm1(-1 - z)

    def state(self) -> dict[str, NDArray[Any]]:
        """What is to be kept over a restart: an array of four numbers."""
        return {"values": np.array([self._count, self._mean, self._variance, self._peak])}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where `state` was called.

        Raises:
            InputError: this is no state, or one of another memory.
        """
        values = np.asarray(state.get("values"))
        if values.shape != (4,) or values.dtype != np.float64 or not (np.isfinite(values) & (values >= 0)).all():
            raise InputError("state: expected that of a likelihood, four numbers from 0, got something else")
        count, self._mean, self._variance, self._peak = values.tolist()
        self._count = min(int(count), self.memory)


def adapted_threshold(threshold: float | None, false_alarm_rate: float | None) -> float:
    """The likelihood above which a window is anomalous: `threshold`, or what leaves the rate, by default 0.001.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if threshold is not None:
        return as_number("threshold", threshold, 0.0, 1.0, "a likelihood between 0 and 1, for the stream adapts")
    rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
    return 1 - as_number("false_alarm_rate", rate, 0.0, 1.0, "a share between 0 and 1")
