"""Assemble a bundle from torch modules: convert, write beside the target, accept, then let it appear."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto
from torch import nn

from aeedge.bundle import codes_spec
from aeedge.bundle.codes_spec import CodesSpec
from aeedge.bundle.drift_reference import DriftReference
from aeedge.bundle.manifest import (
    CalibrationSpec,
    CompressionSpec,
    FileEntry,
    FrontEndSpec,
    InputSpec,
    Manifest,
    Missing,
    ScoreSpec,
    SignalSpec,
    SmallerLayer,
    Tolerance,
    Variant,
)
from aeedge.bundle.onnx_proto import inspect
from aeedge.bundle.operators import operator_fault
from aeedge.bundle.reader import CALIBRATION, FEATURES, GOLDEN, MANIFEST, file_name
from aeedge.detection.calibration import ThresholdRule
from aeedge.detection.scores import Scoring
from aeedge.detection.thresholds import archive, calibrated
from aeedge.errors import InputError, VerificationError
from aeedge.files.atomic import atomic_directory
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.runtime.nonfinite import find_sentinels
from aeedge.runtime.session import Session
from aeedge.signals.drift import fit_reference
from aeedge_export.acceptance import (
    Reference,
    accept,
    accept_integer,
    check_independent,
    check_repeatable,
    check_runs,
    golden_rows,
    integer_tolerances,
    tolerances,
    without_codes,
)
from aeedge_export.alarms import Normal
from aeedge_export.arguments import (
    as_numbers,
    as_samples,
    check_facts,
    check_finite,
    check_shapes,
    example_rows,
    raw_modules,
    scaling_of,
    wanted_variants,
    without_missing,
)
from aeedge_export.compression.choice import (
    Compressed,
    NotCompressibleError,
    compressed,
    limits_of,
    share_of,
    tightened,
)
from aeedge_export.conversion.graph import (
    OPSET,
    RawDecoder,
    RawEncoder,
    Scaling,
    check_one_input,
    frozen,
    stamped,
    to_onnx,
    with_front_end,
)
from aeedge_export.conversion.rewriting import for_fp32
from aeedge_export.conversion.scorer import scorer
from aeedge_export.data.rows import row_keys
from aeedge_export.networks.front_ends import FrontEnd
from aeedge_export.networks.front_ends import features as features_of
from aeedge_export.quantization.choice import LEAST_ROWS, Finetune, Int8, NotQuantizableError, choose
from aeedge_export.quantization.codes import code_scales
from aeedge_export.quantization.encoder_decoder import EncoderDecoder, nudged
from aeedge_export.quantization.finetuning import finetuned
from aeedge_export.quantization.quality_limits import Quality, disagreement
from aeedge_export.quantization.rows import apart_from, calibration_rows
from aeedge_export.scoring import fit_scoring
from aeedge_export.training.devices import torch_defaults
from aeedge_export.versions import versions

MIN_ONNXRUNTIME = "1.12.1"  # the oldest that passes tests/device
_NO_INT8 = (
    "a front end computes in float32, which is most of the work, so that integers would save little; export fp32 alone"
)
_NUDGED = 512  # rows by which the tolerance of int8 is measured
_MAX_COLUMNS = 2**14  # of networks whose columns are tried: in wider ones, looking at the input takes no time


@torch_defaults()
def export_bundle(
    *,
    encoder: nn.Module,
    decoder: nn.Module | None = None,
    path: str | os.PathLike[str],
    example: ArrayLike,
    scaler: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    family: str = "custom",
    name: str | None = None,
    features: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    missing: Missing | None = None,
    dialect: Mapping[str, Any] | None = None,
    signal: SignalSpec | None = None,
    created: str | None = None,
    training: Mapping[str, Any] | None = None,
    ordered: bool = False,
    variants: Sequence[str] | str = ("fp32",),
    calibration: ArrayLike | None = None,
    qat: bool = False,
    compress: str | float | None = None,
    max_error_ratio: float | None = None,
    score_kind: str | Scoring = "mse",
    normal: ArrayLike | Normal | None = None,
    rule: ThresholdRule | None = None,
    with_scorer: bool = True,
    front_end: FrontEnd | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Write a bundle of any pair of torch modules; it is there only after aeedge has reproduced torch with it.

    Args:
        encoder: scaled rows (n, *shape) float32 to latents of any shape: vectors (n, k), maps (n, channels, height,
            width), sequences (n, steps, k). One input, one output: bind what else `forward` takes in a module of your
            own.
        decoder: latents to scaled rows (n, *shape); None for a bundle that only encodes.
        path: the bundle's directory.
        example: raw rows (n, *shape), two or more; of a frame, the columns that `features` names. They fix shape and
            dtype (uint8, int16; all else is float32), and some become the golden rows that travel with the bundle.
        scaler: (mean, scale), scalars or one value a feature: the encoder sees (x - mean) / scale, and the decoder's
            output is mapped back; both inside the graphs.
        family: what the manifest calls the kind of model.
        name: the model's name; default: the stem of `path`.
        features: names for the values of one-dimensional rows.
        units: of these values.
        missing: which values of float32 rows are missing, and what a device does with them. Here they are filled, or
            rows with them left out, in `example` and `calibration`.
        dialect: of the text files that the rows were read from, as JSON.
        signal: what a row is where rows are windows of a recording, (n, window, channels).
        created: when the model was made (ISO 8601). Not the time of export, so that two exports are the same bytes.
        training: anything worth knowing about the training, as JSON; `channels`, "first" (default) or "last", names
            the axis that `Model.explain` takes for the channels of signals and images.
        ordered: whether any prefix of the latents, which are vectors then, is a code of its own.
        variants: "fp32" and "int8", the one that `aeedge.load` takes by itself first; "all" for both, as far as the
            calibration rows suffice. Where no int8 form is within the quality limits (docs/decisions/0009-int8.md) it
            is left out, with a warning that gives the reason.
        calibration: raw rows that int8 and compression are calibrated and judged with (192 or more), and the steps of
            codes (20 or more; see `Model.encode`); default: the example, for codes also normal rows.
        qat: where the quality limits would keep layers in fp32, fine-tune the int8 variant for a few epochs with
            rounding in the forward pass, on the calibration rows; fp32 does not change.
        compress: make the network smaller first (docs/how-to/compression.md): "auto" for as few multiply-adds as the
            quality limits allow, or the share of them that may stay, such as 0.5. Where that is not within the limits
            the network stays as it is, with a warning that gives the reason.
        max_error_ratio: how much compression may enlarge the mean squared reconstruction error, in the place of 1.01.
        score_kind: "mse", "robust", "mahalanobis" or "both" (see `aeedge.Model.score`), whose parameters are those of
            the example; or "auto" for the best that there is. Without a decoder there is "mahalanobis" or no score.
        normal: raw rows of normal operation that had no say in training, to calibrate alarms with; None for a bundle
            without a threshold.
        rule: how the threshold follows from their scores; None for a false-alarm rate of 1 %, or the smallest that so
            few rows support.
        with_scorer: also write encoder, decoder and score as one graph, if there is a score: a single sample is scored
            in two thirds of the time or less, for twice the size. "mahalanobis" and "both" need it.
        front_end: what makes features of raw windows (n, window, channels) inside the graphs
            (`aeedge_export.networks.front_ends.front_end`); encoder, decoder and scaler are then of features
            (n, features), and there is no int8.
        tolerance: largest error of fp32 relative to an output's magnitude, at most 0.05.
        overwrite: replace an existing bundle that holds no other files; anything else is never replaced.
        on_progress: called with a line for each smaller network that compression tries.

    Returns:
        The manifest of the bundle, whose `variants` say what was made.

    Raises:
        InputError: `path` exists or cannot be written; modules, example or calibration do not fit together or cannot be
            converted; what a module makes of a row is random, or depends on earlier calls or on the other rows.
        VerificationError: aeedge computes something else; nothing is left behind.
    """
    target = Path(path)
    check_folder(target, overwrite=overwrite, kinds=[BUNDLE])
    wanted = wanted_variants(variants)
    if compress is None and max_error_ratio is not None:
        raise InputError("max_error_ratio: only compression uses it; pass compress='auto', or leave it out")
    share, allowed = None if compress is None else share_of(compress), limits_of(max_error_ratio)
    check_one_input(encoder, "encoder")
    if decoder is not None:
        check_one_input(decoder, "decoder")
    rows, spec = example_rows(example, features, units, missing, dialect, signal)
    if calibration is not None:
        calibration = without_missing(as_numbers(calibration, "calibration", features, missing), spec)
    if variants == "all" and len(rows if calibration is None else np.asarray(calibration)) < LEAST_ROWS:
        wanted = ("fp32",)
    if front_end is not None and rows.shape[1:] != front_end.input_shape:
        raise InputError(
            f"example: expected windows of shape {('n', *front_end.input_shape)} for the front end, got {rows.shape}"
        )
    seen = rows if front_end is None else features_of(front_end, rows)
    scaling = scaling_of(scaler, seen.shape[1:])
    check_facts({"name": name, "family": family, "created": created}, training, spec)
    raw_encoder, raw_decoder = raw_modules(encoder, decoder, scaling, seen)
    fresh = Reference(frozen(raw_encoder), None if raw_decoder is None else frozen(raw_decoder), None, front_end)
    latent = check_shapes(raw_encoder, raw_decoder, seen)
    if ordered and len(latent) > 1:
        raise InputError(f"ordered: expected latents that are vectors (n, k), got the shape {('n', *latent)}")
    reference = Reference(raw_encoder, raw_decoder, None, front_end)
    check_finite(reference, rows)
    reference.scoring = scoring = _scoring(score_kind, reference, rows, scaling, with_scorer=with_scorer)
    check_finite(reference, rows)
    alarms = _normal(normal, rule, spec, scoring)
    check_repeatable(reference, fresh, rows)
    small, original, whole = None, None, ""
    if compress is not None:
        used = _apart(calibration, rows, alarms, "compression")
        used = used if front_end is None else features_of(front_end, used)
        room = tightened(allowed, 0.5) if "int8" in wanted and front_end is None else allowed  # int8 has the other half
        small, whole = _smaller(raw_encoder, raw_decoder, used, scaling.scale, share, room, scoring, on_progress)
    if small is not None:
        original = _models(raw_encoder, raw_decoder, seen, latent) if "int8" in wanted else None
        raw_encoder, raw_decoder = cast("RawEncoder", small.encoder), cast("RawDecoder | None", small.decoder)
        reference = Reference(raw_encoder, raw_decoder, None, front_end)
        reference.scoring = scoring = _scoring(score_kind, reference, rows, scaling, with_scorer=with_scorer)
        check_finite(reference, rows)
    limits = tolerances(reference, rows, scaling, tolerance)
    check_independent(reference, rows, limits, tolerance)
    models = _models(raw_encoder, raw_decoder, seen, latent)
    fp32 = {role: for_fp32(model) for role, model in models.items()}
    if front_end is not None:
        fp32[FEATURES] = to_onnx(frozen(front_end), torch.from_numpy(rows), FEATURES)
        fp32["encoder"] = with_front_end(fp32[FEATURES], fp32["encoder"])
    for role, model in fp32.items():
        check_runs(model, role)
    tune = _finetuner(raw_encoder, raw_decoder, scaling, latent) if qat else None
    int8: Int8 | None = None
    reason = _NO_INT8 if front_end is not None and "int8" in wanted else ""
    if not reason:
        int8, reason = _int8(models, wanted, calibration, rows, scaling, scoring, alarms, tune, original)
    describe = partial(
        Manifest,
        name=name or target.stem,
        family=family,
        input=spec,
        latent_shape=latent,
        ordered=ordered,
        score=ScoreSpec("mse", scaling.scale) if scoring is None else scoring.spec,
        opset=OPSET,
        min_onnxruntime=MIN_ONNXRUNTIME,
        created=created,
        made_with=versions(),
        training=dict(training or {}),
        front_end=None if front_end is None else _front_end_spec(front_end),
        compression=None if small is None else _compression_spec(small, share, allowed),
    )
    if whole:
        warnings.warn(f"no compression: {whole}", stacklevel=3)  # the caller, past `torch_defaults`
    with_scorer = with_scorer and scoring is not None
    coded = _code_rows(rows, calibration, alarms), scaling.scale
    write = partial(
        _write, target, describe, fp32, reference, rows, limits, wanted, alarms, coded, with_scorer, overwrite
    )
    if int8 is not None:
        try:
            return write(int8)
        except Exception as error:  # the bundle without int8 is worth having; what is wrong with fp32 fails again
            reason = _reason(error)
    manifest = write(None)
    if reason:
        warnings.warn(f"no int8 variant: {reason}", stacklevel=3)  # the caller, past `torch_defaults`
    return manifest


