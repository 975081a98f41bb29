"""Accept a bundle: `aeedge` itself loads it, and must say what torch says.

The reference is torch on the CPU in float32. Rows agree when their largest error is at most
`tolerance * (typical magnitude of that output + the row's own magnitude)`; reconstructions are compared as residuals,
in scaled units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import aeedge
from aeedge.bundle.manifest import InputSpec, ScoreSpec, Tolerance
from aeedge.errors import VerificationError
from aeedge.runtime.missing import missing_values
from aeedge.verification import deviation
from aeedge_export.conversion.graph import Scaling

BATCHES = (1, 2, 7, 257)
GOLDEN_ROWS = 16
_INTEGER_TOLERANCE = 1e-5
_BEYOND = 10.0  # how far outside the example's range extreme rows lie, in ranges


def extreme_rows(example: NDArray[Any]) -> NDArray[Any]:
    """Six rows at and beyond the edges: all values at their least, most, middle, zero, and far outside both ends.

    Args:
        example: raw rows (n, *shape); the rows are of its dtype, clipped to what it holds.
    """
    low, high = example.min(axis=0).astype(np.float64), example.max(axis=0).astype(np.float64)
    reach = _BEYOND * np.maximum(high - low, 1e-3 * np.maximum(np.abs(high), np.abs(low)))
    rows = np.stack([low, high, (low + high) / 2, np.zeros_like(low), low - reach, high + reach])
    if example.dtype.kind in "iu":
        limits = np.iinfo(example.dtype)
        rows = np.clip(np.rint(rows), limits.min, limits.max)
    limit = np.finfo(np.float32).max
    edge: NDArray[Any] = np.clip(rows, -limit, limit).astype(example.dtype)
    return edge


def trial_rows(example: NDArray[Any]) -> NDArray[Any]:
    """Exactly 257 rows: extreme ones, then the example's, repeated as often as needed."""
    edge = extreme_rows(example)
    return np.concatenate([edge, example[np.arange(max(BATCHES) - len(edge)) % len(example)]])


