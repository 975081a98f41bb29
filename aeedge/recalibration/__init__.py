"""Recalibrate a bundle on the device, without torch: scores and thresholds for what is normal on this machine.

Kinds of scores with fitted parameters (robust, mahalanobis, both) get new ones: a part of the normal samples fits them,
the others calibrate, for split conformal prediction needs a score that does not depend on the samples that calibrate.
The graphs stay as they are but for those numbers and the bundle's id.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aeedge.bundle.manifest import MOST_SCORES, CalibrationSpec, InputSpec, Manifest
from aeedge.bundle.reader import Bundle
from aeedge.detection.calibration import ThresholdRule, chosen, kept_of, rounded_up
from aeedge.detection.scores import Scoring
from aeedge.detection.thresholds import completed
from aeedge.errors import BundleError, InputError, VerificationError
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.recalibration.scoring import LEAST_FIT, WHAT, check_score, fit_count, fitted_score, opened, scored
from aeedge.recalibration.writing import write_calibrated
from aeedge.runtime.batch import InputBatch
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.signals.drift import MOST_WINDOWS, fit_reference

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from aeedge.bundle.drift_reference import DriftReference
    from aeedge.types import Block, Floats


class Recalibrated(NamedTuple):
    """What became of a bundle.

    Attributes:
        manifest: of the new bundle; its `calibration` has thresholds, false-alarm rate and the number of scores.
        before: the calibration of the old one; None where it had none.
        fit_rows: how many normal samples fitted the score; 0 where its parameters are those of the old bundle.
        calibration_rows: how many calibrated, before `contamination` trims them.
        notes: what was left out, and why.
    """

    manifest: Manifest
    before: CalibrationSpec | None
    fit_rows: int
    calibration_rows: int
    notes: tuple[str, ...]


def recalibrate(
    bundle_path: str | os.PathLike[str],
    normal_rows: ArrayLike,
    new_path: str | os.PathLike[str],
    *,
    false_alarm_rate: float | None = None,
    quantile: float | None = None,
    threshold: float | None = None,
    contamination: float = 0.0,
    keep_score: bool = False,
    time_ordered: bool | None = None,
    overwrite: bool = False,
    allow_ops: Collection[str] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> Recalibrated:
    """Write a bundle like another one, with scores and thresholds for what is normal on this machine.

    A quarter of the rows (up to a third where there are many latents) fits the parameters of the kinds "robust",
    "mahalanobis" and "both", the others calibrate; the kind "mse" has none to fit, and all rows calibrate. The new
    bundle has an id of its own, and the old one's as `parent`; its reference inputs, latents and reconstructions are
    the old one's. It appears when each variant that runs here has reproduced its reference outputs.

    Args:
        bundle_path: the old bundle, which is not changed.
        normal_rows: samples of normal operation (n, *input_shape) or a frame, as `Model.score` takes them. Missing
            values are filled, or samples with them left out, as the bundle says.
        new_path: the new bundle's directory.
        false_alarm_rate: at most this share of normal samples is to raise an alarm. Of this, a quantile and a threshold
            one may be given; by default the old bundle's rate or quantile, else 1 %, or the smallest rate that so few
            rows support.
        quantile: of the scores, above 0, below 1, is the threshold.
        threshold: a score of fp32 itself.
        contamination: the share of the rows, 0 to 0.5, that may be anomalous: as many of the highest scores are left
            out first.
        keep_score: keep the score's parameters, so that all rows calibrate.
        time_ordered: whether the rows are in the order of time: the first ones fit and the later ones calibrate, else
            they are drawn at random. None for what the old bundle's calibration was; windows of a signal are. Of these
            a few less fit, so that none shares a sample with those that calibrate, and they are also the new reference
            for drift; without an order the new bundle has none.
        overwrite: replace an existing bundle that holds no other files; the old bundle itself is never replaced.
        allow_ops: see `aeedge.load`.
        progress: called with what is being done.

    Raises:
        InputError: rows of another shape, with NaN or infinity, or too few for the rate (the message says how many are
            missing); a rule that is none; `new_path` exists, is the old bundle, or cannot be written.
        BundleError: the old bundle cannot be read or run, or has no score.
        VerificationError: the new one does not reproduce its reference outputs; nothing is written.
    """
    rule = ThresholdRule(false_alarm_rate, quantile, threshold, contamination).checked()
    check_folder(new_path, overwrite=overwrite, kinds=[BUNDLE], inputs=[bundle_path])
    with closing(Bundle(bundle_path, allow_ops=allow_ops)) as source:
        manifest, kind = source.manifest, source.manifest.score.kind
        fits = kind != "mse" and not keep_score
        check_score(source, fits)
        rows, notes = _normal(normal_rows, manifest.input)
        before = manifest.calibration
        signal = manifest.input.signal
        if time_ordered is None:
            time_ordered = signal is not None or bool(before and before.time_ordered)
        latents = 0 if kind == "robust" else manifest.latent
        count = fit_count(len(rows), latents) if fits else 0
        rule = inherited(rule, before, min(len(rows) - count, MOST_SCORES))
        _check_enough(len(rows), rule, (lambda n: fit_count(n, latents)) if fits else (lambda n: 0))
        order = np.arange(len(rows)) if time_ordered else np.random.default_rng(0).permutation(len(rows))
        last, windows = count, None
        if signal is not None and time_ordered:  # the last ones share samples with those that calibrate
            last = max(min(count, LEAST_FIT), count + 1 - signal.span)
            windows = rows[:: signal.span][-MOST_WINDOWS:]
        fit, rest = (part[chosen(len(part), time_ordered=time_ordered)] for part in (order[:last], order[count:]))
        scoring, scores, references = _scores(source, rows[fit] if fits else None, rows[rest], windows, notes, progress)
        spacing = (len(order) - count) / len(rest) if time_ordered else None
        progress("writing")
        made = write_calibrated(
            source,
            new_path,
            scoring,
            scores,
            rule,
            notes,
            overwrite=overwrite,
            time_ordered=time_ordered,
            spacing=spacing,
            references=references,
        )
        return Recalibrated(made, before, len(fit), len(rest), tuple(notes))


# --- the rows


def _normal(given: ArrayLike, spec: InputSpec) -> tuple[Block, list[str]]:
    """Samples as the graphs take them, missing values treated, and a note of that."""
    batch = InputBatch(given, spec.shape, np.dtype(spec.dtype), what=WHAT, columns=spec.features)
    rows, notes = batch.block(0, len(batch)), []
    kept = np.ones(len(rows), np.bool_)
    if spec.missing is not None and spec.missing.policy == "drop":
        kept = ~missing_rows(rows, spec)
        if not kept.all():
            notes.append(f"{int((~kept).sum()):,} rows with missing values were left out")
    elif spec.missing is not None:
        rows, filled = fill_missing(rows, spec)
        if filled:
            notes.append(f"{filled:,} missing values were filled with medians")
    wrong = ~np.isfinite(rows.reshape(len(rows), -1)) & kept[:, np.newaxis]
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        name = f" ({spec.features[column]!r})" if spec.features else ""
        raise InputError(
            f"{WHAT}: expected finite numbers, got {rows.reshape(len(rows), -1)[row, column]} in row {row}, column "
            f"{column}{name}; leave such rows out"
        )
    if not kept.any():
        raise InputError(f"{WHAT}: expected rows without missing values, but all {len(rows):,} have some")
    return rows if kept.all() else rows[kept], notes


def inherited(given: ThresholdRule, before: CalibrationSpec | None, count: int) -> ThresholdRule:
    """What was asked for; else as the thresholds before came about, if that was no score; else the default.

    `count`: of calibration scores.
    """
    if given._replace(contamination=0.0) != ThresholdRule():
        return given
    asked = {} if before is None else before.rule
    known = {name: asked[name] for name in ("false_alarm_rate", "quantile") if name in asked}
    return completed(ThresholdRule(**known, contamination=given.contamination), count)


def _kept(count: int, contamination: float) -> int:
    """How many of so many scores `calibrate` does not trim."""
    return kept_of(min(count, MOST_SCORES), contamination)


def _check_enough(count: int, rule: ThresholdRule, fit_count: Callable[[int], int]) -> None:
    """Refuse too few rows, before anything is computed, and say how many are missing.

    Raises:
        InputError: there are too few to fit the score, or for the false-alarm rate.
    """
    needed = 1 if rule.false_alarm_rate is None else math.ceil(1 / rule.false_alarm_rate - 1 - 1e-9)
    if needed > _kept(MOST_SCORES, rule.contamination):
        least = rounded_up(1 / (_kept(MOST_SCORES, rule.contamination) + 1))
        raise InputError(
            f"false_alarm_rate: a bundle keeps up to {MOST_SCORES:,} scores, which support rates from {least:g} on, "
            f"got {rule.false_alarm_rate:g}; ask for a larger one"
        )
    fits = fit_count(MOST_SCORES) > 0

    def enough(n: int) -> bool:
        return (fit_count(n) >= LEAST_FIT or not fits) and _kept(n - fit_count(n), rule.contamination) >= needed

    if enough(count):
        return
    total = max(count, needed)
    while not enough(total):
        total += 1
    fit, more = fit_count(count), f"{total - count:,} rows are missing; pass more"
    used = f"there are {count:,}"
    if fits:
        used = f"of {count:,} rows {fit:,} fit the score and {count - fit:,} calibrate"
        more += ", or keep_score=True, so that all calibrate"
    if (kept := _kept(count - fit, rule.contamination)) >= needed:
        raise InputError(f"{WHAT}: expected {total:,} rows or more, {used}: {more}")
    raise InputError(
        f"false_alarm_rate: {rule.false_alarm_rate:g} needs {needed:,} calibration samples, {used}: {more}; "
        f"the smallest rate here is {rounded_up(1 / (kept + 1)):g}"
    )


# --- the scores


def _scores(
    source: Bundle,
    fit: Block | None,
    rest: Block,
    windows: Block | None,
    notes: list[str],
    progress: Callable[[str], object],
) -> tuple[Scoring | None, dict[str, Floats], dict[str, DriftReference]]:
    """A score fitted to `fit`, None for the old one, the scores of `rest` and the drift references of `windows`.

    Scores and references are by variant, for those that run here.
    """
    scoring, scores, references, reasons = None, {}, {}, []
    for variant in sorted(source.manifest.variants, key=lambda name: name != "fp32"):
        model = opened(source.path, variant, source.allow_ops)
        if isinstance(model, str):
            reasons.append(model)
            notes.append(f"{variant} does not reproduce its reference outputs on this machine: it has no threshold")
            continue
        with model:
            if model.manifest.id != source.manifest.id:
                raise BundleError(f"{source.path}: was replaced while it was read; recalibrate the new one")
            if fit is not None and scoring is None:
                progress(f"{variant}: fitting the score to {len(fit):,} rows")
                scoring = fitted_score(model, fit)
            progress(f"{variant}: scoring {len(rest):,} rows")
            scores[variant] = scored(model, scoring, rest)
            if windows is not None:
                try:
                    references[variant] = fit_reference(model.encode(windows), scored(model, scoring, windows))
                except InputError as error:
                    notes.append(f"{variant}: drift will not be found: {error}")
    if not scores:
        raise VerificationError(reasons[0])
    return scoring, scores, references
