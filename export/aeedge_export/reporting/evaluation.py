"""What a trained run is worth: against PCA with as many latents, and whether its latents are alive.

Computed at the end of training, when the rows are at hand, and kept with the run for its report.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from aeedge.errors import InputError
from aeedge_export.data.rows import split

if TYPE_CHECKING:
    from aeedge_export.autoencoder import Autoencoder

_TRAIN_ROWS, _TEST_ROWS = 5000, 2000
_ALIVE = 1e-4  # of the largest variance; below, a latent carries nothing
_MOST_CLASSES = 50


def evaluate_run(ae: Autoencoder, X: NDArray[Any], labels: ArrayLike | None = None) -> dict[str, Any]:
    """Compare a fitted estimator with PCA on the rows that it was fitted to and the ones it held out.

    Args:
        ae: a fitted estimator.
        X: the rows it was fitted to, (n, ...).
        labels: a class for each row, for linear probe and k-means; they are not learned from.

    Returns:
        "referee": a table of both; "health" of the latents; "data": shape, dtype and fingerprint. Errors are of
        held-out rows (of training rows where none were held out), mean squared in scaled units.

    Raises:
        InputError: labels of another length.
    """
    classes = None if labels is None else np.asarray(labels)
    if classes is not None and classes.shape != (len(X),):
        raise InputError(f"labels: expected one for each of the {len(X)} rows, got an array of shape {classes.shape}")
    train, test = split(len(X), ae.validation, ae.seed_)
    train, test = _some(train, _TRAIN_ROWS), _some(test if len(test) else train, _TEST_ROWS)
    seen, flat = (ae.scaler_(X[part]).reshape(len(part), -1) for part in (train, test))
    latent = min(ae.design_.latent, len(train), ae.design_.size)
    pca = PCA(latent, svd_solver="auto", random_state=0).fit(seen)
    codes = [(ae._encode(X[train]), ae._encode(X[test])), (pca.transform(seen), pca.transform(flat))]
    ours = ae.scaler_(ae._decode(codes[0][1])).reshape(len(flat), -1)
    backs = [ours, pca.inverse_transform(codes[1][1])]
    referee = []
    for name, code, back in zip((ae.family, "PCA"), codes, backs):
        row: dict[str, Any] = {"name": name, "error": float(np.square(flat - back).mean())}
        if classes is not None:
            row |= _usefulness(code, (classes[train], classes[test]))
        referee.append(row)
    referee[0] |= {"parameters": parameters(ae.network_), "multiply_adds": multiply_adds(ae)}
    referee[1] |= {
        "parameters": 2 * latent * flat.shape[1] + flat.shape[1],
        "multiply_adds": 2 * latent * flat.shape[1],
    }
    return {"referee": referee, "health": health(codes[0][0]), "data": fingerprint(X), "rows_compared": len(test)}


def health(latents: NDArray[np.float32]) -> dict[str, Any]:
    """Signs of a collapsed latent space.

    Args:
        latents: (n, k).

    Returns:
        "variance": of each latent; "dead": how many carry nothing (a variance below 1e-4 of the largest);
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
    count = len(np.unique(labels[0]))
    if 2 <= count <= _MOST_CLASSES:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(code[0], labels[0])
        found["probe"] = float(probe.score(code[1], labels[1]))
        groups = KMeans(count, n_init=10, random_state=0).fit(code[0]).predict(code[1])
        found["kmeans"] = float(adjusted_mutual_info_score(labels[1], groups))
    return found


def parameters(network: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(ae: Autoencoder) -> int:
    """Multiply-adds of encoding and decoding one row, as exported: of linear and convolutional layers."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        at = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        places = 1 if isinstance(module, nn.Linear) else at[0, 0].numel()
        total += weight.numel() * places

    parts = ae.network_.exportable()
    hooks = [
        module.register_forward_hook(count)
        for part in parts
        for module in part.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    ]
    with torch.inference_mode():
        parts[1].eval()(parts[0].eval()(torch.zeros(1, *ae.input_shape_)))
    for hook in hooks:
        hook.remove()
    return total


def fingerprint(X: NDArray[Any]) -> dict[str, Any]:
    """Shape, dtype, and a hash of up to 10 000 rows spread over the data."""
    rows = np.ascontiguousarray(X[:: max(1, len(X) // 10_000)])
    return {"shape": list(X.shape), "dtype": str(X.dtype), "sha256": hashlib.sha256(rows.tobytes()).hexdigest()}


def _some(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    chosen: NDArray[np.intp] = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return chosen
