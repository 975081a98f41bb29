"""How many false alarms a day a calibration promises."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aeedge.bundle.manifest import SignalSpec
    from aeedge.model import Model
    from aeedge.signals.alarm_logic import AlarmLogic

DAY = 86_400


def alarms_per_day(model: Model, signal: SignalSpec, hop: int, threshold: float, alarms: AlarmLogic) -> float:
    """How many alarms a day a stream of normal windows should raise at most.

    Args:
        model: with a calibration.
        signal: what its windows are, with a rate.
        hop: of the stream.
        threshold: of its scores.
        alarms: when alarms begin; its state is used up. It counts calibration windows, as far apart as they are.
    """
    assert signal.rate is not None
    spec, sequence = model.manifest.calibration, model.calibration_sequence
    if spec is None or spec.spacing is None or sequence is None:
        return model.calibration.rate(threshold) * DAY * signal.rate / hop
    step = spec.spacing * signal.hop  # samples from one calibration window to the next
    scores = sequence.tolist()
    begins = [i for i, score in enumerate(scores) if alarms.update(score, threshold, i * step / signal.rate)]
    per_stretch = max(1, math.ceil(signal.window / step))
    stretches = max(1, len(scores) // per_stretch)
    with_alarm = len({i // per_stretch for i in begins})
    return min(with_alarm + 1, stretches + 1) / (stretches + 1) * DAY * signal.rate / signal.window
