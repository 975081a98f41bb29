"""Assemble a bundle from torch modules: convert, write beside the target, accept, then let it appear."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto
from torch import nn

from aeedge.bundle.manifest import (
    DTYPES,
    VARIANTS,
    FileEntry,
    InputSpec,
    Manifest,
    Missing,
    ScoreSpec,
    Tolerance,
    Variant,
    missing_fault,
)
from aeedge.bundle.onnx_proto import inspect
from aeedge.bundle.operators import operator_fault
from aeedge.bundle.reader import GOLDEN, MANIFEST, file_name
from aeedge.errors import InputError, VerificationError
from aeedge.files.atomic import atomic_directory
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.runtime.batch import as_array
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.runtime.nonfinite import find_sentinels
from aeedge.runtime.session import Session
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
from aeedge_export.conversion.graph import (
    OPSET,
    RawDecoder,
    RawEncoder,
    Scaling,
    check_one_input,
    frozen,
    in_float32,
    stamped,
    to_onnx,
)
from aeedge_export.conversion.messages import first_line
from aeedge_export.conversion.rewriting import for_fp32
from aeedge_export.conversion.scorer import scorer
from aeedge_export.data.tensors import without_tensor
from aeedge_export.quantization.choice import LEAST_ROWS, Finetune, Int8, NotQuantizableError, choose
from aeedge_export.quantization.encoder_decoder import EncoderDecoder, nudged
from aeedge_export.quantization.finetuning import finetuned
from aeedge_export.quantization.rows import calibration_rows
from aeedge_export.training.devices import torch_defaults
from aeedge_export.versions import versions

MIN_ONNXRUNTIME = "1.12.1"  # the oldest that passes tests/device
_NUDGED = 512  # rows by which the tolerance of int8 is measured
_ROOM = 1e3  # between outputs for the example and what float32 can hold: devices also meet rows beyond the example
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
    created: str | None = None,
    training: Mapping[str, Any] | None = None,
    ordered: bool = False,
    variants: Sequence[str] | str = ("fp32",),
    calibration: ArrayLike | None = None,
    qat: bool = False,
    with_scorer: bool = True,
    tolerance: float = 1e-4,
    overwrite: bool = False,
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
        features, units: names for the values of one-dimensional rows.
        missing: which values of float32 rows are missing, and what a device does with them. Here they are filled, or
            rows with them left out, in `example` and `calibration`.
        dialect: of the text files that the rows were read from, as JSON.
        created: when the model was made (ISO 8601). Not the time of export, so that two exports are the same bytes.
        training: anything worth knowing about the training, as JSON; never read at run time.
        ordered: whether any prefix of the latents, which are vectors then, is a code of its own.
        variants: "fp32" and "int8", the one that `aeedge.load` takes by itself first; "all" for both, as far as the
            calibration rows suffice. Where no int8 form is within the quality limits (docs/decisions/0009-int8.md) it
            is left out, with a warning that gives the reason.
        calibration: raw rows (192 or more) that int8 is calibrated and judged with; default: the example.
        qat: where the quality limits would keep layers in fp32, fine-tune the int8 variant for a few epochs with
            rounding in the forward pass, on the calibration rows; fp32 does not change.
        with_scorer: also write encoder, decoder and score as one graph, if there is a decoder: a single sample is
            scored in two thirds of the time or less, for twice the size.
        tolerance: largest error of fp32 relative to an output's magnitude.
        overwrite: replace an existing bundle that holds no other files; anything else is never replaced.

    Returns:
        The manifest of the bundle, whose `variants` say what was made.

    Raises:
        InputError: `path` exists or cannot be written; modules, example or calibration do not fit together or cannot be
            converted.
        VerificationError: aeedge computes something else; nothing is left behind.
    """
    target = Path(path)
    check_folder(target, overwrite=overwrite, kinds=[BUNDLE])
    wanted = _wanted(variants)
    check_one_input(encoder, "encoder")
    if decoder is not None:
        check_one_input(decoder, "decoder")
    rows = _raw(_array(example, "example", features, missing))
    spec = _spec(rows, features, units, missing, dialect)
    rows = _finite(_without_missing(rows, spec))
    if calibration is not None:
        calibration = _without_missing(_array(calibration, "calibration", features, missing), spec)
    if variants == "all" and len(rows if calibration is None else np.asarray(calibration)) < LEAST_ROWS:
        wanted = ("fp32",)
    scaling = _scaling(scaler, rows.shape[1:])
    _check_facts({"name": name, "family": family, "created": created}, training, spec)
    raw_encoder, raw_decoder = _raw_modules(encoder, decoder, scaling, rows)
    fresh = Reference(frozen(raw_encoder), None if raw_decoder is None else frozen(raw_decoder), scaling.scale)
    latent = _check_shapes(raw_encoder, raw_decoder, rows)
    if ordered and len(latent) > 1:
        raise InputError(f"ordered: expected latents that are vectors (n, k), got the shape {('n', *latent)}")
    reference = Reference(raw_encoder, raw_decoder, scaling.scale)
    _check_finite(reference, rows)
    check_repeatable(reference, fresh, rows)
    limits = tolerances(reference, rows, scaling, tolerance)
    check_independent(reference, rows, limits, tolerance)
    models = {"encoder": to_onnx(raw_encoder, torch.from_numpy(rows), "encoder")}
    if raw_decoder is not None:
        models["decoder"] = to_onnx(raw_decoder, torch.zeros(2, *latent), "decoder")
    fp32 = {role: for_fp32(model) for role, model in models.items()}
    for role, model in fp32.items():
        check_runs(model, role)
    tune = _finetuner(raw_encoder, raw_decoder, scaling, latent) if qat else None
    int8, reason = _int8(models, wanted, calibration, rows, scaling, tune)
    describe = partial(
        Manifest,
        name=name or target.stem,
        family=family,
        input=spec,
        latent_shape=latent,
        ordered=ordered,
        score=ScoreSpec("mse", scaling.scale),
        opset=OPSET,
        min_onnxruntime=MIN_ONNXRUNTIME,
        created=created,
        made_with=versions(),
        training=dict(training or {}),
    )
    with_scorer = with_scorer and decoder is not None
    write = partial(_write, target, describe, fp32, reference, rows, limits, wanted, with_scorer, overwrite)
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
        with_scorer: whether to write scorer graphs.
        overwrite: whether to replace an existing bundle.
        int8: None for fp32 alone.
    """
    draft: Manifest = describe(id="", variants={}, default_variant="", golden=_entry(b""))
    spec, score = draft.input, draft.score
    graphs = {"fp32": dict(fp32)} | ({} if int8 is None else {"int8": dict(int8.models)})
    if with_scorer:
        for by_role in graphs.values():
            by_role["scorer"] = scorer(by_role["encoder"], by_role["decoder"], score.scale)
    identity = _identity(graphs, spec, score.scale)
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
        outputs = EncoderDecoder(int8.models, score.scale).outputs
        recorded["int8"] = outputs(golden)
        elsewhere = None if int8.exact else EncoderDecoder(nudged(int8.models), score.scale).outputs
        allowed["int8"] = integer_tolerances(limits, outputs, rows[:_NUDGED], score, elsewhere)
    files[GOLDEN] = _archive(golden, recorded)
    made = {variant: _variant(variant, files, allowed[variant], int8) for variant in graphs}
    sentinels = _sentinels(files["encoder.onnx"], target, spec, draft.latent_shape, golden[-1])
    made["fp32"] = made["fp32"]._replace(nonfinite_sentinels=sentinels)
    manifest = draft._replace(
        id=identity,
        variants=made,
        default_variant=next((variant for variant in wanted if variant in graphs), "fp32"),
        golden=_entry(files[GOLDEN]),
    )
    files[MANIFEST] = manifest.dumps().encode()
    with atomic_directory(target, overwrite=overwrite, kinds=[BUNDLE]) as part:
        for file, data in files.items():
            (part / file).write_bytes(data)
        accept(part, reference, rows, str(target))
        if int8 is not None:
            accept_integer(part, rows, str(target), exact=int8.exact)
    return manifest


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


def _wanted(variants: Sequence[str] | str) -> tuple[str, ...]:
    """Names of variants, in the order of preference."""
    if variants == "all":
        return VARIANTS
    names = tuple(variants.split(",")) if isinstance(variants, str) else tuple(variants)
    if not names or len(set(names)) != len(names) or not set(names) <= set(VARIANTS) or "fp32" not in names:
        raise InputError(f"variants: expected fp32, or fp32 and int8 (fp32 is always there), got {', '.join(names)!r}")
    return names


def _int8(
    models: Mapping[str, ModelProto],
    wanted: tuple[str, ...],
    calibration: ArrayLike | None,
    example: NDArray[Any],
    scaling: Scaling,
    finetune: Finetune | None,
) -> tuple[Int8 | None, str]:
    """The int8 variant, if it is wanted and there is one that is worth having; else the reason why there is none."""
    if "int8" not in wanted:
        return None, ""
    rows = calibration_rows(calibration, example)
    try:
        return choose(models, rows, scaling.scale, finetune=finetune), ""
    except Exception as error:
        return None, _reason(error)


def _reason(error: Exception) -> str:
    """What an error says; with its type where it is a fault of this program."""
    known = isinstance(error, (NotQuantizableError, VerificationError))
    return str(error) if known else f"{type(error).__name__}: {error}"


def _finetuner(encoder: nn.Module, decoder: nn.Module | None, scaling: Scaling, latent: tuple[int, ...]) -> Finetune:
    """What makes canonical graphs of the fine-tuned network."""

    def tune(rows: NDArray[Any]) -> dict[str, ModelProto]:
        with torch.random.fork_rng(devices=[]):
            down, up = finetuned(encoder, decoder, rows, scaling.scale)
        models = {"encoder": to_onnx(down, torch.from_numpy(rows), "encoder")}
        return models if up is None else models | {"decoder": to_onnx(up, torch.zeros(2, *latent), "decoder")}

    return tune


def _spec(
    rows: NDArray[Any],
    features: Sequence[str] | None,
    units: Sequence[str] | None,
    missing: Missing | None,
    dialect: Mapping[str, Any] | None,
) -> InputSpec:
    spec = InputSpec(
        shape=rows.shape[1:],
        dtype=rows.dtype.name,
        features=_names("features", features, rows.shape[1:]),
        units=_names("units", units, rows.shape[1:]),
        missing=missing,
        dialect=dialect,
    )
    if fault := missing_fault(spec):
        raise InputError(f"missing: expected {fault}, got {missing}")
    return spec


def _without_missing(rows: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Rows as the graphs see them: missing values filled, or such rows left out."""
    if spec.missing is None or rows.shape[1:] != spec.shape or rows.dtype.kind not in "fiub":
        return rows
    return rows[~missing_rows(rows, spec)] if spec.missing.fill is None else fill_missing(rows, spec)[0]


