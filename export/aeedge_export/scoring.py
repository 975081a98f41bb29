"""How samples are scored: kinds of anomaly scores, and their parameters as the training samples have them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import SCORES
from aeedge.detection.scores import Scoring, fitted
from aeedge.errors import InputError

Floats = NDArray[np.float32]

_MOST_LATENTS, _MANY_LATENTS = 2048, 256  # whose distances are computed at all, and by default


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
    check_kind(kind, flat.shape[1])
    return fitted(kind, np.array(input_scale, np.float32), rows, latent, reconstruction)


def check_kind(kind: str, latents: int) -> None:
    """Refuse a kind of score that compares latents where there are too many, before the training.

    Raises:
        InputError: it does.
    """
    if kind in ("mahalanobis", "both") and latents > _MOST_LATENTS:
        raise InputError(
            f"score_kind: {kind!r} compares up to {_MOST_LATENTS} latents, there are {latents}; use 'robust'"
        )
