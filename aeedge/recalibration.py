"""Recalibrate a bundle on the device, without torch: scores and thresholds for what is normal on this machine.

Kinds of scores with fitted parameters (robust, mahalanobis, both) get new ones: a part of the normal samples fits them,
the others calibrate, for split conformal prediction needs a score that does not depend on the samples that calibrate.
The graphs stay as they are but for those numbers and the bundle's id.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.bundle.manifest import (
    MOST_SCORES,
    CalibrationSpec,
    FileEntry,
    InputSpec,
    Manifest,
    Tolerance,
    Variant,
    sha256_hex,
)
from aeedge.bundle.onnx_editing import edited, initializers
from aeedge.bundle.reader import CALIBRATION, FEATURES, GOLDEN, MANIFEST, ROLES, Bundle, file_name
from aeedge.detection.calibration import ThresholdRule, chosen, kept_of, rounded_up
from aeedge.detection.scores import Scoring, fitted
from aeedge.detection.thresholds import archive, calibrated, completed
from aeedge.errors import BundleError, CorruptBundleError, IncompatibleBundleError, InputError, VerificationError
from aeedge.files.atomic import atomic_directory
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.loading import load
from aeedge.runtime.batch import InputBatch
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.signals.drift import MOST_WINDOWS, fit_reference

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.bundle.drift_reference import DriftReference
    from aeedge.model import Model
    from aeedge.types import Block, Floats

    Names = Collection[str]

_LEAST_FIT = 20  # samples that fit a score
_FIT_PER_LATENT = 10
_BLOCK = 256  # samples at a time
_LARGEST_RTOL = 0.05
_MOST_GROWN = 1e3  # of the tolerance of scores
_WHAT = "normal_rows"


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
        false_alarm_rate, quantile, threshold, contamination: how thresholds follow from the scores, see
            `aeedge.detection.calibration.ThresholdRule`. By default the old bundle's rate or quantile; else 1 %, or the
            smallest rate that so few rows support. A threshold is one of fp32 scores.
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
        _check_score(source, fits)
        rows, notes = _normal(normal_rows, manifest.input)
        before = manifest.calibration
        signal = manifest.input.signal
        if time_ordered is None:
            time_ordered = signal is not None or bool(before and before.time_ordered)
        latents = 0 if kind == "robust" else manifest.latent
        count = _fit_count(len(rows), latents) if fits else 0
        rule = _rule(rule, before, len(rows) - count)
        _check_enough(len(rows), rule, (lambda n: _fit_count(n, latents)) if fits else (lambda n: 0))
        order = np.arange(len(rows)) if time_ordered else np.random.default_rng(0).permutation(len(rows))
        last, windows = count, None
        if signal is not None and time_ordered:  # the last ones share samples with those that calibrate
            last = max(min(count, _LEAST_FIT), count + 1 - signal.span)
            windows = rows[:: signal.span][-MOST_WINDOWS:]
        fit, rest = (part[chosen(len(part), time_ordered=time_ordered)] for part in (order[:last], order[count:]))
        scoring, scores, references = _scores(source, rows[fit] if fits else None, rows[rest], windows, notes, progress)
        spacing = (len(order) - count) / len(rest) if time_ordered else None
        calibration, data = calibrated(scores, rule, time_ordered=time_ordered, spacing=spacing, references=references)
        made, files = _bundle(source, scoring, calibration, notes)
        files[CALIBRATION] = data
        for variant, values in scores.items():
            _check_rounding(manifest.variants[variant], made.variants[variant], float(np.median(values)))
        progress("writing")
        _write(new_path, files, list(scores), overwrite, allow_ops)
        return Recalibrated(made, before, len(fit), len(rest), tuple(notes))


# --- the rows


def _normal(given: ArrayLike, spec: InputSpec) -> tuple[Block, list[str]]:
    """Samples as the graphs take them, missing values treated, and a note of that."""
    batch = InputBatch(given, spec.shape, np.dtype(spec.dtype), what=_WHAT, columns=spec.features)
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
            f"{_WHAT}: expected finite numbers, got {rows.reshape(len(rows), -1)[row, column]} in row {row}, column "
            f"{column}{name}; leave such rows out"
        )
    if not kept.any():
        raise InputError(f"{_WHAT}: expected rows without missing values, but all {len(rows):,} have some")
    return rows if kept.all() else rows[kept], notes


def _fit_count(count: int, latents: int) -> int:
    """How many of so many samples fit a score: a quarter, up to a third where there are many latents."""
    return min(max(count // 4, _FIT_PER_LATENT * latents), count // 3)


def _rule(given: ThresholdRule, before: CalibrationSpec | None, count: int) -> ThresholdRule:
    """What was asked for; else as the thresholds before came about, if that was no score; else the default."""
    if given._replace(contamination=0.0) != ThresholdRule():
        return given
    asked = {} if before is None else before.rule
    inherited = {name: asked[name] for name in ("false_alarm_rate", "quantile") if name in asked}
    return completed(ThresholdRule(**inherited, contamination=given.contamination), min(count, MOST_SCORES))


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
        return (fit_count(n) >= _LEAST_FIT or not fits) and _kept(n - fit_count(n), rule.contamination) >= needed

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
        raise InputError(f"{_WHAT}: expected {total:,} rows or more, {used}: {more}")
    raise InputError(
        f"false_alarm_rate: {rule.false_alarm_rate:g} needs {needed:,} calibration samples, {used}: {more}; "
        f"the smallest rate here is {rounded_up(1 / (kept + 1)):g}"
    )


# --- the scores


def _check_score(source: Bundle, fits: bool) -> None:
    """Refuse a bundle that has no score, or none that can be fitted.

    Raises:
        IncompatibleBundleError: it is such a bundle.
    """
    kind, variants = source.manifest.score.kind, source.manifest.variants.values()
    if any(variant.decoder is None for variant in variants) and kind != "mahalanobis" and (fits or kind != "both"):
        what = f"the score {kind!r} needs a decoder" + (" to be fitted" if kind == "both" else "")
        raise IncompatibleBundleError(
            f"{source.path}: {what}, but the bundle has only an encoder; "
            + ("pass keep_score=True" if kind == "both" else "export it with its decoder, or another score")
        )


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
        model = _opened(source.path, variant, source.allow_ops)
        if isinstance(model, str):
            reasons.append(model)
            notes.append(f"{variant} does not reproduce its reference outputs on this machine: it has no threshold")
            continue
        with model:
            if model.manifest.id != source.manifest.id:
                raise BundleError(f"{source.path}: was replaced while it was read; recalibrate the new one")
            if fit is not None and scoring is None:
                progress(f"{variant}: fitting the score to {len(fit):,} rows")
                scoring = _fitted(model, fit)
            progress(f"{variant}: scoring {len(rest):,} rows")
            scores[variant] = _scored(model, scoring, rest)
            if windows is not None:
                try:
                    references[variant] = fit_reference(model.encode(windows), _scored(model, scoring, windows))
                except InputError as error:
                    notes.append(f"{variant}: drift will not be found: {error}")
    if not scores:
        raise VerificationError(reasons[0])
    return scoring, scores, references


def _opened(path: str, variant: str, allow_ops: Names) -> Model | str:
    """A variant; a message where it is not right on this machine."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = load(path, variant=variant, allow_ops=allow_ops)
        except VerificationError as error:
            return str(error)
    if model.variant == variant:
        return model
    model.close()
    return str(caught[-1].message)