def _array(
    values: ArrayLike | torch.Tensor, what: str, features: Sequence[str] | None, missing: Missing | None
) -> NDArray[Any]:
    """Rows as an array of numbers, from frames, lists and tensors, too."""
    if isinstance(values, np.ma.MaskedArray) and missing is None and (masked := int(np.ma.getmaskarray(values).sum())):
        raise InputError(
            f"{what}: expected an array without a mask, got {masked} masked values; fill them (values.filled(...)), "
            "leave such rows out, or say what a device does with missing values (missing=...)"
        )
    try:
        rows = as_array(without_tensor(values, what), what, features)
        rows = rows.astype(np.float64) if rows.dtype.kind == "O" else rows
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # lists of unequal length, of tensors with gradients, texts
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{what}: expected an array of numbers, got {type(values).__name__} ({reason})") from error
    if rows.dtype.kind not in "fiub":
        raise InputError(f"{what}: expected numbers, got dtype {rows.dtype}")
    return rows


def _raw(rows: NDArray[Any]) -> NDArray[Any]:
    """An array of at least two axes, in the dtype that a device takes."""
    if rows.ndim < 2 or 0 in rows.shape[1:]:
        raise InputError(f"example: expected two or more rows of raw input, shape (n, ...), got {rows.shape}")
    dtype = rows.dtype.name if rows.dtype.name in DTYPES else "float32"
    with np.errstate(over="ignore"):
        raw = np.require(rows, dtype, ("C", "W"))  # torch warns of memory that it may not write to
    if raw.dtype.kind == "f" and (beyond := np.isinf(raw) & np.isfinite(rows)).any():
        at = tuple(int(i) for i in np.argwhere(beyond)[0])
        raise InputError(
            f"example: expected numbers within float32, got {rows[at]} in row {at[0]}, position {at[1:]}; scale it down"
        )
    return raw


