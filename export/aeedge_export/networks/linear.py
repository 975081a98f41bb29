"""pca: principal component analysis as a network like the others, the baseline that they are compared with.

Closed form; rows that stay in files are processed incrementally (Ross et al. 2008, through scikit-learn).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA, IncrementalPCA

from aeedge.errors import InputError
from aeedge_export.data.scaling import Scaler, row_size
from aeedge_export.data.shards import LazyRows
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.dense import dense_parts
from aeedge_export.networks.layers import Decoder, Encoder

_CHUNK_BYTES = 2**26


class Principal(Network):
    """One linear layer each way. Latents are scores on the principal axes, largest variance first."""

    balances = False

    def training_loss(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Not available: pca is not trained by gradients."""
        raise InputError("family 'pca' is solved in closed form and cannot be trained batch by batch")

    @torch.no_grad()
    def solve(self, X: NDArray[Any], rows: NDArray[np.intp], scaler: Scaler) -> None:
        """Set the weights from raw rows `X[rows]`; a memory-mapped file is read in chunks.

        Raises:
            InputError: fewer rows than latents.
        """
        latent = self.design.latent
        if len(rows) < latent:
            raise InputError(
                f"family 'pca': expected at least {latent} training rows for {latent} latents, got {len(rows)}"
            )
        if isinstance(X, (np.memmap, LazyRows)):
            step = max(5 * latent, _CHUNK_BYTES // (8 * row_size(X)))
            found: Any = IncrementalPCA(latent)
            starts = [s for s in range(0, len(rows), step) if len(rows) - s >= latent]
            for start in starts:
                part = rows[start : len(rows) if start == starts[-1] else start + step]
                found.partial_fit(scaler(X[part]).reshape(len(part), -1))
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # shares of the variance, which are not needed
                found = PCA(latent, svd_solver="full").fit(scaler(X[rows]).reshape(len(rows), -1))
        axes, mean = torch.from_numpy(found.components_).double(), torch.from_numpy(found.mean_).double()
        encoder, body = self.encoder, self.body
        assert isinstance(encoder, Encoder)
        assert isinstance(body, Decoder)
        encoder.head.weight.copy_(axes.float())
        encoder.head.bias.copy_((-axes @ mean).float())
        body.tail.weight.copy_(axes.T.float())
        body.tail.bias.copy_(mean.float())


def pca(design: Design) -> Network:
    """Linear, without hidden layers, activations or a bounded output, whatever the design says."""
    plain = replace(
        design, hidden=(), latent_activation="linear", output="linear", loss="mse", linear_path=False, centered=False
    )
    return Principal(*dense_parts(plain), plain)
