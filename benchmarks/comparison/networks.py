"""The five networks of the runtime comparison, described once as layers, from which every runtime is built."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class Layer(NamedTuple):
    """A layer with a bias: "dense", or "conv" of 1 or 2 dimensions like the samples, padded by half its kernel."""

    kind: str
    out: int
    relu: bool = True
    kernel: int = 1
    stride: int = 1


class Network(NamedTuple):
    """An encoder of samples of `shape`; with `pixels` the samples also exist as uint8."""

    title: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    epochs: int
    pixels: bool = False

    @property
    def latent(self) -> int:
        """Number of latents."""
        return self.layers[-1].out


class Cost(NamedTuple):
    """The least cost of one sample: operations, values in and out; and the number of weights, shared by all samples."""

    flops: int
    values_in: int
    values_out: int
    weights: int


def _dense(*widths: int, last: bool = False) -> tuple[Layer, ...]:
    return tuple(Layer("dense", width, relu=last or i < len(widths) - 1) for i, width in enumerate(widths))


def _conv(*channels: int, kernel: int) -> tuple[Layer, ...]:
    return tuple(Layer("conv", width, kernel=kernel, stride=2) for width in channels)


NETWORKS = {
    "seed": Network("784-32, ReLU", (784,), _dense(32, last=True), 60, pixels=True),
    "deep": Network("784-256-64-32", (784,), _dense(256, 64, 32), 60, pixels=True),
    "ad01": Network("640-128×4-8", (640,), _dense(128, 128, 128, 128, 8), 40),
    "conv": Network(
        "1×28×28, 16 and 32 channels, -32", (1, 28, 28), (*_conv(16, 32, kernel=3), *_dense(32)), 30, pixels=True
    ),
    "ts": Network("3×256, 16, 32 and 32 channels, -16", (3, 256), (*_conv(16, 32, 32, kernel=7), *_dense(16)), 12),
}


def shapes(net: Network) -> list[tuple[int, ...]]:
    """Shape of a sample before the first layer, and after each."""
    found = [net.shape]
    for layer in net.layers:
        if layer.kind == "dense":
            found.append((layer.out,))
        else:
            found.append((layer.out, *(-(-side // layer.stride) for side in found[-1][1:])))
    return found


def cost(net: Network) -> Cost:
    """Operations (a multiplication and an addition count two) and values that any implementation needs."""
    flops = weights = 0
    sizes = shapes(net)
    for layer, before, after in zip(net.layers, sizes, sizes[1:]):
        inputs = prod(before) if layer.kind == "dense" else before[0] * layer.kernel ** len(before[1:])
        places = 1 if layer.kind == "dense" else prod(after[1:])
        flops += 2 * inputs * layer.out * places
        weights += (inputs + 1) * layer.out
    return Cost(flops, prod(net.shape), net.latent, weights)


def encoder(net: Network) -> nn.Sequential:
    """The encoder in plain torch."""
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


def decoder(net: Network) -> nn.Sequential:
    """The encoder's mirror image, with a sigmoid for pixels."""
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
