"""The parts of encoders and decoders, and the initialisation of their weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from aeedge.errors import InputError

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


def activation(name: str, what: str = "activation") -> nn.Module:
    """A new activation module.

    Raises:
        InputError: an unknown name.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"{what}: expected {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


class Center(nn.Module):
    """(x - mean) / scale with the mean row and one common scale, both set from data."""

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape) -> the same."""
        return (x - self.mean) / self.scale


class Encoder(nn.Module):
    """activation(head(trunk(x)) + linear(x)): (n, *shape) -> (n, latent); `center` and `linear` may be absent."""

    def __init__(
        self,
        trunk: nn.Sequential,
        head: nn.Linear,
        center: Center | None = None,
        linear: nn.Linear | None = None,
        act: str = "linear",
    ) -> None:
        super().__init__()
        self.center, self.trunk, self.head, self.linear = center, trunk, head, linear
        self.act = activation(act, "latent_activation")

    def centered(self, x: Tensor) -> Tensor:
        """The trunk's input."""
        return x if self.center is None else self.center(x)

    def latents(self, x: Tensor, features: Tensor) -> Tensor:
        """Latents before their activation, from centred rows (n, *shape) and the trunk's output for them."""
        latent: Tensor = self.head(features)
        return latent if self.linear is None else latent + self.linear(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, *shape) -> (n, latent)."""
        x = self.centered(x)
        latent: Tensor = self.act(self.latents(x, self.trunk(x)))
        return latent

    def folded(self) -> Encoder:
        """The same function with fewer operators: normalisation and centring merged into the layers beside them."""
        plain = copy.deepcopy(self).eval()
        plain.trunk = fold_normalization(plain.trunk)
        first = next((m for m in plain.trunk if not isinstance(m, nn.Flatten)), plain.head)
        if plain.center is not None and isinstance(first, nn.Linear):
            mean, scale = plain.center.mean.flatten(), plain.center.scale
            layers = [first] if plain.linear is None else [first, plain.linear]
            for layer in layers:
                _absorb(layer, mean, scale)
            plain.center = None
        return plain


class Decoder(nn.Module):
    """rest(tail(z)) + linear(z): (n, latent) -> (n, *shape); `linear` may be absent."""

    def __init__(
        self, tail: nn.Linear, rest: nn.Sequential, shape: tuple[int, ...], linear: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.tail, self.rest, self.linear, self.shape = tail, rest, linear, shape

    def forward(self, z: Tensor) -> Tensor:
        """(n, latent) -> (n, *shape)."""
        x: Tensor = self.rest(self.tail(z))
        return x if self.linear is None else x + self.linear(z).reshape(-1, *self.shape)

    def folded(self) -> Decoder:
        """The same function with normalisation merged into the layers before it."""
        plain = copy.deepcopy(self).eval()
        whole = fold_normalization(nn.Sequential(plain.tail, *plain.rest))
        tail = whole[0]
        assert isinstance(tail, nn.Linear)
        plain.tail, plain.rest = tail, nn.Sequential(*list(whole)[1:])
        return plain


@torch.no_grad()
def _absorb(layer: nn.Linear, mean: Tensor, scale: Tensor) -> None:
    """layer((x - mean) / scale) as a layer of x, computed in double precision."""
    weight = layer.weight.double() / scale.double()
    bias = -weight @ mean.double()
    if layer.bias is not None:
        bias = bias + layer.bias.double()
    layer.weight, layer.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())


def fold_normalization(layers: nn.Sequential) -> nn.Sequential:
    """Merge every batch normalisation into the linear or convolutional layer right before it."""
    plain: list[nn.Module] = []
    for layer in layers:
        before = plain[-1] if plain else None
        if isinstance(layer, nn.BatchNorm1d) and isinstance(before, nn.Linear):
            plain[-1] = fuse_linear_bn_eval(before.eval(), layer.eval())
        elif isinstance(layer, nn.BatchNorm2d) and isinstance(before, (nn.Conv2d, nn.ConvTranspose2d)):
            transposed = isinstance(before, nn.ConvTranspose2d)
            plain[-1] = fuse_conv_bn_eval(before.eval(), layer.eval(), transpose=transposed)
        else:
            plain.append(layer)
    return nn.Sequential(*plain)


def perceptron(widths: tuple[int, ...], act: str, normalization: str) -> list[nn.Module]:
    """Linear layers of these widths, each followed by its normalisation and activation."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), *after(act, normalization, nn.BatchNorm1d, fan_out)]
    return layers


def after(act: str, normalization: str, kind: type[nn.Module], width: int) -> list[nn.Module]:
    """Normalisation and activation after a hidden layer of `width` outputs."""
    if normalization not in ("batch", "none"):
        raise InputError(f"normalization: expected 'batch', 'none' or 'auto', got {normalization!r}")
    return [kind(width), activation(act)] if normalization == "batch" else [activation(act)]


@torch.no_grad()
def draw_weights(encoder: Encoder, body: Decoder, *, small_ends: bool) -> None:
    """Draw weights: He-normal where layers are normalised, variance 1/fan-in where not (uniform).

    With `small_ends` the last layers of encoder and decoder start at a tenth, so that a linear path dominates early on.
    """
    layers = [m for part in (encoder, body) for m in part.modules() if isinstance(m, _WEIGHTED)]
    for layer in layers:
        fan_in = _fan_in(layer)
        end = any(layer is other for other in ends(encoder, body))
        if not small_ends:
            nn.init.uniform_(layer.weight, -math.sqrt(3 / fan_in), math.sqrt(3 / fan_in))
        else:
            nn.init.normal_(layer.weight, 0.0, 0.1 / math.sqrt(fan_in) if end else math.sqrt(2 / fan_in))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def ends(encoder: Encoder, body: Decoder) -> tuple[nn.Linear, nn.Linear | nn.Conv2d | nn.ConvTranspose2d]:
    """The last layers of encoder and decoder, beside the linear path."""
    last = [m for m in body.rest if isinstance(m, _WEIGHTED)]
    return encoder.head, last[-1] if last else body.tail


_WEIGHTED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def _fan_in(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> float:
    """Number of products summed into one output."""
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels // layer.groups * math.prod(layer.kernel_size) / math.prod(layer.stride)
    return layer.weight[0].numel()