def _finite(rows: NDArray[Any]) -> NDArray[Any]:
    if len(rows) < 2:
        raise InputError(f"example: expected two or more rows of raw input, shape (n, ...), got {rows.shape}")
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise InputError(f"example: expected finite numbers, got {rows[at]} in row {at[0]}, position {at[1:]}")
    return rows


def _scaling(scaler: tuple[ArrayLike, ArrayLike], shape: tuple[int, ...]) -> Scaling:
    try:
        with np.errstate(over="ignore"):
            mean, scale = (np.asarray(without_tensor(values, "scaler"), np.float32) for values in scaler)
    except (TypeError, ValueError) as error:
        raise InputError(f"scaler: expected (mean, scale), numbers or arrays of them, got {scaler!r:.80}") from error
    try:
        np.broadcast_to(mean, shape), np.broadcast_to(scale, shape)
    except ValueError:
        raise InputError(
            f"scaler: expected mean and scale that broadcast to {shape}, got {mean.shape} and {scale.shape}"
        ) from None
    if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise InputError(
            "scaler: expected a finite mean and a finite scale above 0; use 1 for values that never change"
        )
    return Scaling(mean, scale)


def _raw_modules(
    encoder: nn.Module, decoder: nn.Module | None, scaling: Scaling, rows: NDArray[Any]
) -> tuple[RawEncoder, RawDecoder | None]:
    """Frozen copies of the caller's modules that take and give raw rows in float32."""
    given = torch.from_numpy(rows[:2])
    down = in_float32(frozen(RawEncoder(encoder, scaling)), lambda: given, "encoder")
    if decoder is None:
        return down, None
    up = frozen(RawDecoder(decoder, scaling))
    return down, in_float32(up, lambda: frozen(down)(given), "decoder")


