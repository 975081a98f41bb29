"""What a bundle's score is on normal samples: its parameters, and the scores themselves."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from aeedge.bundle.reader import Bundle
from aeedge.detection.scores import Scoring, fitted
from aeedge.errors import IncompatibleBundleError, InputError, VerificationError
from aeedge.loading import load

if TYPE_CHECKING:
    from aeedge.model import Model
    from aeedge.types import Block, Floats

WHAT = "normal_rows"
LEAST_FIT = 20  # samples that fit a score
_FIT_PER_LATENT = 10
_BLOCK = 256  # samples at a time


def check_score(source: Bundle, fits: bool) -> None:
    """Refuse a bundle that has no score, or none that can be fitted.

    Raises:
        IncompatibleBundleError: it is such a bundle.
    """
    kind, variants = source.manifest.score.kind, source.manifest.variants.values()
    if any(variant.decoder is None for variant in variants) and kind != "mahalanobis" and (fits or kind != "both"):
        what = f"the score {kind!r} needs a decoder" + (" to be fitted" if kind == "both" else "")
        raise IncompatibleBundleError(
            f"{source.path}: {what}, but the bundle has only an encoder; "
            + ("pass keep_score=True" if kind == "both" else "export it with its decoder, or another score")
        )


def fit_count(count: int, latents: int) -> int:
    """How many of so many samples fit a score: a quarter, up to a third where there are many latents."""
    return min(max(count // 4, _FIT_PER_LATENT * latents), count // 3)


def opened(path: str, variant: str, allow_ops: Collection[str]) -> Model | str:
    """A variant; a message where it is not right on this machine."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = load(path, variant=variant, allow_ops=allow_ops)
        except VerificationError as error:
            return str(error)
    if model.variant == variant:
        return model
    model.close()
    return str(caught[-1].message)


def fitted_score(model: Model, rows: Block) -> Scoring:
    """The bundle's score with the parameters that it has on these rows."""
    spec = model.manifest.score
    back = model.reconstruct(rows) if spec.kind != "mahalanobis" else None
    latent, rows = model.encode(rows), _seen(model, rows)
    found = None
    if np.isfinite(latent).all() and (back is None or np.isfinite(back).all()):
        found = fitted(spec.kind, spec.scale, rows, latent, back)
    if found is None or not all(np.isfinite(values).all() for values in (found.scale, *found.weights().values())):
        raise InputError(f"{WHAT}: the network gives numbers beyond float32 for some rows; are they in raw units?")
    return found


def scored(model: Model, scoring: Scoring | None, rows: Block) -> Floats:
    """Scores (n,) of rows: with these parameters, or the bundle's own."""
    if scoring is None:
        return model.score(rows)
    found = []
    for block in (rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)):
        back = model.reconstruct(block) if scoring.uses_residuals else None
        found.append(scoring.scores(_seen(model, block), model.encode(block), back))
    return np.concatenate(found)


def _seen(model: Model, rows: Block) -> Block:
    """What reconstructions are compared with: the samples, or the features that a front end makes of them."""
    return rows if model.manifest.front_end is None else model.features(rows)
