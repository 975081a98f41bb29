"""Anomaly scores; exporter and `aeedge recalibrate` fit their parameters to normal samples, by numpy alone.

A score has up to two terms: the mean of squared residuals, and the mean of squared whitened latents. They are the SPE
and Hotelling's T² of process monitoring; their sum is the combined index of Yue and Qin, "Reconstruction-based fault
identification using a combined index" (2001). The samples must be others than those that calibrate the threshold: split
conformal prediction needs a score that does not depend on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeedge.bundle.manifest import ScoreSpec
from aeedge.errors import InputError
from aeedge.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.types import Block, Floats

LATENT_WEIGHT = 0.2  # of the latent term beside the residuals: 0.1 to 0.25 do as well, 1 is clearly worse
_NORMAL = 1.4826  # from the median absolute deviation to the standard deviation of a normal distribution
_LEAST_OF_RMS = 0.5  # residuals that are mostly small, with a few large ones, count no more than twice their RMS says
_LEAST = 0.1  # of the inputs' scale: pixels that are hardly ever used would rule otherwise
_LEAST_DEVIATION = 1e-3  # of a latent, relative to the largest
_KEPT = 0.75  # of the samples, for the second fit of the latents


_PARTS = {"both": ", or its parts robust, mahalanobis and mse", "mse": ""}


class Scoring(Record):
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

    def part(self, kind: str, input_scale: Floats) -> Scoring:
        """The score of another kind with the same parameters.

        Args:
            kind: "mse", the same kind, or a part of "both".
            input_scale: what residuals are divided by for "mse".

        Raises:
            InputError: a kind that has other parameters.
        """
        if kind == self.kind:
            return self
        if kind == "mse":
            return Scoring(kind, input_scale)
        if self.kind != "both" or kind not in ("robust", "mahalanobis"):
            raise InputError(
                f"score_kind: expected {self.kind!r}, for which it was trained{_PARTS.get(self.kind, ' or mse')}, "
                f"got {kind!r}; train again for that"
            )
        return Scoring(kind, self.scale) if kind == "robust" else self._replace(kind=kind)

    def weights(self) -> dict[str, Floats]:
        """What stands in scorer.onnx, by the names of its initializers: the parameters that are fitted."""
        found = {"score/scale": self.scale} if self.kind in ("robust", "both") else {}
        if self.mean is not None and self.whitening is not None:
            found |= {"score/mean": self.mean, "score/whitening": np.ascontiguousarray(self.whitening.T)}
        return found

    def scores(self, rows: Block, latent: Floats, reconstruction: Floats | None) -> Floats:
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


def fitted(
    kind: str, input_scale: NDArray[np.float32], rows: Block, latent: Floats, reconstruction: Floats | None
) -> Scoring:
    """A score whose parameters are those of normal samples.

    Args:
        kind: of `Scoring`.
        input_scale: scale of the inputs in raw units, broadcasts to one sample; it is the score's own where none is
            fitted.
        rows: raw samples (n, *shape), two or more.
        latent: theirs, (n, *latent_shape).
        reconstruction: theirs, (n, *shape); None where the score does not need it.
    """
    scale = input_scale
    if kind in ("robust", "both"):
        assert reconstruction is not None
        scale = residual_scale(rows.astype(np.float32) - reconstruction, scale)
    residuals = Scoring("robust", scale)
    if kind in ("mse", "robust"):
        return residuals._replace(kind=kind)
    mean, whitening = latent_whitening(latent.reshape(len(latent), -1))
    distance = Scoring("mahalanobis", scale, mean, whitening)
    if kind == "mahalanobis":
        return distance
    terms = (one.scores(rows, latent, reconstruction) for one in (residuals, distance))
    return Scoring("both", scale, mean, whitening * np.float32(latent_factor(*terms)))


def residual_scale(residual: Floats, input_scale: NDArray[np.float32]) -> Floats:
    """What residuals of normal samples are divided by, in raw units: robust, for some samples may be anomalous.

    Args:
        residual: x - reconstruction of samples, (n, *shape), in raw units.
        input_scale: scale of the inputs in raw units, broadcasts to one sample: one number, or one for each channel.

    Returns:
        One number for each value of a vector, (d,); of signals and images one for each entry of `input_scale`.
    """
    shape = residual.shape[1:] if residual.ndim == 2 else np.shape(input_scale)
    padded = (1,) * (residual.ndim - 1 - len(shape)) + shape
    axes = (0, *(i + 1 for i, size in enumerate(padded) if size == 1 and residual.shape[i + 1] != 1))
    absolute = np.abs(residual / np.asarray(input_scale, np.float64))
    robust = _NORMAL * np.median(absolute, axis=axes)
    spread = np.maximum(robust, _LEAST_OF_RMS * np.sqrt(np.square(absolute).mean(axis=axes)))
    return np.array(np.maximum(spread, _LEAST).reshape(shape) * input_scale, np.float32)


def latent_whitening(latents: Floats) -> tuple[Floats, Floats]:
    """Mean and whitening matrix of the latents of normal samples: the distance is ‖whitening · (z - mean)‖² / k.

    The covariance is shrunk as Ledoit and Wolf do ("A well-conditioned estimator for large-dimensional covariance
    matrices", 2004), and fitted again without the quarter of the samples that is farthest out: one concentration step
    of Rousseeuw and Van Driessen's FAST-MCD (1999), for some samples may be anomalous.

    Args:
        latents: (n, k), n of two or more.

    Returns:
        (k,) and (k, k), float32.
    """
    z = np.asarray(latents, np.float64)
    kept = np.ones(len(z), np.bool_)
    for _ in range(2):
        mean, deviation = z[kept].mean(axis=0), z[kept].std(axis=0)
        least = max(_LEAST_DEVIATION * deviation.max(), 1e-6 * max(1.0, np.abs(mean).max()))
        deviation = np.maximum(deviation, least)  # rounding in a dead latent is no anomaly
        covariance = ledoit_wolf((z[kept] - mean) / deviation)
        whitening = np.linalg.cholesky(np.linalg.inv(covariance)).T / deviation
        distance = np.square((z - mean) @ whitening.T).mean(axis=1)
        kept = distance <= np.quantile(distance, _KEPT)
    return mean.astype(np.float32), np.ascontiguousarray(whitening, np.float32)


def latent_factor(residual_term: NDArray[np.floating], latent_term: NDArray[np.floating]) -> float:
    """What a whitening matrix is multiplied by for the sum of both terms, (n,) each, to have its weights."""
    typical = float(np.median(residual_term)) / max(float(np.median(latent_term)), 1e-12)
    return float(np.sqrt(LATENT_WEIGHT * max(typical, 1e-12)))


def ledoit_wolf(standardised: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shrunk covariance (k, k) of samples (n, k) whose mean is 0."""
    n, k = standardised.shape
    covariance = standardised.T @ standardised / n
    mean = float(np.trace(covariance)) / k
    away = float(np.square(covariance).sum()) / k - mean**2  # squared distance from the mean times the identity, / k
    squares = np.square(standardised)
    noise = (float((squares.T @ squares).sum()) / n - float(np.square(covariance).sum())) / (n * k)
    shrinkage = 1.0 if away <= 0 else min(max(noise, 0.0), away) / away
    shrunk: NDArray[np.float64] = (1 - shrinkage) * covariance
    shrunk.flat[:: k + 1] += max(shrinkage * mean, 1e-6)
    return shrunk