def _check_facts(texts: Mapping[str, str | None], training: Mapping[str, Any] | None, spec: InputSpec) -> None:
    """What goes into the manifest as it is must be text and JSON."""
    for what, text in texts.items():
        if not isinstance(text, str | None):
            raise InputError(f"{what}: expected text, got {text!r:.80}")
    facts = {**texts, "features": spec.features, "units": spec.units, "dialect": spec.dialect, "training": training}
    for what, fact in facts.items():
        try:
            given = fact if fact is None or isinstance(fact, str | tuple) else dict(fact)
            json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{what}: expected text, or JSON with finite numbers, got something else ({error})"
            ) from error


def _check_shapes(encoder: nn.Module, decoder: nn.Module | None, rows: NDArray[Any]) -> tuple[int, ...]:
    """The shape of a row's latents, once both modules were seen to fit the example and each other for 3 rows and 2."""
    with torch.inference_mode():
        for count in (3, 2):
            part = rows[np.arange(count) % len(rows)]
            latent = _call(encoder, torch.from_numpy(part), "encoder")
            if latent.ndim < 2 or len(latent) != count or not latent.numel():
                raise InputError(
                    f"encoder: expected latents of shape (n, k) or (n, ...), got {tuple(latent.shape)} for {count} rows"
                )
            if decoder is not None:
                back = _call(decoder, latent, "decoder")
                if back.ndim != part.ndim or len(back) != count:
                    raise InputError(
                        f"decoder: expected rows of shape {part.shape}, got {tuple(back.shape)} for {count} rows"
                    )
                if back.shape != part.shape:
                    raise InputError(f"decoder: expected rows of shape {rows.shape[1:]}, got {tuple(back.shape[1:])}")
    return tuple(latent.shape[1:])


