"""The base of all families: an encoder and a decoder, both exported, and the loss that trains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from aeedge.errors import InputError
from aeedge_export.networks import principal
from aeedge_export.networks.batch import Batch
from aeedge_export.networks.layers import Decoder, Encoder, activation, ends
from aeedge_export.networks.losses import reconstruction_loss

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


@dataclass(frozen=True)
class Design:
    """The architecture of a network.

    Attributes:
        input_shape: shape of one row.
        latent: number of latents.
        hidden: widths of the hidden layers; for convolutional families, their channels.
        activation, latent_activation, output: names of activations.
        loss: "mse", "bce" or "huber".
        normalization: "batch" or "none", in hidden layers.
        linear_path: whether a linear encoder and decoder, initialised with PCA, are added to the network.
        centered: whether the encoder first subtracts the mean row (of data scaled to 0..1).
        ordered: whether any prefix of the latents is trained as a smaller code.
        channels_last: whether the channels of signals and images are the last axis of a row, not the first.
        options: parameters of one family alone.
    """

    input_shape: tuple[int, ...]
    latent: int
    hidden: tuple[int, ...]
    activation: str = "relu"
    latent_activation: str = "linear"
    output: str = "linear"
    loss: str = "mse"
    normalization: str = "none"
    linear_path: bool = False
    centered: bool = False
    ordered: bool = False
    channels_last: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of values in one row."""
        return prod(self.input_shape)


class Network(nn.Module):
    """An autoencoder in scaled units.

    Attributes:
        encoder: (n, *input_shape) -> (n, latent).
        body: (n, latent) -> (n, *input_shape), before the output activation.
        output: the output activation.
        progress: of training, 0 to 1; set by the training loop.
        batch: the rows of a step; set by the training loop.
    """

    balances = True  # whether latents are rotated after training, most important first, where the design allows it

    def __init__(self, encoder: nn.Module, body: nn.Module, design: Design) -> None:
        super().__init__()
        if design.output not in ("linear", "sigmoid"):
            raise InputError(f"output: expected 'linear' or 'sigmoid', got {design.output!r}")
        if design.loss == "bce" and design.output != "sigmoid":
            raise InputError(f"loss 'bce' needs output='sigmoid', got {design.output!r}; change one of them")
        self.design = design
        self.encoder, self.body, self.output = encoder, body, activation(design.output)
        self._loss = reconstruction_loss(design.loss)
        self.progress = 0.0
        self.batch = Batch()

    @property
    def decoder(self) -> nn.Module:
        """(n, latent) -> (n, *input_shape), with the output activation."""
        return self.body if isinstance(self.output, nn.Identity) else nn.Sequential(self.body, self.output)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct scaled rows."""
        reconstruction: Tensor = self.output(self.body(self.encoder(x)))
        return reconstruction

    def bottleneck(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents as training uses them, and a penalty to add to the loss; families override this."""
        return self.encoder(x), None

    def training_loss(self, x: Tensor, target: Tensor) -> Tensor:
        """The loss that is minimised, a scalar: reconstruction of `target` from `x`, plus the family's penalty."""
        latent, penalty = self.bottleneck(x)
        if self.design.ordered:
            latent = latent * self.batch.draw(_prefix_mask, latent)
        loss = self._loss(self.body(latent), target, self.output)
        return loss if penalty is None else loss + penalty

    @property
    def settled(self) -> bool:
        """Whether the loss has its final form; before, no weights are kept as the best."""
        return True

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> Tensor:
        """Reconstruction loss of each clean row, without penalties: (n, *input_shape) to (n,)."""
        return self._row_losses(self.encoder(x), x)

    def _row_losses(self, latent: Tensor, target: Tensor) -> Tensor:
        return self._loss(self.body(latent), target, self.output, reduction="none").flatten(1).mean(dim=1)

    @torch.no_grad()
    def start(self, rows: Tensor, *, as_pca: bool = False) -> None:
        """Initialise mean row, linear path (PCA) and bias of the output from scaled rows (n, *input_shape).

        With `as_pca` the network beside the linear path starts at zero; without hidden layers it is the linear path.
        """
        if isinstance(self.encoder, Encoder) and isinstance(self.body, Decoder):
            alone = as_pca and self.encoder.linear is None
            sigmoid = self.design.output == "sigmoid"
            principal.start(self.encoder, self.body, rows, sigmoid=sigmoid, alone=alone)
            if as_pca and not alone:
                for layer in ends(self.encoder, self.body):
                    nn.init.zeros_(layer.weight)

    @torch.no_grad()
    def finish(self, rows: Tensor) -> None:
        """After training: make latents uncorrelated, most important first; reconstructions do not change."""
        free = self.design.latent_activation == "linear" and not self.design.ordered
        if self.balances and free and isinstance(self.encoder, Encoder) and isinstance(self.body, Decoder):
            principal.balance(self.encoder, self.body, self.output, rows)

    def exportable(self) -> tuple[nn.Module, nn.Module]:
        """Encoder and decoder to export: the same functions with as few operators as possible."""
        encoder, body = self.encoder, self.body
        if isinstance(encoder, Encoder) and isinstance(body, Decoder):
            encoder, body = encoder.folded(), body.folded()
        plain = isinstance(self.output, nn.Identity)
        return encoder, body if plain else nn.Sequential(body, self.output)

    def decayed(self) -> list[nn.Parameter]:
        """Parameters with weight decay: matrices, those of a linear path only where the output is bounded."""
        exempt = set()
        if self.design.linear_path and self.design.output == "linear":
            exempt = {id(layer.weight) for layer in (self.encoder.linear, self.body.linear)}  # type: ignore[union-attr]
        return [p for p in self.parameters() if p.ndim > 1 and id(p) not in exempt]


def _prefix_mask(latent: Tensor) -> Tensor:
    """A 0/1 mask that keeps the first j latents of each row, j drawn uniformly (nested dropout, Rippel et al. 2014).

    A quarter of the rows keep all latents, because the full code is used most.
    """
    rows, size = latent.shape
    keep = torch.randint(1, size + 1, (rows, 1), device=latent.device)
    keep = torch.where(torch.rand(rows, 1, device=latent.device) < 0.25, size, keep)
    return (torch.arange(size, device=latent.device) < keep).to(latent.dtype)


@torch.inference_mode()
def multiply_adds(network: Network, *, decode: bool = True) -> int:
    """Multiply-adds of linear and convolutional layers to encode, or to encode and decode, one row, as exported.

    Counted by hooks: torch's FlopCounterMode takes most of a second to be imported.
    """
    found = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        weight: Tensor = module.weight  # type: ignore[assignment]
        each = inputs[0] if isinstance(module, _TRANSPOSED) else output  # an element of it takes a row of weights
        found += each.numel() * weight[0].numel()

    parts = [part.eval() for part in network.exportable()[: 2 if decode else 1]]
    layers = [module for part in parts for module in part.modules() if isinstance(module, _LAYERS)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        rows = torch.zeros(1, *network.design.input_shape)
        for part in parts:
            rows = part(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return found
