"""The threshold of a run, and the normal samples that calibrate those of its bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import SignalSpec
from aeedge.detection.calibration import ThresholdRule, alarm_band, calibrate, chosen
from aeedge.detection.thresholds import completed
from aeedge.errors import InputError
from aeedge_export.run import Alarm, Run

COVERAGE = 0.99  # of the band that chance explains


@dataclass(frozen=True)
class Normal:
    """Normal samples that had no say in training, and what to do with their scores.

    Attributes:
        rows: raw samples (n, *shape).
        rule: how the threshold follows from their scores; None for a false-alarm rate of 1 %, or the smallest that so
            few samples support.
        time_ordered: whether they are a stretch of time after the training samples.
        drift: what was found in a later stretch, as JSON.
        left_out: how many more there were, with gross outliers.
        spacing: of samples in time order, hops from one to the next.
        inflation: what scores are multiplied by, because the samples had a say in training after all.
        reference: raw windows (m, *shape) that do not overlap, in time order, which drift is found by; None without.
    """

    rows: NDArray[Any]
    rule: ThresholdRule | None = None
    time_ordered: bool = False
    drift: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0
    spacing: float = 1.0
    inflation: float = 1.0
    reference: NDArray[Any] | None = None

    def kept(self) -> NDArray[Any]:
        """The samples whose scores go into the bundle."""
        return self.rows[chosen(len(self.rows), time_ordered=self.time_ordered)]


def check_rule(run: Run) -> None:
    """Whether the calibration rows of a run are enough for its rule.

    Raises:
        InputError: they are not, or there are none.
    """
    if run.rule is None:
        return
    if run.calibration is None:
        raise InputError(
            f"calibration: {' and '.join(run.rule.document())} needs held-out rows, and there are none: by default "
            f"none of fewer than 495 rows (here {run.rows}), for goal 'compress', or where gaps leave too few; ask for "
            "a share (calibration=0.2), or pass rows of normal operation"
        )
    try:
        calibrate(np.zeros(len(run.calibration)), completed(run.rule, len(run.calibration)))
    except InputError as error:
        raise InputError(
            f"{error}; hold out a larger share (calibration=0.3), or pass rows of normal operation"
        ) from None


def set_alarm(run: Run) -> None:
    """Calibrate a run with the rows that it keeps for this, and compare with later ones; it needs its scoring.

    Raises:
        InputError: the rule needs more rows.
    """
    run.alarm = None
    if run.calibration is None:
        return
    scores = run.calibration_scores(run.calibration)
    found, threshold = calibrate(scores, completed(run.rule, len(scores)))
    rate, drift = found.rate(threshold), {}
    if run.later is not None:
        alarms = int((run.scores(run.later) > threshold).sum())
        low, high = alarm_band(rate, found.size, len(run.later), COVERAGE)
        high += 0 if run.rule is None else math.ceil(run.rule.contamination * len(run.later))  # as many are expected
        drift = {"rows": len(run.later), "alarms": alarms, "low": low, "high": high}
        drift["drift"] = not low <= alarms <= high
    run.alarm = Alarm(threshold, rate, found.size, drift)


def scored_by(run: Run, kind: str) -> Run:
    """A copy of a run that scores by another kind, calibrated again.

    Raises:
        InputError: a kind whose parameters the run does not have.
    """
    other = replace(run, score_part=kind)
    _ = other.scored_as
    set_alarm(other)
    return other


def rows_word(signal: SignalSpec | None) -> str:
    """What the rows of a run are called in messages: of a recording they are windows."""
    return "rows" if signal is None else "windows"


def described_drift(drift: Mapping[str, Any], rows: str = "rows") -> str:
    """A sentence about the alarms of a later stretch of time; `rows` is what the rows are called."""
    found = f"{drift['alarms']} of {drift['rows']} {rows} after the calibration {rows} raise an alarm"
    expected = f"chance explains {drift['low']} to {drift['high']}"
    if not drift["drift"]:
        return f"no drift: {found}, {expected}"
    return (
        f"drift: {found}, {expected}: the promised false-alarm rate does not hold later; calibrate with more recent "
        f"{rows}, train with more kinds of operation, or recalibrate on the device"
    )


def normal_of(run: Run) -> Normal | None:
    """The calibration rows of a run, for its bundle."""
    if run.calibration is None or run.alarm is None:
        return None
    in_order = run.time_ordered and not run.calibration_given
    return Normal(
        run.calibration,
        run.rule,
        in_order,
        run.alarm.drift,
        run.calibration_left_out,
        run.calibration_spacing,
        run.inflation,
        run.reference,
    )
