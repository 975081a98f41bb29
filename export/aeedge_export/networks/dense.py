"""dense: a symmetric multilayer perceptron (Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647)."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from aeedge_export.networks.base import Design, Network, activation


def dense(design: Design) -> Network:
    """input - hidden - latent - reversed hidden - input; rows of any shape are flattened."""
    widths = (design.size, *design.hidden, design.latent)
    encoder = perceptron(widths, design.activation)
    if design.latent_activation != "linear":
        encoder.append(activation(design.latent_activation, "latent_activation"))
    body = perceptron(widths[::-1], design.activation)
    if len(design.input_shape) > 1:
        encoder.insert(0, nn.Flatten())
        body.append(nn.Unflatten(1, design.input_shape))
    return Network(encoder, body, design.output, design.loss)


def perceptron(widths: tuple[int, ...], name: str) -> nn.Sequential:
    """Linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation(name)]
    return nn.Sequential(*layers[:-1])