def _fitted(model: Model, rows: Block) -> Scoring:
    """The bundle's score with the parameters that it has on these rows."""
    spec = model.manifest.score
    back = model.reconstruct(rows) if spec.kind != "mahalanobis" else None
    latent, rows = model.encode(rows), _seen(model, rows)
    found = None
    if np.isfinite(latent).all() and (back is None or np.isfinite(back).all()):
        found = fitted(spec.kind, spec.scale, rows, latent, back)
    if found is None or not all(np.isfinite(values).all() for values in (found.scale, *found.weights().values())):
        raise InputError(f"{_WHAT}: the network gives numbers beyond float32 for some rows; are they in raw units?")
    return found


def _scored(model: Model, scoring: Scoring | None, rows: Block) -> Floats:
    if scoring is None:
        return model.score(rows)
    found = []
    for block in (rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)):
        back = model.reconstruct(block) if scoring.uses_residuals else None
        found.append(scoring.scores(_seen(model, block), model.encode(block), back))
    return np.concatenate(found)


def _seen(model: Model, rows: Block) -> Block:
    """What reconstructions are compared with: the samples, or the features that a front end makes of them."""
    return rows if model.manifest.front_end is None else model.features(rows)


# --- the bundle


def _bundle(
    source: Bundle, scoring: Scoring | None, calibration: CalibrationSpec, notes: list[str]
) -> tuple[Manifest, dict[str, bytes]]:
    """The new manifest, and all files but calibration.npz."""
    old, weights = source.manifest, {} if scoring is None else scoring.weights()
    identity = _identity(old.id, weights, calibration)
    files: dict[str, bytes] = {}
    arrays: dict[str, NDArray[Any]] = {}
    variants = {}
    for name, variant in old.variants.items():
        entries: dict[str, FileEntry | None] = {}
        recorded = source.golden(name)
        for role in ROLES:
            entries[role] = None
            if getattr(variant, role) is not None:
                data = _graph(source, role, name, identity, weights if role == "scorer" else {})
                if data is None:
                    notes.append(f"{file_name(role, name)} was left out, for its scale cannot be replaced")
                else:
                    files[file_name(role, name)] = data
                    entries[role] = FileEntry(sha256_hex(data), len(data))
        made = variant._replace(**entries)
        if scoring is not None:
            rows, latent, back = (recorded.get(key) for key in ("input", f"{name}.latent", f"{name}.reconstruction"))
            assert rows is not None
            assert latent is not None
            recorded[f"{name}.score"] = scoring.scores(recorded.get(f"{name}.features", rows), latent, back)
            made = made._replace(tolerance=_tolerances(variant.tolerance, _old_scoring(source, name, scoring), scoring))
        arrays |= recorded
        variants[name] = made
    front_end = old.front_end
    if front_end is not None:
        data = _graph(source, FEATURES, old.default_variant, identity, {})
        assert data is not None
        files[file_name(FEATURES, old.default_variant)] = data
        front_end = front_end._replace(file=FileEntry(sha256_hex(data), len(data)))
    files[GOLDEN] = archive(arrays)
    manifest = old._replace(
        id=identity,
        parent=old.id,
        variants=variants,
        golden=FileEntry(sha256_hex(files[GOLDEN]), len(files[GOLDEN])),
        score=old.score if scoring is None else scoring.spec,
        calibration=calibration,
        front_end=front_end,
    )
    files[MANIFEST] = manifest.dumps().encode()
    return manifest, files


