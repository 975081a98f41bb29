"""Steps of the codes of latents: chosen by reconstructions, and judged by those of other rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.codes_spec import BITS, LEAST_ROWS, CodeScale, CodesSpec
from aeedge.runtime.codes import dequantize, quantize
from aeedge_export.quantization.encoder_decoder import EncoderDecoder

Floats = NDArray[np.float32]

_ROWS, _VALUES, _BYTES = 2048, 2**22, 2**26  # most rows, latents of them, bytes of them
_MOST_SCALES = 4096  # latents with steps of their own; of more, most of a manifest would be steps
_WIDTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)  # of the range of codes, as a share of the latents'
_LARGEST = 1e37  # latents, whose range float32 holds then
_ALIKE = 1.005  # errors that far apart are no reason to cut off more of the latents


def code_scales(variants: Mapping[str, EncoderDecoder], rows: NDArray[Any]) -> CodesSpec | None:
    """Codes of the latents of fp32, which all variants share, and what they cost each variant.

    Half of the rows say which range the latents have, by a quarter it is chosen how much of that range the codes cover,
    and on the last quarter errors are measured.

    Args:
        variants: "fp32", and others.
        rows: raw rows (n, *input_shape).

    Returns:
        None for fewer than LEAST_ROWS rows, or where something is not finite or nearly so.
    """
    if len(rows) < LEAST_ROWS:
        return None
    fp32 = variants["fp32"]
    rows = _some(rows, fp32.latents_and_errors(rows[:1])[0].size)
    latents, ends = _flat(fp32.latents_and_errors(rows)[0]), (len(rows) // 2, 3 * len(rows) // 4)
    if not np.abs(latents).max() < _LARGEST:
        return None
    found, others, _ = np.split(latents, ends)
    _, choosing, judging = np.split(rows, ends)
    scales = {}
    with np.errstate(all="ignore"):  # what is not finite then is found below
        for bits in BITS:
            low, step = choose_steps(found, others, bits, lambda z: fp32.decoded_errors(choosing, z))
            scales[bits] = _judged(variants, judging, low, step, bits)
    costs = [cost for scale in scales.values() for cost in (scale.latent_error, *scale.error_ratio.values())]
    return CodesSpec(len(judging), scales) if np.isfinite(costs).all() else None


def choose_steps(
    latents: Floats, others: Floats, bits: int, errors: Callable[[Floats], Floats | None]
) -> tuple[Floats, Floats]:
    """Low and step of each latent, (k,), or (1,) for all of more than 4 096.

    The range of a latent is its least to its largest value, times a width about its median: below 1 the extremes are
    cut off so that steps are finer, above 1 there is room for what comes. One width for all latents, the widest of
    those whose error is next to the smallest.

    Args:
        latents: flat latents (n, k) whose range counts.
        others: of other rows (m, k), by which the width is chosen.
        bits: of a code.
        errors: of the other rows' reconstructions from these latents, (m,); None for the error of the latents.
    """
    z = latents if latents.shape[1] <= _MOST_SCALES else latents.reshape(-1, 1)
    least, most, middle = z.min(axis=0), z.max(axis=0), np.median(z, axis=0)
    found = []
    for width in _WIDTHS:
        low, step = _steps(middle + width * (least - middle), middle + width * (most - middle), bits)
        rounded = _rounded(others, low, step, bits)
        error = errors(rounded)
        mean = np.mean(np.square(rounded - others) if error is None else error, dtype=float)
        found.append((low, step, float(np.nan_to_num(mean, nan=np.inf))))
    limit = _ALIKE * min(error for _, _, error in found)
    return next((low, step) for low, step, error in reversed(found) if error <= limit)


def _steps(low: Floats, high: Floats, bits: int) -> tuple[Floats, Floats]:
    """Of a latent that is always the same the smallest step that float32 has there."""
    least = np.maximum(np.spacing(np.maximum(np.abs(low), np.abs(high))), np.finfo(np.float32).tiny)
    return low, np.maximum((high - low) / np.float32(2**bits - 1), least)


def _rounded(latents: Floats, low: Floats, step: Floats, bits: int) -> Floats:
    """Flat latents (n, k) as codes give them back."""
    wide, fine = low.astype(np.float64), step.astype(np.float64)
    return dequantize(quantize(latents, wide, fine, bits), wide, fine)


def _judged(
    variants: Mapping[str, EncoderDecoder], rows: NDArray[Any], low: Floats, step: Floats, bits: int
) -> CodeScale:
    """Steps with what they cost each variant on these rows."""
    ratios, latent_error = {}, 0.0
    for name, variant in variants.items():
        shaped, _ = variant.latents_and_errors(rows)
        latents = _flat(shaped)
        rounded = _rounded(latents, low, step, bits)
        errors, plain = (variant.decoded_errors(rows, z) for z in (rounded, latents))
        if name == "fp32":
            around = np.sqrt(np.mean(np.square(latents - latents.mean(axis=0)), dtype=float))
            latent_error = float(np.sqrt(np.mean(np.square(rounded - latents), dtype=float)) / max(around, 1e-30))
        if errors is not None and plain is not None:
            ratios[name] = _short(errors.mean(dtype=float) / max(plain.mean(dtype=float), 1e-30))
    return CodeScale(_decimals(low), _decimals(step), _short(latent_error), ratios)


def _some(rows: NDArray[Any], latents: int) -> NDArray[Any]:
    """Rows in random order, as many as memory and time allow."""
    most = min(_ROWS, _VALUES // latents, _BYTES // rows[0].nbytes)
    return rows[np.random.default_rng(0).permutation(len(rows))[: max(LEAST_ROWS, most)]]


def _flat(latents: Floats) -> Floats:
    return latents.reshape(len(latents), -1)


def _decimals(values: Floats) -> tuple[float, ...]:
    """float32 values as the shortest decimals that read back to the same float32."""
    return tuple(float(str(value)) for value in values)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