def _write(
    target: Path,
    describe: Callable[..., Manifest],
    fp32: Mapping[str, ModelProto],
    reference: Reference,
    rows: NDArray[Any],
    limits: Mapping[str, Tolerance],
    wanted: Sequence[str],
    alarms: Normal | None,
    coded: tuple[NDArray[Any], NDArray[np.float32]],
    with_scorer: bool,
    overwrite: bool,
    int8: Int8 | None,
) -> Manifest:
    """Write a bundle and accept it, with the int8 variant or without.

    Args:
        target: the bundle's directory.
        describe: makes the manifest of what is known only here.
        fp32: graphs by role.
        reference: what torch says.
        rows: the example.
        limits: tolerances of fp32.
        wanted: names of variants, in the order of preference.
        alarms: normal rows to calibrate with, None for no threshold.
        coded: rows that codes of latents are made for, and the scale of their reconstruction errors.
        with_scorer: whether to write scorer graphs.
        overwrite: whether to replace an existing bundle.
        int8: None for fp32 alone.
    """
    draft: Manifest = describe(id="", variants={}, default_variant="", golden=_entry(b""))
    spec, scoring = draft.input, reference.scoring
    graphs = {"fp32": dict(fp32)} | ({} if int8 is None else {"int8": dict(int8.models)})
    variants = {
        name: EncoderDecoder(by_role, draft.score.scale, scoring)
        for name, by_role in graphs.items()
        if name == "int8" or alarms is not None
    }
    codes = code_scales(graphs, *coded)
    if with_scorer and scoring is not None:
        for by_role in graphs.values():
            seen = FEATURES if draft.front_end is not None else ""
            by_role["scorer"] = scorer(by_role["encoder"], by_role.get("decoder"), scoring, seen)
    calibration, scores = (None, b"") if alarms is None else _calibrated(alarms, variants)
    identity = _identity(graphs, spec, draft.score.scale, calibration, codes)
    files = {
        file_name(role, variant): stamped(model, identity, role)
        for variant, by_role in graphs.items()
        for role, model in by_role.items()
    }
    for file, data in files.items():
        _check_operators(file.split(".")[0], data)
    golden = without_codes(golden_rows(rows), rows[0], spec)
    recorded, allowed = {"fp32": reference.outputs(golden)}, {"fp32": limits}
    if int8 is not None:
        outputs = variants["int8"].outputs
        recorded["int8"] = outputs(golden)
        moved = None if int8.exact else EncoderDecoder(nudged(int8.models), draft.score.scale, scoring).outputs
        allowed["int8"] = integer_tolerances(limits, outputs, rows[:_NUDGED], draft.score, moved)
    if calibration is not None:
        files[CALIBRATION] = scores
    outputs_of = {f"{variant}.{what}": values for variant, found in recorded.items() for what, values in found.items()}
    files[GOLDEN] = archive({"input": golden, **outputs_of})
    made = {variant: _variant(variant, files, allowed[variant], int8) for variant in graphs}
    sentinels = _sentinels(files["encoder.onnx"], target, spec, draft.latent_shape, golden[-1])
    made["fp32"] = made["fp32"]._replace(nonfinite_sentinels=sentinels)
    manifest = draft._replace(
        id=identity,
        variants=made,
        default_variant=next((variant for variant in wanted if variant in graphs), "fp32"),
        golden=_entry(files[GOLDEN]),
        calibration=calibration,
        codes=codes,
    )
    if manifest.front_end is not None:
        entry = _entry(files[file_name(FEATURES, "fp32")])
        manifest = manifest._replace(front_end=manifest.front_end._replace(file=entry))
    files[MANIFEST] = manifest.dumps().encode()
    with atomic_directory(target, overwrite=overwrite, kinds=[BUNDLE]) as part:
        for file, data in files.items():
            (part / file).write_bytes(data)
        accept(part, reference, rows, str(target))
        if int8 is not None:
            accept_integer(part, rows, str(target), exact=int8.exact)
    return manifest