def _identity(parent: str, weights: Mapping[str, Floats], calibration: CalibrationSpec) -> str:
    """The id of a recalibrated bundle: a hash of its parent's, and of all that differs in what it computes."""
    lines = ["aeedge recalibration 1", parent]
    lines += [f"{name} {list(w.shape)} {sha256_hex(w.astype('<f4').tobytes())}" for name, w in sorted(weights.items())]
    alarms = {"sha256": calibration.file.sha256, "thresholds": dict(calibration.thresholds)}
    return sha256_hex("\n".join([*lines, json.dumps(alarms, sort_keys=True)]).encode())


def _graph(source: Bundle, role: str, variant: str, identity: str, weights: Mapping[str, Floats]) -> bytes | None:
    """A graph with the new id and weights; None for a scorer that the bundle can do without, and that lacks these."""
    data = source.graph(role, variant)
    try:
        return edited(data, {"aeedge.id": identity}, weights)
    except ValueError as error:
        if not weights:
            raise CorruptBundleError(f"{source.path}: {file_name(role, variant)}: {error}") from None
        if source.manifest.score.needs_scorer:
            raise IncompatibleBundleError(
                f"{source.path}: the score of {file_name(role, variant)} cannot be fitted again: {error}; pass "
                "keep_score=True, or export the bundle with a newer aeedge"
            ) from None
        return None