def _call(module: nn.Module, rows: torch.Tensor, role: str) -> torch.Tensor:
    try:
        result = module(rows)
    except Exception as error:  # whatever the caller's module raises
        raise InputError(
            f"{role}: failed on {len(rows)} rows, shape {tuple(rows.shape)} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    if not isinstance(result, torch.Tensor):
        parts = f" of {', '.join(type(part).__name__ for part in result)}" if isinstance(result, (list, tuple)) else ""
        raise InputError(
            f"{role}: expected one tensor, got {type(result).__name__}{parts}; wrap it to return one (a VAE: its mean, "
            "an LSTM: its output without the states)"
        )
    if not result.is_floating_point():
        advice = "torch.view_as_real(z) has two real ones" if result.is_complex() else "if these are meant, z.float()"
        raise InputError(f"{role}: expected real numbers, got {str(result.dtype).removeprefix('torch.')}; {advice}")
    return result


def _check_finite(reference: Reference, rows: NDArray[Any]) -> None:
    """Refuse outputs that overflow float32, or would for rows somewhat beyond the example."""
    most = np.finfo(np.float32).max / _ROOM
    for what, values in reference.outputs(rows).items():
        limit = most / rows[0].size if what == "score" else most  # of a mean, the sum counts
        bad = np.argwhere(~(np.abs(values) < limit))
        if len(bad):
            role = {"latent": "encoder", "reconstruction": "decoder"}.get(what, what)
            largest = np.abs(rows.astype(np.float64)).max()
            raise InputError(
                f"{role}: expected finite outputs for the example, got {values[tuple(bad[0])]:.3g} for row {bad[0][0]} "
                f"(values of up to {largest:.3g}; float32 ends at 3.4e+38); scale the rows (scaler=(mean, scale)), or "
                "look for weights that are too large"
            )


def _names(what: str, names: Sequence[str] | None, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(shape) != 1 or len(names) != shape[0]:
        raise InputError(f"{what}: expected one name for each of the values of a row {shape}, got {len(names)}")
    return tuple(map(str, names))


def _archive(golden: NDArray[Any], recorded: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> bytes:
    """golden.npz: input, and what every variant makes of it."""
    arrays = {f"{variant}.{what}": values for variant, found in recorded.items() for what, values in found.items()}
    archive = io.BytesIO()
    np.savez(archive, input=golden, **arrays)  # type: ignore[arg-type]
    return archive.getvalue()


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


def _identity(graphs: Mapping[str, Mapping[str, ModelProto]], spec: InputSpec, scale: NDArray[np.float32]) -> str:
    """The bundle's id: a hash of what it computes. Stands in each graph, so it cannot be a hash of the files."""
    digest = hashlib.sha256(b"aeedge bundle 1\n")
    for variant, models in graphs.items():
        for role in sorted(models):
            graph = hashlib.sha256(models[role].SerializeToString(deterministic=True)).hexdigest()
            digest.update(f"{file_name(role, variant)} {graph}\n".encode())
    interface = {"shape": spec.shape, "dtype": spec.dtype, "scale": scale.tolist()}
    if spec.missing is not None:
        interface["missing"] = spec.missing.document()
    digest.update(json.dumps(interface, sort_keys=True).encode())
    return digest.hexdigest()


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