def without_codes(rows: NDArray[Any], plain: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Rows with the values of `plain`, a row without, where they have codes of missing values: no graph sees those."""
    return rows if spec.missing is None else np.where(missing_values(rows, spec), plain, rows)


def golden_rows(example: NDArray[Any]) -> NDArray[Any]:
    """Sixteen rows to record in the bundle: extreme ones, then rows spread over the example."""
    edge = extreme_rows(example)
    spread = np.linspace(0, len(example) - 1, GOLDEN_ROWS - len(edge)).astype(int)
    return np.concatenate([edge, example[spread]])


class Reference:
    """What torch says: `encoder` and `decoder` take and give raw rows."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None, scale: NDArray[np.float32]) -> None:
        self._encoder, self._decoder, self._scale = encoder, decoder, scale

    def outputs(self, rows: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Latents (n, *latent_shape), and with a decoder reconstructions (n, *shape) and scores (n,) of raw rows."""
        with torch.inference_mode():
            latent = self._encoder(torch.from_numpy(np.array(rows)))
            found = {"latent": latent.numpy()}
            if self._decoder is not None:
                found["reconstruction"] = self._decoder(latent).numpy()
        if "reconstruction" in found:
            with np.errstate(all="ignore"):  # extreme rows may exceed float32
                difference = (rows.astype(np.float32) - found["reconstruction"]) / self._scale
                squares = np.square(difference.astype(np.float64)).reshape(len(rows), -1)
                found["score"] = squares.mean(axis=1).astype(np.float32)
        return found


def tolerances(reference: Reference, example: NDArray[Any], scaling: Scaling, tolerance: float) -> dict[str, Tolerance]:
    """Tolerances by output, from its typical magnitude (root mean square) over the example.

    Nothing can be more exact than float32 inputs are: latents also get what changes when inputs move by their last
    digit, reconstructions four steps of float32 at the largest raw value. A score is a square, so it inherits twice its
    residual's error.
    """
    found = reference.outputs(example)
    last_digit = 4 * _last_digit(reference, example, found["latent"])
    result = {"latent": Tolerance(rtol=tolerance, atol=_round(tolerance * _rms(found["latent"]) + last_digit))}
    if "reconstruction" in found:
        scaled = found["reconstruction"] / scaling.scale
        step = 4 * 2.0**-23 * float(np.max(np.abs(example.astype(np.float64)) / scaling.scale))
        error = tolerance * _rms(scaled - scaling.mean / scaling.scale) + step
        result["reconstruction"] = Tolerance(rtol=tolerance, atol=_round(error))
        score = _rms(found["score"])
        atol = tolerance * score + 2 * np.sqrt(score) * step + error**2
        result["score"] = Tolerance(rtol=10 * tolerance, atol=_round(float(atol)))
    return result


def accept(path: Path, reference: Reference, example: NDArray[Any], name: str) -> None:
    """Load the bundle at `path` with aeedge and compare it with torch at batches of 1, 2, 7 and 257.

    Raises:
        VerificationError: an output differs; the message names output, batch, row and tolerance.
    """
    with aeedge.load(path, variant="fp32", threads=1, check="golden") as model:
        rows = without_codes(trial_rows(example), example[0], model.input)
        expected = reference.outputs(rows)
        calls = {"latent": model.encode, "reconstruction": model.denoise, "score": model.score}
        allowed = model.manifest.variants["fp32"].tolerance
        for what, values in expected.items():
            for batch in BATCHES:
                parts = [calls[what](rows[start : start + batch]) for start in range(0, len(rows), batch)]
                got = np.concatenate(parts)
                found = deviation(what, rows, got, values, allowed[what], model.manifest.score)
                if not found.ok:
                    kind = "extreme " if found.row < len(rows) - 251 else ""
                    raise VerificationError(
                        f"{name}: not exported, aeedge and torch disagree: at batch {batch} the {found} ({kind}row "
                        f"of 257); find the layer that onnxruntime computes differently, or raise the tolerance"
                    )


def integer_tolerances(
    fp32: Mapping[str, Tolerance],
    outputs: Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]],
    rows: NDArray[Any],
    score: ScoreSpec,
    elsewhere: Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]] | None,
) -> dict[str, Tolerance]:
    """Tolerances of an int8 variant against itself on another machine.

    Integers are the same everywhere; what is left is the rounding of the last scaling to float32, and where float
    layers come before integer ones, a last digit that decides between two steps: measured by moving the input by one,
    by giving the rows one by one, which float layers sum in another order, and by moving the weights.

    Args:
        fp32: tolerances of fp32.
        outputs: of the variant, by name.
        rows: raw rows (n, *shape) to measure with.
        score: how rows are scored.
        elsewhere: `outputs` with the weights of float layers moved by a last digit; None without float layers.
    """
    found = outputs(rows)
    others = [_one_by_one(outputs, rows)] + ([] if elsewhere is None else [elsewhere(rows)])
    if rows.dtype.kind == "f":
        others += [outputs(np.nextafter(rows, rows.dtype.type(end))) for end in (-np.inf, np.inf)]
    exactly = Tolerance(rtol=0.0, atol=0.0)
    flips = {
        what: max(deviation(what, rows, other[what], values, exactly, score).error for other in others)
        for what, values in found.items()
    }
    latent = Tolerance(rtol=_INTEGER_TOLERANCE, atol=_INTEGER_TOLERANCE * _rms(found["latent"]))
    return {
        what: Tolerance(rtol=base.rtol, atol=_round(base.atol + flips[what]))
        for what, base in {**fp32, "latent": latent}.items()
    }


def _one_by_one(
    outputs: Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]], rows: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    parts = [outputs(rows[i : i + 1]) for i in range(len(rows))]
    return {what: np.concatenate([part[what] for part in parts]) for what in parts[0]}


def accept_integer(path: Path, example: NDArray[Any], name: str, *, exact: bool) -> None:
    """Load the int8 variant with aeedge: golden rows, and latents that do not depend on the batch.

    Args:
        path: the bundle.
        example: raw rows (n, *shape).
        name: of the bundle, for messages.
        exact: whether latents must be equal to the bit; else within the variant's tolerance, for float layers sum in an
            order that depends on the batch.

    Raises:
        VerificationError: a row's latent depends on its neighbours, or the golden rows are not reproduced.
    """
    with aeedge.load(path, variant="int8", threads=1, check="golden") as model:
        rows = without_codes(trial_rows(example), example[0], model.input)
        if model.variant != "int8":
            raise VerificationError(f"{name}: int8 does not reproduce its own golden rows here")
        allowed = None if exact else model.manifest.variants["int8"].tolerance["latent"]
        check_batch_invariance(model.encode, rows, name, allowed)


def check_batch_invariance(
    encode: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[Any], name: str, allowed: Tolerance | None = None
) -> None:
    """A row's latent must not depend on its batch: equal to the bit, or within `allowed`, at 1, 2, 7 and 257 rows.

    Raises:
        VerificationError: it does, as after dynamic quantisation, whose steps follow the batch's range.
    """
    whole = encode(rows)
    for batch in BATCHES:
        parts = np.concatenate([encode(rows[start : start + batch]) for start in range(0, len(rows), batch)])
        found = deviation(
            "latent", rows, parts, whole, allowed or Tolerance(0.0, 0.0), ScoreSpec("mse", np.ones((), np.float32))
        )
        if not found.ok:
            raise VerificationError(
                f"{name}: the int8 latent of row {found.row} changes with its neighbours: at batch {batch} it differs "
                f"by {found.error:.2g}, allowed is {found.allowed:.2g}; dynamic quantisation does that"
            )


def _last_digit(reference: Reference, example: NDArray[Any], latent: NDArray[np.float32]) -> float:
    """Largest change of a latent when inputs are moved up or down by float32's resolution; 0 for integer inputs."""
    if example.dtype.kind != "f":
        return 0.0
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), example.shape)
    moved = reference.outputs((example * (1 + signs * np.float32(2**-23))).astype(np.float32))["latent"]
    return float(np.abs(moved.astype(np.float64) - latent).max())


def _rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _round(value: float) -> float:
    """Three digits are plenty for a tolerance, and read better in the manifest; rounded up."""
    return float(f"{value * 1.005:.2e}")