def _code_rows(example: NDArray[Any], calibration: ArrayLike | None, alarms: Normal | None) -> NDArray[Any]:
    """The calibration rows if there are enough; else the example, and normal rows that are not in it."""
    if calibration is not None and len(np.asarray(calibration)) >= codes_spec.LEAST_ROWS:
        return calibration_rows(calibration, example, "calibration", codes_spec.LEAST_ROWS)
    if alarms is None:
        return example
    own = {key.tobytes() for key in row_keys(example, example.dtype)}
    others = [key.tobytes() not in own for key in row_keys(alarms.rows, example.dtype)]
    return np.concatenate([example, alarms.rows[others]])


def _scoring(
    kind: str | Scoring, reference: Reference, rows: NDArray[Any], scaling: Scaling, *, with_scorer: bool
) -> Scoring | None:
    """The score, with the parameters that it has on the example; None where there is none."""
    if not isinstance(kind, Scoring):
        found = reference.outputs(rows)
        back, rows = found.get("reconstruction"), found.get(FEATURES, rows)
        if kind == "mse" and back is None:
            return None
        kind = fit_scoring(kind, scaling.scale, rows, found["latent"], back)
    if kind.spec.needs_scorer and not with_scorer:
        raise InputError(
            f"score_kind: {kind.kind!r} is computed by scorer.onnx alone, which was not wanted; write it too, or take "
            "'robust' or 'mse'"
        )
    return kind


