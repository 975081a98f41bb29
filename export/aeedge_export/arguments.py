"""What `export_bundle` is given: rows as a device takes them, modules that take and give raw rows, or a sentence.

Nothing here converts or writes anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from aeedge.bundle.manifest import CALENDAR, DTYPES, VARIANTS, InputSpec, Missing, SignalSpec, missing_fault
from aeedge.errors import InputError
from aeedge.runtime.batch import as_array
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.signals.window import as_count
from aeedge_export.acceptance import Reference
from aeedge_export.conversion.graph import RawDecoder, RawEncoder, Scaling, frozen, in_float32
from aeedge_export.conversion.messages import first_line
from aeedge_export.data.tensors import without_tensor
from aeedge_export.data.windows import with_reference

_ROOM = 1e3  # between outputs for the example and what float32 can hold: devices also meet rows beyond the example


def wanted_variants(variants: Sequence[str] | str) -> tuple[str, ...]:
    """Names of variants, in the order of preference."""
    if variants == "all":
        return VARIANTS
    names = tuple(variants.split(",")) if isinstance(variants, str) else tuple(variants)
    if not names or len(set(names)) != len(names) or not set(names) <= set(VARIANTS) or "fp32" not in names:
        raise InputError(f"variants: expected fp32, or fp32 and int8 (fp32 is always there), got {', '.join(names)!r}")
    return names


def example_rows(
    example: ArrayLike,
    features: Sequence[str] | None,
    units: Sequence[str] | None,
    missing: Missing | None,
    dialect: Mapping[str, Any] | None,
    signal: SignalSpec | None = None,
) -> tuple[NDArray[Any], InputSpec]:
    """The example as the graphs see it, two rows or more, and what the manifest says of it; see `export_bundle`."""
    rows = _raw(as_numbers(example, "example", features, missing))
    spec = _spec(rows, features, units, missing, dialect, signal)
    return _finite(without_missing(rows, spec)), spec


def _spec(
    rows: NDArray[Any],
    features: Sequence[str] | None,
    units: Sequence[str] | None,
    missing: Missing | None,
    dialect: Mapping[str, Any] | None,
    signal: SignalSpec | None = None,
) -> InputSpec:
    spec = InputSpec(
        shape=rows.shape[1:],
        dtype=rows.dtype.name,
        features=_names("features", features, rows.shape[1:]),
        units=_names("units", units, rows.shape[1:]),
        missing=missing,
        dialect=dialect,
        signal=signal,
    )
    if fault := missing_fault(spec):
        raise InputError(f"missing: expected {fault}, got {missing}")
    check_signal(signal, spec.shape)
    if signal is None or signal.reference:
        return spec
    return spec._replace(signal=with_reference(signal, rows))


def check_signal(signal: SignalSpec | None, shape: tuple[int, ...]) -> None:
    """Refuse what a device would refuse of a signal whose windows have this shape.

    Raises:
        InputError: names, numbers or shape do not fit.
    """
    if signal is None:
        return
    if not isinstance(signal, SignalSpec):
        raise InputError(f"signal: expected a SignalSpec, as aeedge_export.window gives it, got {signal!r:.80}")
    names, calendar = signal.names, signal.calendar
    if not all(isinstance(name, str) for name in names) or not signal.channels or len(set(names)) < len(names):
        raise InputError(
            f"signal: expected one or more channels with different names, got {', '.join(map(str, names))}"
        )
    if signal.units is not None and len(signal.units) != len(signal.channels):
        raise InputError(
            f"signal: expected a unit for each of {len(signal.channels)} channels, got {len(signal.units)}"
        )
    if not set(calendar) <= set(CALENDAR) or len(set(calendar)) < len(calendar):
        raise InputError(
            f"signal: expected a calendar of {' and '.join(CALENDAR)}, got {', '.join(map(str, calendar))}"
        )
    for what in ("window", "hop"):
        as_count(what, getattr(signal, what))
    if signal.rate is not None and not 0 < signal.rate < np.inf:
        raise InputError(f"rate: expected samples a second above 0, or None, got {signal.rate}")
    if shape != (signal.window, signal.width):
        raise InputError(
            f"signal: expected rows (window, channels) = {(signal.window, signal.width)}, got rows of shape {shape}"
        )


def _names(what: str, names: Sequence[str] | None, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(shape) != 1 or len(names) != shape[0]:
        raise InputError(f"{what}: expected one name for each of the values of a row {shape}, got {len(names)}")
    return tuple(map(str, names))


def without_missing(rows: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Rows as the graphs see them: missing values filled, or such rows left out."""
    if spec.missing is None or rows.shape[1:] != spec.shape or rows.dtype.kind not in "fiub":
        return rows
    return rows[~missing_rows(rows, spec)] if spec.missing.fill is None else fill_missing(rows, spec)[0]


def as_numbers(
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


def as_samples(rows: NDArray[Any], spec: InputSpec, what: str) -> NDArray[Any]:
    """Finite rows of the model's shape and dtype, one or more.

    Raises:
        InputError: they are not.
    """
    if rows.shape[1:] != spec.shape or not len(rows):
        raise InputError(f"{what}: expected rows of shape {('n', *spec.shape)}, one or more, got {rows.shape}")
    if spec.dtype != "float32":
        limits = np.iinfo(spec.dtype)
        bad = np.argwhere((rows != np.rint(rows)) | (rows < limits.min) | (rows > limits.max))
        wanted = f"whole numbers from {limits.min} to {limits.max}"
    else:
        bad, wanted = np.argwhere(~(np.abs(rows) <= np.finfo(np.float32).max)), "finite numbers within float32"
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise InputError(f"{what}: expected {wanted}, got {rows[at]} in row {at[0]}, position {at[1:]}")
    return np.require(rows, spec.dtype, ("C", "W"))


def scaling_of(scaler: tuple[ArrayLike, ArrayLike], shape: tuple[int, ...]) -> Scaling:
    """Mean and scale in float32 that broadcast to a row of this shape."""
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


def check_facts(texts: Mapping[str, str | None], training: Mapping[str, Any] | None, spec: InputSpec) -> None:
    """What goes into the manifest as it is must be text and JSON."""
    for what, text in texts.items():
        if not isinstance(text, str | None):
            raise InputError(f"{what}: expected text, got {text!r:.80}")
    facts = {**texts, "features": spec.features, "units": spec.units, "dialect": spec.dialect, "training": training}
    facts |= {"signal": None if spec.signal is None else spec.signal.document()}
    for what, fact in facts.items():
        try:
            given = fact if fact is None or isinstance(fact, str | tuple) else dict(fact)
            json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"{what}: expected text, or JSON with finite numbers, got something else ({error})"
            ) from error


def raw_modules(
    encoder: nn.Module, decoder: nn.Module | None, scaling: Scaling, rows: NDArray[Any]
) -> tuple[RawEncoder, RawDecoder | None]:
    """Frozen copies of the caller's modules that take and give raw rows in float32."""
    given = torch.from_numpy(rows[:2])
    down = in_float32(frozen(RawEncoder(encoder, scaling)), lambda: given, "encoder")
    if decoder is None:
        return down, None
    up = frozen(RawDecoder(decoder, scaling))
    return down, in_float32(up, lambda: frozen(down)(given), "decoder")


def check_shapes(encoder: nn.Module, decoder: nn.Module | None, rows: NDArray[Any]) -> tuple[int, ...]:
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


def check_finite(reference: Reference, rows: NDArray[Any]) -> None:
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
