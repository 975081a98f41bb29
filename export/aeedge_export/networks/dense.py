"""dense, sparse, contractive: symmetric multilayer perceptrons that differ in their penalty.

dense: Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647
sparse: Ng 2011, CS294A lecture notes; contractive: Rifai et al. 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aeedge.errors import InputError
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.layers import Center, Decoder, Encoder, draw_weights, perceptron


def dense_parts(design: Design) -> tuple[Encoder, Decoder]:
    """input - hidden - latent - reversed hidden - input; rows of any shape are flattened."""
    widths, size = (design.size, *design.hidden), design.size
    flat = len(design.input_shape) == 1
    trunk = perceptron(widths, design.activation, design.normalization)
    head = nn.Linear(widths[-1], design.latent)
    whole = perceptron((design.latent, *design.hidden[::-1]), design.activation, design.normalization)
    whole.append(nn.Linear(widths[1] if design.hidden else design.latent, size))
    tail = whole.pop(0)
    assert isinstance(tail, nn.Linear)
    encoder = Encoder(
        nn.Sequential(*([] if flat else [nn.Flatten()]), *trunk),
        head,
        Center(design.input_shape) if design.centered else None,
        nn.Linear(size, design.latent, bias=False) if design.linear_path else None,
        design.latent_activation,
    )
    rest = nn.Sequential(*whole, *([] if flat else [nn.Unflatten(1, design.input_shape)]))
    body = Decoder(tail, rest, design.input_shape, nn.Linear(design.latent, size) if design.linear_path else None)
    draw_weights(encoder, body, small_ends=design.linear_path)
    return encoder, body


def dense(design: Design) -> Network:
    """A plain multilayer perceptron."""
    return Network(*dense_parts(design), design)


class Sparse(Network):
    """A penalty keeps most latents of a row near zero: mean absolute value (L1), or KL to a target rate of activity."""

    balances = False

    def __init__(self, encoder: Encoder, body: Decoder, design: Design) -> None:
        super().__init__(encoder, body, design)
        self._kind, self._target, self._weight = parse_sparsity(design.options["sparsity"])
        # Normalisation before the activation keeps every latent active for some rows; a target rate needs a shift.
        encoder.act = nn.Sequential(nn.BatchNorm1d(design.latent, affine=self._kind == "kl"), encoder.act)

    def bottleneck(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents and their sparsity penalty."""
        latent = self.encoder(x)
        if self._kind == "l1":
            return latent, self._weight * latent.abs().mean()
        rate = self.batch.mean(latent).clamp(1e-6, 1 - 1e-6)
        target = torch.full_like(rate, self._target)
        divergence = target * torch.log(target / rate) + (1 - target) * torch.log((1 - target) / (1 - rate))
        return latent, self._weight * divergence.mean()


def parse_sparsity(text: str) -> tuple[str, float, float]:
    """ "l1:WEIGHT" or "kl:TARGET:WEIGHT" to kind, target and weight.

    Raises:
        InputError: neither.
    """
    kind, *numbers = str(text).split(":")
    try:
        values = [float(n) for n in numbers]
    except ValueError:
        values = []
    if not all(map(math.isfinite, values)):
        values = []
    if kind == "l1" and len(values) == 1 and values[0] >= 0:
        return kind, 0.0, values[0]
    if kind == "kl" and len(values) == 2 and 0 < values[0] < 1 and values[1] >= 0:
        return kind, values[0], values[1]
    raise InputError(f"sparsity: expected 'l1:WEIGHT' or 'kl:TARGET:WEIGHT' (0 < TARGET < 1), got {text!r}")


def sparse(design: Design) -> Network:
    """A perceptron with sparse latents; ReLU latents for L1, sigmoid for KL."""
    return Sparse(*dense_parts(design), design)


class Contractive(Network):
    """Penalises the squared Frobenius norm of the encoder's Jacobian, so that latents change little with the input.

    Exact for one layer. For deeper encoders Hutchinson's estimate: E |vᵀJ|² over random signs v is the squared norm.
    """

    balances = False  # small latents are the point

    def bottleneck(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents and their contraction penalty, per input value."""
        weight = float(self.design.options["contraction"])
        if isinstance(self.encoder, Encoder) and not self.design.hidden and self.encoder.linear is None:
            return self._one_layer(x, weight)
        x = x.detach().requires_grad_()
        latent = self.encoder(x)
        signs = self.batch.draw(_signs, latent)
        (gradient,) = torch.autograd.grad((latent * signs).sum(), x, create_graph=True)
        return latent, weight * gradient.square().flatten(1).sum(dim=1).mean() / self.design.latent

    def _one_layer(self, x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        encoder = self.encoder
        assert isinstance(encoder, Encoder)
        before = encoder.head(encoder.centered(x).flatten(1))
        latent = encoder.act(before)
        (slope,) = torch.autograd.grad(latent.sum(), before, create_graph=True)
        scale = 1.0 if encoder.center is None else encoder.center.scale
        norms = (encoder.head.weight / scale).square().sum(dim=1)
        return latent, weight * (slope.square() @ norms).mean() / self.design.latent


def _signs(latent: Tensor) -> Tensor:
    """-1 or 1 for each latent (n, latent)."""
    return torch.randint(0, 2, latent.shape, device=latent.device).to(latent.dtype) * 2 - 1


def contractive(design: Design) -> Network:
    """A perceptron whose latents resist small changes of the input."""
    return Contractive(*dense_parts(design), design)
