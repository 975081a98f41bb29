"""A bundle like another one, but for its score's parameters and its calibration: made, written and verified."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import CalibrationSpec, FileEntry, Manifest, Tolerance, Variant, sha256_hex
from aeedge.bundle.onnx_editing import edited, initializers
from aeedge.bundle.reader import CALIBRATION, FEATURES, GOLDEN, MANIFEST, ROLES, Bundle, file_name
from aeedge.detection.calibration import Ranked, ThresholdRule, ranked
from aeedge.detection.scores import Scoring
from aeedge.detection.thresholds import archive, calibrated
from aeedge.errors import BundleError, CorruptBundleError, IncompatibleBundleError, InputError, VerificationError
from aeedge.files.atomic import atomic_directory
from aeedge.files.replacing import BUNDLE
from aeedge.recalibration.scoring import WHAT, opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.types import Floats

_LARGEST_RTOL = 0.05
_MOST_GROWN = 1e3  # of the tolerance of scores


def write_calibrated(
    source: Bundle,
    new_path: str | os.PathLike[str],
    scoring: Scoring | None,
    scores: Mapping[str, Floats] | Mapping[str, Ranked],
    rule: ThresholdRule,
    notes: list[str],
    *,
    overwrite: bool,
    **options: Any,
) -> Manifest:
    """Write the bundle that `source` becomes with these scores of normal samples; it appears when it is verified.

    Args:
        source: the old bundle.
        new_path: of the new one.
        scoring: the new parameters of its score; None for those of the old one.
        scores: as `aeedge.detection.thresholds.calibrated` takes them.
        rule: how thresholds follow from them.
        notes: what is left out is appended.
        overwrite: as in `atomic_directory`.
        options: of `calibrated`.

    Raises:
        InputError: too few scores for the rule, or scores that are mostly rounding.
        VerificationError: a variant does not reproduce its reference outputs; nothing is written.
    """
    calibration, data = calibrated(scores, rule, **options)
    manifest, files = remade(source, scoring, calibration, notes)
    for variant, values in scores.items():
        order = ranked(values)
        typical = float(order.at_rank((order.count + 1) // 2))
        _check_rounding(source.manifest.variants[variant], manifest.variants[variant], typical)
    write_bundle(new_path, files | {CALIBRATION: data}, list(scores), overwrite=overwrite, allow_ops=source.allow_ops)
    return manifest


def remade(
    source: Bundle, scoring: Scoring | None, calibration: CalibrationSpec | None, notes: list[str]
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


def _identity(parent: str, weights: Mapping[str, Floats], calibration: CalibrationSpec | None) -> str:
    """The id of a recalibrated bundle: a hash of its parent's, and of all that differs in what it computes."""
    lines = ["aeedge recalibration 1", parent]
    lines += [f"{name} {list(w.shape)} {sha256_hex(w.astype('<f4').tobytes())}" for name, w in sorted(weights.items())]
    if calibration is not None:
        alarms = {"sha256": calibration.file.sha256, "thresholds": dict(calibration.thresholds)}
        lines.append(json.dumps(alarms, sort_keys=True))
    return sha256_hex("\n".join(lines).encode())


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
            f"{WHAT}: they vary too little to fit the score to them, rounding alone may change it by {after:.2g} "
            f"where {typical:.2g} is typical; pass rows of all normal operation, or keep_score=True"
        )


def _grown(tolerance: Tolerance, absolute: float, relative: float) -> Tolerance:
    rtol = max(tolerance.rtol, min(tolerance.rtol * relative, _LARGEST_RTOL))
    return Tolerance(rtol=_round(rtol), atol=_round(tolerance.atol * absolute))


def _round(value: float) -> float:
    """Three digits, rounded up."""
    return float(f"{value * 1.005:.2e}")


def write_bundle(
    new_path: str | os.PathLike[str],
    files: Mapping[str, bytes],
    variants: Collection[str],
    *,
    overwrite: bool = False,
    allow_ops: Collection[str] = (),
    name: str = "",
) -> None:
    """Write all files; the bundle appears when each of these variants has reproduced its reference outputs.

    `name`: what messages call it.
    """
    with atomic_directory(new_path, overwrite=overwrite, kinds=[BUNDLE]) as part:
        for file, data in files.items():
            (part / file).write_bytes(data)
        for variant in variants:
            _accept(part, variant, name or os.fspath(new_path), allow_ops)


def _accept(part: Path, variant: str, name: str, allow_ops: Collection[str]) -> None:
    """Load a variant of the new bundle, and compare it with what is recorded."""
    reason = ""
    try:
        model = opened(str(part), variant, allow_ops)
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