def _normal(
    normal: ArrayLike | Normal | None, rule: ThresholdRule | None, spec: InputSpec, scoring: Scoring | None
) -> Normal | None:
    """Normal rows as the graphs see them."""
    if normal is None:
        if rule is not None:
            raise InputError("rule: expected normal rows to calibrate with, got none; pass normal=rows")
        return None
    if scoring is None:
        raise InputError("normal: there is no score to calibrate: pass a decoder, or score_kind='mahalanobis'")
    given = normal if isinstance(normal, Normal) else Normal(as_numbers(normal, "normal", spec.features, spec.missing))
    rows = without_missing(given.rows, spec)
    return replace(given, rows=as_samples(rows, spec, "normal"), rule=given.rule if rule is None else rule.checked())


def _calibrated(normal: Normal, variants: Mapping[str, EncoderDecoder]) -> tuple[CalibrationSpec, bytes]:
    """Calibration scores of all variants, whose alarms must agree."""
    rows = normal.kept()
    spacing = normal.spacing * len(normal.rows) / len(rows) if normal.time_ordered else None
    scores = {name: variant.scores(rows) for name, variant in variants.items()}
    found = {name: values for name, values in scores.items() if values is not None}
    if "int8" in found and (reason := disagreement(found["fp32"], found["int8"])):
        raise NotQuantizableError(reason)
    options: dict[str, Any] = {"time_ordered": normal.time_ordered, "drift": normal.drift, "left_out": normal.left_out}
    references = (
        {} if normal.reference is None else _references(normal.reference, {name: variants[name] for name in found})
    )
    return calibrated(found, normal.rule, spacing=spacing, inflation=normal.inflation, references=references, **options)


