"""The five nets of the contest, described once as layers and built from that for every runtime."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class Layer(NamedTuple):
    """A layer with a bias: "dense", or "conv" of 1 or 2 dimensions as the rows have, padded by half its kernel."""

    kind: str
    out: int
    relu: bool = True
    kernel: int = 1
    stride: int = 1


class Net(NamedTuple):
    """An encoder of rows of `shape`; `pixels` says that its rows also exist as uint8."""

    says: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    epochs: int
    pixels: bool = False

    @property
    def latent(self) -> int:
        """Number of latents of a row."""
        return self.layers[-1].out


class Cost(NamedTuple):
    """What one row costs, whoever computes it: operations, values in and out, and the weights of all rows together."""

    flops: int
    values_in: int
    values_out: int
    weights: int


def _dense(*widths: int, last: bool = False) -> tuple[Layer, ...]:
    return tuple(Layer("dense", width, relu=last or i < len(widths) - 1) for i, width in enumerate(widths))


def _conv(*channels: int, kernel: int) -> tuple[Layer, ...]:
    return tuple(Layer("conv", width, kernel=kernel, stride=2) for width in channels)


NETS = {
    "seed": Net("784-32, ReLU", (784,), _dense(32, last=True), 60, pixels=True),
    "deep": Net("784-256-64-32", (784,), _dense(256, 64, 32), 60, pixels=True),
    "ad01": Net("640-128×4-8", (640,), _dense(128, 128, 128, 128, 8), 40),
    "conv": Net(
        "1×28×28, 16 and 32 channels, -32", (1, 28, 28), (*_conv(16, 32, kernel=3), *_dense(32)), 30, pixels=True
    ),
    "ts": Net("3×256, 16, 32 and 32 channels, -16", (3, 256), (*_conv(16, 32, 32, kernel=7), *_dense(16)), 12),
}


def shapes(net: Net) -> list[tuple[int, ...]]:
    """Shape of a row before the first layer, and after each."""
    found = [net.shape]
    for layer in net.layers:
        if layer.kind == "dense":
            found.append((layer.out,))
        else:
            found.append((layer.out, *(-(-side // layer.stride) for side in found[-1][1:])))
    return found


def cost(net: Net) -> Cost:
    """Operations (a multiplication and an addition count two) and values that one row cannot do without."""
    flops = weights = 0
    sizes = shapes(net)
    for layer, before, after in zip(net.layers, sizes, sizes[1:]):
        inputs = prod(before) if layer.kind == "dense" else before[0] * layer.kernel ** len(before[1:])
        places = 1 if layer.kind == "dense" else prod(after[1:])
        flops += 2 * inputs * layer.out * places
        weights += (inputs + 1) * layer.out
    return Cost(flops, prod(net.shape), net.latent, weights)


def encoder(net: Net) -> nn.Sequential:
    """The encoder as anybody would write it in torch."""
    from torch import nn

    modules: list[nn.Module] = []
    sizes = shapes(net)
    for layer, before in zip(net.layers, sizes):
        if layer.kind == "dense":
            modules += [nn.Flatten()] if len(before) > 1 else []
            modules.append(nn.Linear(prod(before), layer.out))
        else:
            conv = nn.Conv2d if len(before) == 3 else nn.Conv1d
            modules.append(conv(before[0], layer.out, layer.kernel, stride=layer.stride, padding=layer.kernel // 2))
        modules += [nn.ReLU()] if layer.relu else []
    return nn.Sequential(*modules)


def decoder(net: Net) -> nn.Sequential:
    """The encoder's mirror image, with a sigmoid where rows are pixels."""
    from torch import nn

    modules: list[nn.Module] = []
    sizes = shapes(net)
    for layer, before, after in reversed(list(zip(net.layers, sizes, sizes[1:]))):
        modules += [nn.ReLU()] if modules else []
        if layer.kind == "dense":
            modules.append(nn.Linear(layer.out, prod(before)))
            modules += [nn.Unflatten(1, before)] if len(before) > 1 else []
        else:
            conv = nn.ConvTranspose2d if len(before) == 3 else nn.ConvTranspose1d
            half, rest = layer.kernel // 2, layer.stride - 1
            modules.append(conv(after[0], before[0], layer.kernel, layer.stride, half, output_padding=rest))
    modules += [nn.Sigmoid()] if net.pixels else []
    return nn.Sequential(*modules)
