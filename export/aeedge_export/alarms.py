"""Normal samples that calibrate the alarms of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from aeedge.detection.calibration import ThresholdRule, chosen


@dataclass(frozen=True)
class Normal:
    """Normal samples that had no say in training, and what to do with their scores.

    Attributes:
        rows: raw samples (n, *shape).
        rule: how the threshold follows from their scores; None for a false-alarm rate of 1 %, or the smallest that so
            few samples support.
        time_ordered: whether they are a stretch of time after the training samples.
        drift: what was found in a later stretch, as JSON.
    """

    rows: NDArray[Any]
    rule: ThresholdRule | None = None
    time_ordered: bool = False
    drift: Mapping[str, Any] = field(default_factory=dict)

    def kept(self) -> NDArray[Any]:
        """The samples whose scores go into the bundle."""
        return self.rows[chosen(len(self.rows), time_ordered=self.time_ordered)]