def _references(rows: NDArray[Any], variants: Mapping[str, EncoderDecoder]) -> dict[str, DriftReference]:
    """What drift is found by, of the variants for which the windows suffice."""
    found = {}
    for name, variant in variants.items():
        (latents, _), scores = variant.latents_and_errors(rows), variant.scores(rows)
        assert scores is not None
        with suppress(InputError):  # too few windows, or too much alike
            found[name] = fit_reference(latents, scores)
    return found


def _check_operators(role: str, graph: bytes) -> None:
    """Refuse what a device would refuse: some operators hang or end its process, or give another result each time."""
    try:
        fault = operator_fault(inspect(graph))
    except ValueError as error:
        raise InputError(f"{role}: no device reads its graph: {error}; replace the layer that needs it") from None
    if fault:
        raise InputError(
            f"{role}: expected what a feed-forward network needs, got {fault}, which a device does not run by default; "
            "replace that layer"
        )


def _int8(
    models: Mapping[str, ModelProto],
    wanted: tuple[str, ...],
    calibration: ArrayLike | None,
    example: NDArray[Any],
    scaling: Scaling,
    scoring: Scoring | None,
    alarms: Normal | None,
    finetune: Finetune | None,
    original: Mapping[str, ModelProto] | None,
) -> tuple[Int8 | None, str]:
    """The int8 variant, if it is wanted and there is one that is worth having; else the reason why there is none."""
    if "int8" not in wanted:
        return None, ""
    rows = _apart(calibration, example, alarms, "int8")
    try:
        return choose(models, rows, scaling.scale, finetune=finetune, scoring=scoring, original=original), ""
    except Exception as error:
        return None, _reason(error)


def _apart(calibration: ArrayLike | None, example: NDArray[Any], alarms: Normal | None, purpose: str) -> NDArray[Any]:
    """Calibration rows, without those that calibrate the threshold."""
    rows = calibration_rows(calibration, example, purpose)
    return rows if alarms is None else apart_from(rows, alarms.rows, purpose)


