"""How samples are scored: kinds of anomaly scores, and their parameters as the training samples have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import SCORES, ScoreSpec
from aeedge.detection.scores import latent_factor, latent_whitening, residual_scale
from aeedge.errors import InputError

Floats = NDArray[np.float32]

_MOST_LATENTS, _MANY_LATENTS = 2048, 256  # whose distances are computed at all, and by default


@dataclass(frozen=True)
class Scoring:
    """An anomaly score: mean(((x - reconstruction) / scale)²) + mean((whitening · (latent - mean))²).

    Attributes:
        kind: "mse", "robust" (the first term), "mahalanobis" (the second), "both".
        scale: float32, in raw units, broadcasts to one sample.
        mean: of the latents of normal samples, flat, (k,) float32; None without the second term.
        whitening: (k, k) float32; None without the second term.
    """

    kind: str
    scale: Floats
    mean: Floats | None = None
    whitening: Floats | None = None

    @property
    def spec(self) -> ScoreSpec:
        """What a manifest says of it."""
        return ScoreSpec(self.kind, self.scale)

    @property
    def uses_residuals(self) -> bool:
        """Whether the first term is there."""
        return self.kind != "mahalanobis"

    @property
    def latent_gain(self) -> float:
        """How far a whitened latent moves at most where each latent moves by one; 0 without the second term."""
        return 0.0 if self.whitening is None else float(np.abs(self.whitening).sum(axis=1).max())

    def scores(self, rows: NDArray[Any], latent: Floats, reconstruction: Floats | None) -> Floats:
        """Scores (n,) of raw rows (n, *shape), their latents (n, *latent_shape) and reconstructions (n, *shape)."""
        with np.errstate(all="ignore"):  # extreme rows may exceed float32
            residual = None if reconstruction is None else (rows.astype(np.float32) - reconstruction) / self.scale
        return self.combined(residual, latent)

    def combined(self, residual: Floats | None, latent: Floats) -> Floats:
        """Scores (n,) of residuals (n, *shape) in units of `scale`, and latents (n, *latent_shape)."""
        total = np.zeros(len(latent))
        with np.errstate(all="ignore"):
            if self.uses_residuals:
                assert residual is not None
                total += np.square(residual.astype(np.float64)).reshape(len(total), -1).mean(axis=1)
            if self.mean is not None and self.whitening is not None:
                centred = (latent.reshape(len(total), -1) - self.mean).astype(np.float64)
                total += np.square(centred @ self.whitening.T.astype(np.float64)).mean(axis=1)
            return total.astype(np.float32)


def fit_scoring(
    kind: str,
    input_scale: Floats,
    rows: NDArray[Any],
    latent: Floats,
    reconstruction: Floats | None,
) -> Scoring:
    """A score whose parameters are those of normal samples.

    Args:
        kind: one of SCORES, or "auto" for the best that there is: "both", "robust" with many latents, "mahalanobis"
            without a decoder.
        input_scale: scale of the inputs, in raw units, that broadcasts to one sample.
        rows: raw samples (n, *shape) that had a say in training.
        latent: theirs, (n, *latent_shape).
        reconstruction: theirs, (n, *shape); None without a decoder.

    Raises:
        InputError: another kind, one that needs a decoder where there is none, or too many latents.
    """
    flat = latent.reshape(len(latent), -1)
    if kind == "auto":
        many = flat.shape[1] > _MANY_LATENTS
        kind = "mahalanobis" if reconstruction is None else "robust" if many else "both"
    if kind not in SCORES:
        raise InputError(f"score_kind: expected auto, {', '.join(SCORES)}, got {kind!r}")
    if reconstruction is None and kind != "mahalanobis":
        raise InputError(f"score_kind: {kind!r} needs a decoder; pass one, or use 'mahalanobis'")
    uses_latents = kind in ("mahalanobis", "both")
    if uses_latents and flat.shape[1] > _MOST_LATENTS:
        raise InputError(
            f"score_kind: {kind!r} compares up to {_MOST_LATENTS} latents, there are {flat.shape[1]}; use 'robust'"
        )
    scale = np.array(input_scale, np.float32)
    if reconstruction is not None and kind in ("robust", "both"):
        scale = residual_scale(rows.astype(np.float32) - reconstruction, scale)
    residuals = Scoring("robust", scale)
    if not uses_latents:
        return replace(residuals, kind=kind)
    mean, whitening = latent_whitening(flat)
    distance = Scoring("mahalanobis", scale, mean, whitening)
    if kind == "mahalanobis":
        return distance
    terms = (one.scores(rows, latent, reconstruction) for one in (residuals, distance))
    return Scoring("both", scale, mean, whitening * np.float32(latent_factor(*terms)))
