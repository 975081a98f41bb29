"""Affine quantisation: u8 activations, s8 weights, and raw input that is u8 already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aeedge_export.conversion.input_affine import one_value

Floats = NDArray[np.float32]

_STEPS, _PAIR = 127, 128
_WASTE = 1.1  # how much wider than its values a range may get by taking in 0, to save a subtraction


@dataclass(frozen=True)
class Affine:
    """value = scale * (byte - zero), with 0 <= zero <= 255."""

    scale: np.float32
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Affine:
        """The affine that covers `low` to `high` and represents 0 exactly, so that padding with zeros is exact."""
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = np.float32(max(high - low, 1e-30) / 255)
        return cls(scale, int(np.clip(np.rint(-low / scale), 0, 255)))

    def encode(self, values: Floats) -> NDArray[np.uint8]:
        """Bytes as QuantizeLinear makes them: rounded half to even, clipped."""
        steps = np.rint(np.asarray(values, np.float32) / self.scale) + self.zero
        return np.asarray(np.clip(steps, 0, 255), np.uint8)

    def decode(self, code: NDArray[np.uint8]) -> Floats:
        """Values as DequantizeLinear makes them."""
        return (code.astype(np.int32) - self.zero).astype(np.float32) * self.scale

    def rounded(self, values: Floats) -> Floats:
        """Values quantised and dequantised."""
        return self.decode(self.encode(values))


def quantized_weight(weight: Floats, axis: int, *, safe: bool = True) -> tuple[NDArray[np.int8], Floats]:
    """s8 values, symmetric, and the scale of each channel of `axis`; a channel of zeros gets scale 1.

    x86 without VNNI adds two products u8 * s8 in int16, which clips beyond 32767 (VPMADDUBSW). `safe` picks the finest
    scale at which no two weights that meet there can do so: same signs add up to at most 128.

    Args:
        weight: a Gemm's (2-D) or a Conv's (out, in, height, width).
        axis: the output channels.
        safe: False for the full range of -127 to 127 in every channel.
    """
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    if rows.ndim > 2:  # onnxruntime gathers patches channels last
        rows = np.moveaxis(rows, 1, -1)
    rows = rows.reshape(len(rows), -1)
    reach = np.abs(rows).max(axis=1) / _STEPS
    if safe:
        pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
        # both roundings may go up by half a step: 127 + 1 = 128
        reach = np.maximum(reach, np.abs(pairs.sum(axis=2) * (pairs.prod(axis=2) > 0)).max(axis=1) / (_PAIR - 1))
    scale = np.where(reach > 0, reach, 1.0).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return np.clip(np.rint(weight / scale.reshape(shape)), -_STEPS, _STEPS).astype(np.int8), scale


def fits_zero(low: float, high: float) -> bool:
    """Whether a range may take in 0 without becoming much coarser."""
    return max(high, 0.0) - min(low, 0.0) <= _WASTE * (high - low)


def centred(factor: float, offset: NDArray[np.float64]) -> tuple[Affine, NDArray[np.float64]]:
    """factor * byte + offset as an affine, its zero as near as can be, and the shift that is left."""
    scale = np.float32(factor)
    zero = int(np.clip(np.rint(-np.mean(offset) / factor), 0, 255))
    shift = np.atleast_1d(offset + factor * zero)
    return Affine(scale, zero), np.where(np.abs(shift) < 1e-6 * factor, 0.0, shift)


def sums(weight: Floats, axis: int, shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum that a constant input `shift` adds to each output channel."""
    one = one_value(shift)
    if one is not None:
        others = tuple(i for i in range(weight.ndim) if i != axis)
        return np.asarray(one * weight.astype(np.float64).sum(axis=others))
    matrix = weight.astype(np.float64) if axis == 0 else weight.astype(np.float64).T
    return np.asarray(matrix @ shift.ravel())