def _smaller(*given: Any) -> tuple[Compressed | None, str]:
    """A smaller network, if there is one within the limits; else the reason why there is none."""
    try:
        return compressed(*given), ""
    except Exception as error:
        return None, _reason(error)


def _compression_spec(small: Compressed, share: float | None, limits: Quality) -> CompressionSpec:
    assert limits.error_ratio is not None
    return CompressionSpec(
        asked=share,
        max_error_ratio=limits.error_ratio,
        rows=small.rows[0],
        held_out_rows=small.rows[1],
        multiply_adds=small.work,
        layers=tuple(SmallerLayer(**layer) for layer in small.layers),
        quality={name: round(value, 6) for name, value in small.quality.numbers().items()},
    )


def _models(
    encoder: nn.Module, decoder: nn.Module | None, rows: NDArray[Any], latent: tuple[int, ...]
) -> dict[str, ModelProto]:
    """Canonical graphs by role."""
    models = {"encoder": to_onnx(encoder, torch.from_numpy(rows), "encoder")}
    return models if decoder is None else models | {"decoder": to_onnx(decoder, torch.zeros(2, *latent), "decoder")}


def _reason(error: Exception) -> str:
    """What an error says; with its type where it is a fault of this program."""
    known = isinstance(error, (NotCompressibleError, NotQuantizableError, VerificationError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def _finetuner(encoder: nn.Module, decoder: nn.Module | None, scaling: Scaling, latent: tuple[int, ...]) -> Finetune:
    """What makes canonical graphs of the fine-tuned network."""

    def tune(rows: NDArray[Any]) -> dict[str, ModelProto]:
        with torch.random.fork_rng(devices=[]):
            down, up = finetuned(encoder, decoder, rows, scaling.scale)
        return _models(down, up, rows, latent)

    return tune


def _variant(variant: str, files: Mapping[str, bytes], limits: Mapping[str, Tolerance], int8: Int8 | None) -> Variant:
    names = {role: file_name(role, variant) for role in ("encoder", "decoder", "scorer")}
    entries = {role: _entry(files[name]) for role, name in names.items() if name in files}
    made = Variant(entries["encoder"], entries.get("decoder"), limits, entries.get("scorer"))
    if variant == "int8" and int8 is not None:
        quality = {name: round(value, 6) for name, value in int8.quality.numbers().items()}
        made = made._replace(quality=quality, decisions=int8.record)
    return made


def _sentinels(encoder: bytes, path: Path, spec: InputSpec, latent: tuple[int, ...], sample: NDArray[Any]) -> str:
    """Which latents expose a non-finite input; "none" also where trying each column would take too long."""
    if spec.size > _MAX_COLUMNS:
        return "none"
    session = Session(encoder, str(path / "encoder.onnx"), spec.dtype, spec.shape, latent)
    return find_sentinels(session, sample)


def _identity(
    graphs: Mapping[str, Mapping[str, ModelProto]],
    spec: InputSpec,
    scale: NDArray[np.float32],
    calibration: CalibrationSpec | None,
    codes: CodesSpec | None,
) -> str:
    """The bundle's id: a hash of what it computes. Stands in each graph, so it cannot be a hash of the files."""
    digest = hashlib.sha256(b"aeedge bundle 1\n")
    for variant, models in graphs.items():
        for role in sorted(models):
            graph = hashlib.sha256(models[role].SerializeToString(deterministic=True)).hexdigest()
            digest.update(f"{file_name(role, variant)} {graph}\n".encode())
    interface: dict[str, Any] = {"shape": spec.shape, "dtype": spec.dtype, "scale": scale.tolist()}
    if spec.missing is not None:
        interface["missing"] = spec.missing.document()
    if spec.signal is not None:
        interface["signal"] = spec.signal.document()
    if calibration is not None:
        interface["calibration"] = {"sha256": calibration.file.sha256, "thresholds": dict(calibration.thresholds)}
    if codes is not None:  # what a device sends is read by another one with a bundle of the same id
        interface["codes"] = {str(bits): [list(scale.low), list(scale.step)] for bits, scale in codes.scales.items()}
    digest.update(json.dumps(interface, sort_keys=True).encode())
    return digest.hexdigest()


def _front_end_spec(made: FrontEnd) -> FrontEndSpec:
    return FrontEndSpec(made.kind, (len(made.names),), made.names, _entry(b""), made.options)


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
