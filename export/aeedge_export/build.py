"""Assemble a bundle from torch modules: convert, write beside the target, accept, then let it appear."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto
from torch import nn

from aeedge.atomic import atomic_directory
from aeedge.bundle import GOLDEN, MANIFEST, file_name
from aeedge.errors import InputError
from aeedge.manifest import DTYPES, FileEntry, InputSpec, Manifest, ScoreSpec, Tolerance, Variant
from aeedge_export.acceptance import Reference, accept, golden_rows, tolerances
from aeedge_export.graph import OPSET, RawDecoder, RawEncoder, Scaling, frozen, stamped, to_onnx
from aeedge_export.versions import versions

MIN_ONNXRUNTIME = "1.12.1"  # the oldest that passes tests/device


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
    created: str | None = None,
    training: Mapping[str, Any] | None = None,
    ordered: bool = False,
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> None:
    """Write a bundle of any pair of torch modules; it is there only after aeedge has reproduced torch with it.

    Args:
        encoder: scaled rows (n, *shape) float32 to latents (n, k).
        decoder: latents (n, k) to scaled rows (n, *shape); None for a bundle that only encodes.
        path: the bundle's directory.
        example: raw rows (n, *shape), two or more. They fix shape and dtype (uint8, int16; all else is float32), and
            some become the golden rows that travel with the bundle.
        scaler: (mean, scale), scalars or one value a feature: the encoder sees (x - mean) / scale, and the decoder's
            output is mapped back; both inside the graphs.
        family: what the manifest calls the kind of model.
        name: the model's name; default: the stem of `path`.
        features, units: names for the values of one-dimensional rows.
        created: when the model was made (ISO 8601). Not the time of export, so that two exports are the same bytes.
        training: anything worth knowing about the training, as JSON; never read at run time.
        ordered: whether any prefix of the latents is a code of its own.
        tolerance: largest error relative to an output's magnitude.
        overwrite: replace an existing bundle.

    Raises:
        InputError: `path` exists or cannot be written; modules or example do not fit together or cannot be converted.
        VerificationError: aeedge computes something else; nothing is left behind.
    """
    target = Path(path)
    rows = _example(example)
    scaling = _scaling(scaler, rows.shape[1:])
    raw_encoder = frozen(RawEncoder(encoder, scaling))
    raw_decoder = None if decoder is None else frozen(RawDecoder(decoder, scaling))
    latent = _check_shapes(raw_encoder, raw_decoder, rows)
    models = {"encoder": to_onnx(raw_encoder, torch.from_numpy(rows), "encoder")}
    if raw_decoder is not None:
        models["decoder"] = to_onnx(raw_decoder, torch.zeros(2, latent), "decoder")
    spec = InputSpec(
        shape=rows.shape[1:],
        dtype=rows.dtype.name,
        features=_names("features", features, rows.shape[1:]),
        units=_names("units", units, rows.shape[1:]),
    )
    reference = Reference(raw_encoder, raw_decoder, scaling.scale)
    files, variant, identity = _files(models, spec, scaling, reference, rows, tolerance)
    manifest = Manifest(
        id=identity,
        name=name or target.stem,
        family=family,
        input=spec,
        latent=latent,
        ordered=ordered,
        variants={"fp32": variant},
        default_variant="fp32",
        golden=_entry(files[GOLDEN]),
        score=ScoreSpec("mse", scaling.scale),
        opset=OPSET,
        min_onnxruntime=MIN_ONNXRUNTIME,
        created=created,
        made_with=versions(),
        training=dict(training or {}),
    )
    files[MANIFEST] = manifest.dumps().encode()
    with atomic_directory(target, overwrite=overwrite) as part:
        for file, data in files.items():
            (part / file).write_bytes(data)
        accept(part, reference, rows, str(target))


def _example(example: ArrayLike) -> NDArray[Any]:
    rows = np.asarray(example)
    if rows.dtype.kind not in "fiub":
        raise InputError(f"example: expected numbers, got dtype {rows.dtype}")
    rows = np.ascontiguousarray(rows if rows.dtype.name in DTYPES else rows.astype(np.float32))
    if rows.ndim < 2 or len(rows) < 2:
        raise InputError(f"example: expected two or more rows of raw input, shape (n, ...), got {rows.shape}")
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise InputError(f"example: expected finite numbers, got {rows[at]} in row {at[0]}, position {at[1:]}")
    return rows


def _scaling(scaler: tuple[ArrayLike, ArrayLike], shape: tuple[int, ...]) -> Scaling:
    mean, scale = (np.asarray(values, np.float32) for values in scaler)
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


def _check_shapes(encoder: nn.Module, decoder: nn.Module | None, rows: NDArray[Any]) -> int:
    """The latent size, once both modules have been seen to fit the example and each other, for 2 rows and for 3."""
    size = int(np.prod(rows.shape[1:]))
    with torch.inference_mode():
        for count in (2, 3):
            part = rows[np.arange(count) % len(rows)]
            latent = _call(encoder, torch.from_numpy(part), "encoder")
            if latent.ndim != 2 or len(latent) != count:
                raise InputError(
                    f"encoder: expected latents of shape (n, k), got {tuple(latent.shape)} for {count} rows"
                )
            if latent.shape[1] > size:
                raise InputError(
                    f"encoder: expected at most {size} latents, as many as values in a row, got {latent.shape[1]}"
                )
            if decoder is not None:
                back = _call(decoder, latent, "decoder")
                if back.shape != part.shape:
                    raise InputError(f"decoder: expected rows of shape {rows.shape[1:]}, got {tuple(back.shape[1:])}")
    return int(latent.shape[1])


def _call(module: nn.Module, rows: torch.Tensor, role: str) -> torch.Tensor:
    try:
        result = module(rows)
    except Exception as error:  # whatever the caller's module raises
        raise InputError(
            f"{role}: failed on rows of shape {tuple(rows.shape)} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(result, torch.Tensor):
        raise InputError(
            f"{role}: expected one tensor, got {type(result).__name__}; wrap it to return one (a VAE: its mean)"
        )
    return result


def _names(what: str, names: Sequence[str] | None, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(shape) != 1 or len(names) != shape[0]:
        raise InputError(f"{what}: expected one name for each of the values of a row {shape}, got {len(names)}")
    return tuple(map(str, names))


def _files(
    models: Mapping[str, ModelProto],
    spec: InputSpec,
    scaling: Scaling,
    reference: Reference,
    rows: NDArray[Any],
    tolerance: float,
) -> tuple[dict[str, bytes], Variant, str]:
    """Bytes of graphs and golden rows by file name, the variant that they make up, and the bundle's id."""
    limits = tolerances(reference, rows, scaling, tolerance)
    golden = golden_rows(rows)
    recorded = {f"fp32.{what}": values for what, values in reference.outputs(golden).items()}
    archive = io.BytesIO()
    np.savez(archive, input=golden, **recorded)  # type: ignore[arg-type]
    identity = _identity(models, spec, scaling)
    files = {file_name(role, "fp32"): stamped(model, identity, role) for role, model in models.items()}
    entries = {role: _entry(files[file_name(role, "fp32")]) for role in models}
    files[GOLDEN] = archive.getvalue()
    return files, _variant(entries, limits), identity


def _variant(entries: Mapping[str, FileEntry], limits: Mapping[str, Tolerance]) -> Variant:
    return Variant(encoder=entries["encoder"], decoder=entries.get("decoder"), tolerance=limits)


def _identity(models: Mapping[str, ModelProto], spec: InputSpec, scaling: Scaling) -> str:
    """The bundle's id: a hash of what it computes. Stands in each graph, so it cannot be a hash of the files."""
    digest = hashlib.sha256(b"aeedge bundle 1\n")
    for role in sorted(models):
        graph = hashlib.sha256(models[role].SerializeToString(deterministic=True)).hexdigest()
        digest.update(f"{file_name(role, 'fp32')} {graph}\n".encode())
    contract = {"shape": spec.shape, "dtype": spec.dtype, "scale": scaling.scale.tolist()}
    digest.update(json.dumps(contract, sort_keys=True).encode())
    return digest.hexdigest()


def _entry(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
