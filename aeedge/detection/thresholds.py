"""The part of a bundle that alarms need: calibration.npz, and a threshold for each variant."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import CalibrationSpec, FileEntry, sha256_hex
from aeedge.detection.calibration import Ranked, ThresholdRule, calibrate, kept_of, raised, ranked

if TYPE_CHECKING:
    from aeedge.bundle.drift_reference import DriftReference
    from aeedge.types import Floats

DEFAULT_RATE = 0.01


def completed(rule: ThresholdRule | None, count: int) -> ThresholdRule:
    """A rule, checked, with a false-alarm rate where it has nothing that a threshold follows from.

    Args:
        rule: None for the default: 1 %, or the smallest rate that the samples support.
        count: the number of calibration samples.
    """
    rule = (rule or ThresholdRule()).checked()
    if rule.document().keys() - {"contamination"}:
        return rule
    smallest = 1 / (kept_of(count, rule.contamination) + 1)
    return rule._replace(false_alarm_rate=max(DEFAULT_RATE, smallest))


def calibrated(
    scores: Mapping[str, Floats] | Mapping[str, Ranked],
    rule: ThresholdRule | None = None,
    *,
    time_ordered: bool = False,
    drift: Mapping[str, Any] = MappingProxyType({}),
    left_out: int = 0,
    spacing: float | None = None,
    inflation: float = 1.0,
    references: Mapping[str, DriftReference] = MappingProxyType({}),
) -> tuple[CalibrationSpec, bytes]:
    """The manifest's entry and calibration.npz.

    Args:
        scores: of the same normal samples by variant, (n,) each, or their order statistics; a threshold that is given
            is one of the first.
        rule: how the thresholds follow from them; None for the default of `completed`.
        time_ordered: whether the samples are a stretch of time.
        drift: what was found in a later stretch, as JSON.
        left_out: how many more samples there were, with gross outliers; recorded beside the rule.
        spacing: of samples in time order, hops from one to the next; their scores are then kept in this order too.
        inflation: what the scores are multiplied by first, because the samples had a say in training; recorded beside
            the rule.
        references: what drift is found by, of variants.

    Raises:
        InputError: the rule is none, or needs more samples.
    """
    order = {variant: ranked(values, inflation) for variant, values in scores.items()}
    first, *others = order
    rule = completed(rule, order[first].count)
    found = {variant: calibrate(order[variant], rule) for variant in order}
    kept, threshold = found[first]
    if rule.threshold is not None:  # the others alarm for as many samples
        rank = round(kept.rate(threshold) * (kept.count + 1))
        for variant in others:
            same = ThresholdRule(threshold=_at_rank(order[variant], rank))
            found[variant] = calibrate(order[variant], same)
    arrays = {f"{variant}.score": calibration.scores for variant, (calibration, _) in found.items()}
    if spacing is not None:
        arrays |= {
            f"{variant}.sequence": _in_time_order(np.float32(inflation) * np.asarray(values), kept.size)
            for variant, values in scores.items()
        }
    for variant, reference in references.items():
        arrays |= {f"{variant}.drift.{name}": values for name, values in reference._asdict().items()}
    data = archive(arrays)
    spec = CalibrationSpec(
        file=FileEntry(sha256_hex(data), len(data)),
        rows=kept.size,
        false_alarm_rate=max(calibration.rate(threshold) for calibration, threshold in found.values()),
        thresholds={variant: threshold for variant, (_, threshold) in found.items()},
        rule={**rule.document(), **_other_than({"left_out": (left_out, 0), "inflation": (inflation, 1.0)})},
        time_ordered=time_ordered,
        drift=dict(drift),
        spacing=spacing,
        drift_references={name: (len(of.index), len(of.offset)) for name, of in references.items()},
        calibrated=kept.count if order[first].relative_error else None,
        relative_error=order[first].relative_error,
    )
    return spec, data


def _other_than(values: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Numbers that are not the second ones, which go without saying."""
    return {name: value for name, (value, usual) in values.items() if value != usual}


def _in_time_order(scores: Floats, kept: int) -> Floats:
    """The lowest `kept` of some scores, raised as `calibrate` does, in their order."""
    lowest = np.sort(np.argsort(scores, kind="stable")[:kept])
    return raised(scores)[lowest]


def archive(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name as the bytes of an .npz; the same arrays give the same bytes."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _at_rank(order: Ranked, rank: int) -> float:
    """A threshold below the rank - 1 highest scores alone."""
    if rank > order.count:
        return float(np.nextafter(order.at_rank(order.count), np.float32(-np.inf)))
    return float(order.at_rank(rank))