def _old_scoring(source: Bundle, variant: str, new: Scoring) -> Scoring:
    """The score before, with the parameters that `new` has."""
    if new.whitening is None:
        return Scoring(new.kind, source.manifest.score.scale)
    found = initializers(source.graph("scorer", variant))
    return Scoring(new.kind, source.manifest.score.scale, found["score/mean"], found["score/whitening"].T)


def _tolerances(allowed: Mapping[str, Tolerance], old: Scoring, new: Scoring) -> dict[str, Tolerance]:
    """Tolerances in units of the new score: as errors grow at most, where residuals and latents are scaled otherwise.

    A score is a square: its absolute error grows with the square of that, its relative one by what one row's values may
    grow against another's.
    """
    changes = []
    result = dict(allowed)
    if new.uses_residuals:
        changes.append((float((old.scale / new.scale).max()), float((new.scale / old.scale).max())))
        for what in {"reconstruction", "features"} & allowed.keys():
            result[what] = _grown(allowed[what], changes[0][0], math.prod(changes[0]))
    if old.whitening is not None and new.whitening is not None:
        try:
            change = new.whitening.astype(np.float64) @ np.linalg.inv(old.whitening.astype(np.float64))
            singular = np.linalg.svd(change, compute_uv=False)
        except np.linalg.LinAlgError:
            singular = np.zeros(1)
        if not (np.isfinite(singular).all() and singular.min() > 0):
            raise CorruptBundleError("its 'score/whitening' has no inverse; export the bundle again")
        changes.append((float(singular.max()), float(1 / singular.min())))
    most = max(grown for grown, _ in changes)
    result["score"] = _grown(allowed["score"], most**2, max(math.prod(change) for change in changes))
    return result


def _check_rounding(old: Variant, new: Variant, typical: float) -> None:
    """Refuse a score that is mostly rounding, as where the latents of all rows are nearly the same.

    Raises:
        InputError: it is such a score.
    """
    before, after = old.tolerance["score"].atol, new.tolerance["score"].atol
    if after > 0.5 * typical and after > _MOST_GROWN * before:
        raise InputError(
            f"{_WHAT}: they vary too little to fit the score to them, rounding alone may change it by {after:.2g} "
            f"where {typical:.2g} is typical; pass rows of all normal operation, or keep_score=True"
        )


def _grown(tolerance: Tolerance, absolute: float, relative: float) -> Tolerance:
    rtol = max(tolerance.rtol, min(tolerance.rtol * relative, _LARGEST_RTOL))
    return Tolerance(rtol=_round(rtol), atol=_round(tolerance.atol * absolute))


def _round(value: float) -> float:
    """Three digits, rounded up."""
    return float(f"{value * 1.005:.2e}")


def _write(
    new_path: str | os.PathLike[str], files: Mapping[str, bytes], variants: Names, overwrite: bool, allow_ops: Names
) -> None:
    """Write all files; the bundle appears when each of these variants has reproduced its reference outputs."""
    with atomic_directory(new_path, overwrite=overwrite, kinds=[BUNDLE]) as part:
        for name, data in files.items():
            (part / name).write_bytes(data)
        for variant in variants:
            _accept(part, variant, os.fspath(new_path), allow_ops)


def _accept(part: Path, variant: str, name: str, allow_ops: Names) -> None:
    """Load a variant of the new bundle, and compare it with what is recorded."""
    reason = ""
    try:
        model = _opened(str(part), variant, allow_ops)
        if isinstance(model, str):
            reason = model
        else:
            with model:
                model.self_check()
    except (BundleError, VerificationError) as error:
        reason = str(error)
    if reason:
        text = reason.replace(str(part), name).removeprefix(f"{name} ({variant}): ").partition(";")[0]
        raise VerificationError(
            f"{name}: not written, {text}; the rows are too unlike those that the bundle was made for, or not in raw "
            "units: train a network with them, or pass keep_score=True"
        )
