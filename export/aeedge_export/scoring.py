"""How samples are scored: kinds of anomaly scores, and their parameters as normal samples have them.

A score has up to two terms: the mean of squared residuals, and the mean of squared whitened latents. They are the SPE
and Hotelling's T² of process monitoring; their sum is the combined index of Yue and Qin, "Reconstruction-based fault
identification using a combined index" (2001). The parameters are fitted to samples that the network was trained with,
never to those that calibrate the threshold: split conformal prediction needs a score that does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from aeedge.bundle.manifest import SCORES, ScoreSpec
from aeedge.errors import InputError

Floats = NDArray[np.float32]

DEFAULT = "robust"
_FLOOR = (
    1e-3  # of the largest residual scale in units of the inputs' own: a value that is copied exactly counts no more
)


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
        total = np.zeros(len(rows))
        with np.errstate(all="ignore"):  # extreme rows may exceed float32
            if self.uses_residuals:
                assert reconstruction is not None
                difference = (rows.astype(np.float32) - reconstruction) / self.scale
                total += np.square(difference.astype(np.float64)).reshape(len(rows), -1).mean(axis=1)
            if self.mean is not None and self.whitening is not None:
                centred = (latent.reshape(len(rows), -1) - self.mean).astype(np.float64)
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
        kind: one of SCORES.
        input_scale: scale of the inputs, in raw units, that broadcasts to one sample.
        rows: raw samples (n, *shape) that had a say in training.
        latent: theirs, (n, *latent_shape).
        reconstruction: theirs, (n, *shape); None without a decoder.

    Raises:
        InputError: another kind, or one that needs a decoder where there is none.
    """
    if kind not in SCORES:
        raise InputError(f"score_kind: expected {', '.join(SCORES)}, got {kind!r}")
    if reconstruction is None and kind != "mahalanobis":
        raise InputError(f"score_kind: {kind!r} needs a decoder; pass one, or use 'mahalanobis'")
    scale = np.asarray(input_scale, np.float32)
    if kind in ("robust", "both"):
        assert reconstruction is not None
        scale = _residual_scale(rows.astype(np.float32) - reconstruction, scale)
    if kind in ("mse", "robust"):
        return Scoring(kind, scale)
    mean, whitening = _whitening(latent.reshape(len(latent), -1).astype(np.float64))
    return Scoring(kind, scale, mean, whitening)


def _residual_scale(residual: Floats, input_scale: Floats) -> Floats:
    """The root mean square of each value's residuals, one for each entry of the inputs' own scale, (…) in raw units."""
    shape = residual.shape[1:] if residual.ndim == 2 else np.shape(input_scale)
    axes = _reduced(residual.shape, shape)
    found = np.sqrt(np.square(residual.astype(np.float64)).mean(axis=axes)).reshape(shape)
    relative = found / input_scale
    floored = np.maximum(relative, max(_FLOOR * float(relative.max()), 1e-12))
    scale: Floats = (input_scale * floored).astype(np.float32)
    return scale


def _reduced(rows: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of rows (n, …) that a scale of this shape, which broadcasts to a row, does not have."""
    padded = (1,) * (len(rows) - 1 - len(shape)) + shape
    return (0, *(i + 1 for i, size in enumerate(padded) if size == 1 and rows[i + 1] != 1))


def _whitening(latents: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Mean and whitening matrix of latents (n, k), the covariance shrunk as Ledoit and Wolf do (2004)."""
    fitted = LedoitWolf().fit(latents)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    values = np.maximum(values, 1e-6 * max(values.max(), 1e-30))
    return fitted.location_.astype(np.float32), (vectors / np.sqrt(values)).T.astype(np.float32)
