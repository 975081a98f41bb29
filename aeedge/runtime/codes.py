"""Latents as whole numbers of 8 or 4 bits, for narrow connections: rounded to even steps, and packed into bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.codes_spec import BITS, LEAST_ROWS, code_bytes
from aeedge.errors import IncompatibleBundleError, InputError
from aeedge.runtime.batch import BLOCK_BYTES, as_array
from aeedge.runtime.nonfinite import all_finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.bundle.codes_spec import CodeScale
    from aeedge.bundle.manifest import Manifest
    from aeedge.types import Floats

    Codes = NDArray[np.uint8]


def coder_of(manifest: Manifest, bits: int, path: str) -> Coder:
    """The coder of a bundle.

    Raises:
        InputError: another number of bits than there are codes for.
        IncompatibleBundleError: the bundle at `path` has none.
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or bits not in BITS:
        raise InputError(f"bits: expected {' or '.join(map(str, BITS))}, got {bits!r}")
    scale = None if manifest.codes is None else manifest.codes.scales.get(bits)
    if scale is None:
        raise IncompatibleBundleError(
            f"{path}: has no codes of {bits} bits; export it again, with this version of aeedge and {LEAST_ROWS} or "
            "more rows (example, calibration)"
        )
    return Coder(int(bits), scale, manifest.latent_shape, manifest.ordered)


class Coder:
    """Latents to codes and back, at one number of bits.

    Args:
        bits: 8 or 4.
        scale: low and step of the latents.
        shape: of one sample's latents.
        ordered: whether a prefix of the latents can be decoded.
    """

    def __init__(self, bits: int, scale: CodeScale, shape: tuple[int, ...], ordered: bool) -> None:
        self.bits, self._shape, self._ordered = bits, shape, ordered
        self._latents = math.prod(shape)
        self.width = code_bytes(self._latents, bits)
        self._low, self._step = (np.array(values, np.float64) for values in (scale.low, scale.step))
        self._block = max(1, BLOCK_BYTES // (8 * self._latents))  # rows

    def encode(self, latents: Floats, out: Codes | None = None, first: int = 0) -> Codes:
        """Codes of latents: (n, *latent_shape) to (n, width) uint8; `first` is the number of the first row.

        Raises:
            InputError: latents that are not finite, an `out` that does not fit.
        """
        single = latents.shape == self._shape
        rows = latents.reshape(-1, self._latents)
        codes = _target(out, (len(rows), self.width), single=single)
        for start in range(0, len(rows), self._block):
            block = rows[start : start + self._block]
            if not all_finite(block):
                row = int(np.argmin(np.isfinite(block).all(axis=1)))
                raise InputError(
                    f"encode: expected finite latents, which alone have codes, got others for row {first + start + row}"
                    "; are its values in raw units?"
                )
            codes[start : start + len(block)] = pack(quantize(block, self._low, self._step, self.bits), self.bits)
        if out is not None:
            return out
        return codes[0] if single else codes

    def decode(self, codes: ArrayLike) -> Floats:
        """Latents of codes: (n, width) uint8 to (n, *latent_shape) float32.

        Of ordered latents the first bytes are enough: (n, j) to (n, m), m the latents in j bytes.

        Raises:
            InputError: another dtype or shape, or bits beyond the last latent that are not 0.
        """
        given = self._checked(codes)
        rows = given.reshape(-1, given.shape[-1])
        count = min(self._latents, rows.shape[1] * 8 // self.bits)
        latents = np.empty((len(rows), count), np.float32)
        low, step = (values[:count] for values in (self._low, self._step))  # of a single one for all, that one
        for start in range(0, len(rows), self._block):
            part = unpack(rows[start : start + self._block], self.bits)
            if part[:, count:].any():
                row = start + int(np.argmax(part[:, count:].any(axis=1)))
                raise InputError(
                    f"decode: expected 0 in the last 4 bits of each row, as of {count} latents, got others in row {row}"
                    "; are these codes of this bundle, with bits=4?"
                )
            latents[start : start + len(part)] = dequantize(part[:, :count], low, step)
        shaped = latents.reshape(-1, *self._shape) if count == self._latents else latents
        return shaped[0] if given.ndim == 1 else shaped

    def _checked(self, codes: ArrayLike) -> Codes:
        given: NDArray[Any] = as_array(codes, "decode")
        width = self.width
        fits = given.ndim in (1, 2) and given.shape[-1] > 0
        is_known = fits and given.dtype == np.uint8
        if is_known and (given.shape[-1] == width or (self._ordered and given.shape[-1] < width)):
            return given
        expected = f"up to {width}" if self._ordered else f"{width}"
        other = {8: 4, 4: 8}[self.bits]
        hint = ""
        if is_known and given.shape[-1] == code_bytes(self._latents, other):
            hint = f"; codes of {other} bits have that width: pass bits={other}"
        raise InputError(
            f"decode: expected codes of {self.bits} bits, uint8 of {expected} bytes a sample, got {given.dtype} of "
            f"shape {given.shape}{hint}"
        )


def quantize(latents: NDArray[Any], low: NDArray[np.float64], step: NDArray[np.float64], bits: int) -> Codes:
    """Whole numbers of flat, finite latents (n, k): the nearest of low + step·c for c from 0 to 2**bits - 1.

    In float64, where nothing that float32 holds overflows.
    """
    codes: NDArray[np.float64] = np.subtract(latents, low, dtype=np.float64)
    codes /= step
    np.rint(codes, out=codes)
    np.clip(codes, 0, 2**bits - 1, out=codes)
    return codes.astype(np.uint8)


def dequantize(codes: NDArray[np.uint8], low: NDArray[np.float64], step: NDArray[np.float64]) -> Floats:
    """The latents that whole numbers (n, k) stand for, float32."""
    return (codes * step + low).astype(np.float32)


def pack(codes: Codes, bits: int) -> Codes:
    """Whole numbers (n, k) as bytes: with 4 bits two in a byte, the first one in the low half, a last half of 0."""
    if bits == 8:
        return codes
    packed = codes[:, ::2].copy()
    packed[:, : codes.shape[1] // 2] |= codes[:, 1::2] << 4
    return packed


def unpack(packed: Codes, bits: int) -> Codes:
    """Bytes as whole numbers: (n, b) to (n, b) with 8 bits, (n, 2·b) with 4."""
    if bits == 8:
        return packed
    codes = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    np.bitwise_and(packed, 15, out=codes[:, ::2])
    np.right_shift(packed, 4, out=codes[:, 1::2])
    return codes


def _target(out: Codes | None, shape: tuple[int, int], *, single: bool) -> Codes:
    """An array for codes, (n, width): the caller's if there is one."""
    if out is None:
        return np.empty(shape, np.uint8)
    if type(out) is np.ndarray and out.dtype == np.uint8 and out.flags.writeable:
        if out.shape == shape:
            return out
        if single and out.shape == shape[1:]:
            return out[np.newaxis]
    got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
    raise InputError(f"out: expected a writable uint8 array of shape {shape}, got {got}")
