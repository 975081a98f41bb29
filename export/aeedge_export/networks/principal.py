"""Principal components inside a network: to initialise a linear path, and to rotate the latents after training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aeedge_export.networks.layers import Decoder, Encoder

_ROWS = 20_000  # enough to estimate a covariance
_PART = 2048


@torch.no_grad()
def components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first principal axes (count, size) of centred rows (n, size) and their standard deviations, largest first."""
    rows = rows[:_ROWS].double()
    variance, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
    variance, axes = variance.flip(0)[:count], axes.flip(1)[:, :count]
    return axes.T, variance.clamp_min(0).sqrt()


@torch.no_grad()
def start(encoder: Encoder, body: Decoder, rows: Tensor, *, sigmoid: bool, alone: bool = False) -> None:
    """Initialise the mean row, the linear path (PCA with whitened scores) and the bias of the output.

    `alone`: there are no other layers, so that the last layer of the encoder and the first of the decoder are it.
    """
    mean = rows.mean(dim=0)
    if encoder.center is not None:
        encoder.center.mean.copy_(mean)
        encoder.center.scale.copy_((rows - mean).square().mean().sqrt().clamp_min(1e-6))
    first, last = (encoder.head, body.tail) if alone else (encoder.linear, body.linear)
    if first is None or last is None:
        return
    centred = rows - mean if alone else encoder.centered(rows)
    axes, deviation = components(centred.flatten(1), first.out_features)
    deviation = deviation.clamp_min(1e-4 * deviation[0].clamp_min(1e-12))
    count = len(axes)  # more latents than values: the others start at 0
    first.weight.zero_()[:count] = axes / deviation[:, None]
    if alone:
        encoder.head.bias.copy_(-encoder.head.weight @ mean.flatten())
    back = axes.T * deviation  # to centred rows, whose scale is about right for a sigmoid's slope
    if encoder.center is not None and not sigmoid:
        back = back * encoder.center.scale
    last.weight.zero_()[:, :count] = back
    bias = torch.logit(mean.clamp(0.01, 0.99)) if sigmoid else mean
    last.bias.copy_(bias.flatten())


@torch.no_grad()
def balance(encoder: Encoder, body: Decoder, output: nn.Module, rows: Tensor) -> None:
    """Rotate the latents of `rows` so that they are uncorrelated, with mean 0, most important first.

    A latent's importance is the standard deviation that it explains in the reconstruction (by linear regression). Its
    own standard deviation becomes the square root of that: halfway between PCA's scores, where a few directions
    dominate distances, and whitened ones, where noise counts as much as signal. Distances between latents are then most
    useful to later steps such as k-means (docs/decisions/0007). The map z' = A (z - m) is folded into the layers that
    produce z, its inverse into the layers that consume z: reconstructions do not change.
    """
    rows = rows[:_ROWS]
    latent = torch.cat([encoder(part) for part in torch.split(rows, _PART)]).double()
    mean = latent.mean(dim=0)
    axes, deviation = components(latent - mean, latent.shape[1])
    deviation = deviation.clamp_min(1e-4 * deviation[0].clamp_min(1e-12))
    white = ((latent - mean) @ axes.T) / deviation
    effect = torch.zeros(latent.shape[1], rows[0].numel(), dtype=torch.float64, device=rows.device)
    for part, codes in zip(torch.split(latent, _PART), torch.split(white, _PART)):
        effect += codes.T @ output(body(part.float())).flatten(1).double()
    strength, turn = torch.linalg.eigh((effect / len(rows)) @ (effect / len(rows)).T)
    importance = strength.flip(0).clamp_min(1e-8 * strength[-1].clamp_min(1e-12)).pow(0.25)
    importance = importance / importance.square().mean().sqrt()
    turn = turn.flip(1)
    forward = importance[:, None] * turn.T @ (axes / deviation[:, None])
    inverse = (axes.T * deviation) @ turn / importance
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
