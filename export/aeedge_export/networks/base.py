"""What all families have in common: an encoder and a decoder that are exported, and a loss that trains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from aeedge.errors import InputError
from aeedge_export.losses import reconstruction_loss

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "linear": nn.Identity,
}


@dataclass(frozen=True)
class Design:
    """What a network is built from: shape of one row, latent size, hidden widths, names of activations and loss."""

    input_shape: tuple[int, ...]
    latent: int
    hidden: tuple[int, ...]
    activation: str
    latent_activation: str
    output: str
    loss: str

    @property
    def size(self) -> int:
        """Number of values in one row."""
        return prod(self.input_shape)


def activation(name: str, what: str = "activation") -> nn.Module:
    """A new activation module.

    Raises:
        InputError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"{what}: expected {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


class Network(nn.Module):
    """An autoencoder: `encoder` and `decoder` are what is exported, in scaled units.

    Attributes:
        encoder: (n, *input_shape) -> (n, latent).
        body: (n, latent) -> (n, *input_shape), before the output activation.
        output: the output activation.
    """

    def __init__(self, encoder: nn.Module, body: nn.Module, output: str, loss: str) -> None:
        super().__init__()
        if output not in ("linear", "sigmoid"):
            raise InputError(f"output: expected 'linear' or 'sigmoid', got {output!r}")
        if loss == "bce" and output != "sigmoid":
            raise InputError(f"loss 'bce' needs output='sigmoid', got {output!r}; change one of them")
        self.encoder, self.body, self.output = encoder, body, activation(output)
        self._loss = reconstruction_loss(loss)

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
        loss = self._loss(self.body(latent), target, self.output)
        return loss if penalty is None else loss + penalty

    @torch.no_grad()
    def validation_loss(self, x: Tensor) -> Tensor:
        """Reconstruction loss of clean rows, without penalties, a scalar."""
        return self._loss(self.body(self.encoder(x)), x, self.output)
