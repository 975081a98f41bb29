"""Principal components inside a network: where a linear path starts, and how latents are whitened at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aeedge_export.networks.layers import Decoder, Encoder

_ROWS = 20_000  # enough to estimate a covariance


@torch.no_grad()
def components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first principal axes (count, size) of centred rows (n, size) and their standard deviations, largest first."""
    rows = rows[:_ROWS].double()
    variance, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
    variance, axes = variance.flip(0)[:count], axes.flip(1)[:, :count]
    return axes.T, variance.clamp_min(0).sqrt()


@torch.no_grad()
def start(encoder: Encoder, body: Decoder, rows: Tensor, *, sigmoid: bool) -> None:
    """Set the mean row, a linear path that is PCA with whitened scores, and the bias of a bounded output."""
    mean = rows.mean(dim=0)
    if encoder.center is not None:
        encoder.center.mean.copy_(mean)
        encoder.center.scale.copy_((rows - mean).square().mean().sqrt().clamp_min(1e-6))
    if encoder.linear is None or body.linear is None:
        return
    axes, deviation = components(encoder.centered(rows).flatten(1), encoder.linear.out_features)
    deviation = deviation.clamp_min(1e-4 * deviation[0].clamp_min(1e-12))
    encoder.linear.weight.copy_(axes / deviation[:, None])
    body.linear.weight.copy_(axes.T * deviation)
    bias = torch.logit(mean.clamp(0.01, 0.99)) if sigmoid else mean
    body.linear.bias.copy_(bias.flatten())


@torch.no_grad()
def whiten(encoder: Encoder, body: Decoder, rows: Tensor) -> None:
    """Give the latents of `rows` mean 0 and covariance 1 along principal axes; the decoder undoes it.

    z' = A (z - m) is folded into the layers that add up to z, and its inverse into those that take z.
    """
    latent = torch.cat([encoder(part) for part in torch.split(rows[:_ROWS], 4096)]).double()
    mean = latent.mean(dim=0)
    axes, deviation = components(latent - mean, latent.shape[1])
    deviation = deviation.clamp_min(1e-4 * deviation[0].clamp_min(1e-12))
    forward, inverse = axes / deviation[:, None], axes.T * deviation
    _set(encoder.head, forward @ encoder.head.weight.double(), forward @ (encoder.head.bias.double() - mean))
    if encoder.linear is not None:
        _set(encoder.linear, forward @ encoder.linear.weight.double(), None)
    for layer in (body.tail, body.linear):
        if layer is not None:
            weight = layer.weight.double()
            _set(layer, weight @ inverse, layer.bias.double() + weight @ mean)


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight.float())
    if bias is not None:
        layer.bias.copy_(bias.float())
