"""The quality of a run: reconstruction against PCA with as many latents, and signs of collapsed latents.

Computed at the end of training, when the rows are at hand, and kept with the run for its report.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from aeedge.errors import InputError
from aeedge_export.data.labels import UNLABELLED, as_classes
from aeedge_export.data.rows import fingerprint
from aeedge_export.data.shards import Shards
from aeedge_export.networks.base import multiply_adds
from aeedge_export.reporting import features
from aeedge_export.reporting.detection import detection
from aeedge_export.run import Run

_TRAIN_ROWS, _TEST_ROWS = 5000, 2000
_EXACT = 1e-10  # of the variance: an error of PCA below it is rounding
_ALIVE = 1e-4  # of the largest variance; a latent below it is dead
_MOST_CLASSES = 50


def evaluate(run: Run, X: NDArray[Any], labels: ArrayLike | None = None) -> dict[str, Any]:
    """Compare a run with PCA on the rows that it was fitted to and those it held out.

    Args:
        run: a trained run.
        X: the rows it was fitted to, (n, ...).
        labels: a class for each row, for linear probe and k-means; training does not use them.

    Returns:
        "baseline": a list of two dicts, the network and PCA, with "error" (mean squared, in scaled units, on held-out
        rows, or on training rows where none were held out; 0 where PCA is exact up to rounding), "parameters",
        "multiply_adds" (to encode and decode one row) and with labels "probe" and "kmeans"; "health": see `health`;
        "data": shape, dtype and fingerprint; "rows_compared": number of rows that the errors were measured on, and
        "held_out" whether the training had not seen them; "variance": of these rows, in scaled units; "features": see
        `aeedge_export.reporting.features.errors`;
        "detection": see `aeedge_export.reporting.detection.detection`.

    Raises:
        InputError: other rows, or labels of another length.
    """
    classes = None if labels is None else as_classes(labels, len(X))
    found = fingerprint(X, run.dtype)
    if run.fingerprint not in (None, found):
        raise InputError(
            "evaluate: expected the rows that were fitted, since PCA is fitted to the same ones and compared on those "
            f"that were held out, got others ({len(X)} rows of {run.rows}); for these use reconstruction_error"
        )
    parts = run.split(len(X))
    train, test = parts[:2]
    train, test = _subset(train, _TRAIN_ROWS), _subset(test if len(test) else train, _TEST_ROWS)
    if isinstance(X, Shards):
        X.hold(np.concatenate([train, test]))
    fitted, flat = (run.scaler(run.extract(X[part])).reshape(len(part), -1) for part in (train, test))
    latent = min(run.design.latent, len(train), run.design.size)
    with np.errstate(invalid="ignore"):  # explained shares of rows without variance
        pca = PCA(latent, svd_solver="auto", random_state=0).fit(fitted)
    codes = [(run.encode(X[train]), run.encode(X[test])), (pca.transform(fitted), pca.transform(flat))]
    reconstructed = [
        run.scaler(run.decode(codes[0][1])).reshape(len(flat), -1),
        pca.inverse_transform(codes[1][1]),
    ]
    weights = latent * flat.shape[1]
    sizes = [
        {"parameters": parameters(run.network), "multiply_adds": multiply_adds(run.network)},
        {"parameters": 2 * weights + flat.shape[1], "multiply_adds": 2 * weights},
    ]
    variance = float(flat.var(axis=0).mean())
    baseline = []
    for name, code, back, size in zip((run.family, "PCA"), codes, reconstructed, sizes):
        error = float(np.square(flat - back).mean())
        exact = name == "PCA" and error <= _EXACT * variance
        row: dict[str, Any] = {"name": name, "error": 0.0 if exact else error}
        if classes is not None:
            row |= _usefulness(code, (classes[train], classes[test]))
        baseline.append(row | size)
    return {
        "baseline": baseline,
        "health": health(codes[0][0]),
        "data": found,
        "rows_compared": len(test),
        "held_out": bool(len(parts.validation)),
        "variance": variance,
        "features": features.errors(run, *(np.square(flat - back).mean(axis=0) for back in reconstructed)),
        "detection": detection(run, X, classes, None if classes is None else _others(len(X), parts.fitted)),
    }


def against_pca(run: Run) -> str:
    """The comparison of `evaluate` in a few words; where the recipe gave some of the error away, what for."""
    network, pca = (entry["error"] for entry in run.evaluation["baseline"])
    if pca == 0:
        return f"{network:.3g}; PCA is exact here"
    found = f"{network / pca:.2f}× that of PCA"
    recipe = "this recipe trades reconstruction for anomaly scores; for compression: goal='compress'"
    return f"{found}: {recipe}" if trades_error(run) else found


def trades_error(run: Run) -> bool:
    """Whether the error is above PCA's because the recipe for anomaly detection trains with noise."""
    network, pca = (entry["error"] for entry in run.evaluation["baseline"])
    detects = run.params.get("goal") == "detect" and run.params["noise"] == "auto"
    return bool(network > pca and detects and run.noise)


def health(latents: NDArray[np.float32]) -> dict[str, Any]:
    """Signs of a collapsed latent space.

    Args:
        latents: (n, k).

    Returns:
        "variance": of each latent; "dead": number of latents with a variance below 1e-4 of the largest;
        "effective_rank": the exponential of the entropy of the covariance's eigenvalues (Roy and Vetterli 2007);
        "active": the share of values above 1e-3 of the largest.
    """
    latents = np.asarray(latents, np.float64)
    variance = latents.var(axis=0)
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(latents, rowvar=False))).clip(min=0)
    shares = values[values > 0] / max(values.sum(), 1e-300)
    most = max(float(np.abs(latents).max()), 1e-300)
    return {
        "variance": [float(f"{v:.4g}") for v in variance],
        "dead": int((variance <= _ALIVE * max(float(variance.max()), 1e-300)).sum()),
        "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0,
        "active": float((np.abs(latents) > 1e-3 * most).mean()),
    }


def _usefulness(code: tuple[NDArray[Any], NDArray[Any]], labels: tuple[NDArray[Any], NDArray[Any]]) -> dict[str, float]:
    """Accuracy of a linear probe on held-out rows, and agreement of k-means with the labels."""
    found = {}
    known = [part != UNLABELLED if part.dtype.kind == "U" else np.ones(len(part), np.bool_) for part in labels]
    (code, labels) = ((code[0][known[0]], code[1][known[1]]), (labels[0][known[0]], labels[1][known[1]]))
    count = len(np.unique(labels[0])) if len(labels[1]) else 0
    if 2 <= count <= _MOST_CLASSES:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(code[0], labels[0])
        found["probe"] = float(probe.score(code[1], labels[1]))
        groups = KMeans(count, n_init=10, random_state=0).fit(code[0]).predict(code[1])
        found["kmeans"] = float(adjusted_mutual_info_score(labels[1], groups))
    return found


def parameters(network: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in network.parameters())


def _others(count: int, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices below `count` that are not among `rows`."""
    return np.setdiff1d(np.arange(count), rows)


def _subset(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    chosen: NDArray[np.intp] = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return chosen
