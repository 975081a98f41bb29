"""conv2d for images (C, H, W) and conv1d for signals (C, T), or with the channels last: strided, then transposed
convolutions.

The layers were chosen by measurement in onnxruntime (docs/decisions/0006 and 0025). conv1d runs as 2-D convolutions
with 1×k kernels, for which onnxruntime has faster code.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aeedge.errors import InputError
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.layers import Center, Decoder, Encoder, after, draw_weights


class Pad(nn.Module):
    """Zero padding at the bottom and right, to a size divisible by all strides."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self._extra = (0, width, 0, height)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C, H + height, W + width)."""
        return F.pad(x, self._extra)


class Permute(nn.Module):
    """Channels of rows moved from their last axis to their first, or back."""

    def __init__(self, axes: int, *, first: bool) -> None:
        super().__init__()
        moved = (axes, *range(1, axes)) if first else (*range(2, axes + 1), 1)
        self._order = (0, *moved)

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., C) -> (n, C, ...), or back."""
        return x.permute(self._order)


class Crop(nn.Module):
    """The first rows and columns, in the shape of the input."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H', W') -> (n, *shape)."""
        height, width = (1, self._shape[1]) if len(self._shape) == 2 else self._shape[1:]
        return x[:, :, :height, :width].reshape(-1, *self._shape)


def conv2d(design: Design) -> Network:
    """Images (C, H, W), or (H, W, C) with `channels_last`; sizes not divisible by the strides are padded.

    Raises:
        InputError: rows of another shape, or smaller than the strides.
    """
    if len(design.input_shape) != 3:
        raise InputError(
            f"family 'conv2d' needs images, rows of shape (channels, height, width), got {design.input_shape}; "
            "reshape the rows, or use family='dense'"
        )
    return _build(design, _channels_first(design), plane=True)


def conv1d(design: Design) -> Network:
    """Signals (C, T), or (T, C) with `channels_last`; lengths not divisible by the strides are padded.

    Raises:
        InputError: rows of another shape, or shorter than the strides.
    """
    if len(design.input_shape) != 2:
        raise InputError(
            f"family 'conv1d' needs signals, rows of shape (channels, samples), got {design.input_shape}; "
            "reshape the rows, or use family='dense'"
        )
    channels, samples = _channels_first(design)
    return _build(design, (channels, 1, samples), plane=False)


def _channels_first(design: Design) -> tuple[int, ...]:
    *others, last = design.input_shape
    return (last, *others) if design.channels_last else design.input_shape


def convolutional_choices(
    input_shape: tuple[int, ...], family: str, *, channels_last: bool = False
) -> list[dict[str, Any]]:
    """Architectures worth a trial for rows of this shape, the cheapest first (benchmarks/convolutions.py).

    Args:
        input_shape: of one row: (C, H, W) for "conv2d", (C, T) for "conv1d", or with the channels last.
        family: "conv1d" or "conv2d".
        channels_last: whether the channels are the last axis of a row.

    Returns:
        Parameters `hidden`, `strides` and `separable` of `Autoencoder`, at least one dict of them.
    """
    sizes = input_shape[:-1] if channels_last else input_shape[1:]
    fits = [choice for choice in _CHOICES[family] if 2 * prod(choice[1]) <= min(sizes)]  # two places or more are left
    small = [((16,), (1,), False), *([((16,), (2,), False)] if min(sizes) > 1 else [])]
    return [dict(zip(("hidden", "strides", "separable"), choice)) for choice in fits or small]


_CHOICES: dict[str, list[tuple[tuple[int, ...], tuple[int, ...], bool]]] = {
    "conv2d": [
        ((16,), (4,), False),
        ((32,), (4,), False),
        ((16, 32), (4, 2), False),
        ((16, 32), (2, 2), True),
        ((24, 48), (4, 2), False),
        ((16, 32), (2, 2), False),
        ((32, 64), (4, 2), False),
        ((32, 64), (2, 2), False),
    ],
    "conv1d": [
        ((16,), (8,), False),
        ((16, 32), (8, 4), False),
        ((16, 32), (4, 2), True),
        ((16, 32), (4, 4), False),
        ((16, 32, 32), (2, 2, 2), True),
        ((16, 32, 32), (4, 2, 2), False),
        ((16, 32, 64), (4, 2, 2), False),
        ((16, 32, 32), (2, 2, 2), False),
    ],
}


def _build(design: Design, shape: tuple[int, ...], *, plane: bool) -> Network:
    channels, height, width = shape
    strides, separable = _strides(design), bool(design.options.get("separable"))
    factor = prod(strides)
    down = (factor if plane else 1, factor)
    if not strides or height < down[0] or width < down[1]:
        stepped = f" and strides={strides}" if set(strides) - {2} else ""
        raise InputError(
            f"family {'conv2d' if plane else 'conv1d'}: expected rows of at least {down[0]}×{down[1]} for "
            f"hidden={design.hidden} channels{stepped}, got {height}×{width}; use fewer (one or more), or "
            f"family='dense'{'' if design.channels_last or width >= channels else ', or channels=' + repr('last')}"
        )
    if separable and len(strides) == 1:
        raise InputError(
            f"separable: expected two or more hidden layers, of which all but the first are separable, got hidden="
            f"{design.hidden}; add a layer, or leave it out"
        )
    small = (-(-height // down[0]), -(-width // down[1]))
    pad = (small[0] * down[0] - height, small[1] * down[1] - width)
    features = design.hidden[-1] * small[0] * small[1]
    first, axes = _channels_first(design), len(design.input_shape)
    trunk: list[nn.Module] = [Permute(axes, first=True)] if design.channels_last else []
    trunk += [nn.Unflatten(1, (channels, 1))] if axes == 2 else []
    trunk += [Pad(*pad)] if any(pad) else []
    for index, (fan_in, fan_out) in enumerate(pairwise((channels, *design.hidden))):
        trunk += _down(fan_in, fan_out, strides[index], design, plane=plane, separable=separable and index > 0)
    encoder = Encoder(
        nn.Sequential(*trunk, nn.Flatten()),
        nn.Linear(features, design.latent),
        Center(design.input_shape) if design.centered else None,
        nn.Linear(design.size, design.latent, bias=False) if design.linear_path else None,
        design.latent_activation,
    )
    rest = after(design.activation, design.normalization, nn.BatchNorm1d, features)
    rest.append(nn.Unflatten(1, (design.hidden[-1], *small)))
    ups = list(pairwise((*design.hidden[::-1], channels)))
    for index, (fan_in, fan_out) in enumerate(ups):
        last = index == len(ups) - 1
        rest += _up(fan_in, fan_out, strides[-1 - index], design, plane=plane, separable=separable and not last)
        if not last:
            rest += after(design.activation, design.normalization, nn.BatchNorm2d, fan_out)
    rest.append(Crop(first))
    rest += [Permute(axes, first=False)] if design.channels_last else []
    linear = nn.Linear(design.latent, design.size) if design.linear_path else None
    body = Decoder(nn.Linear(design.latent, features), nn.Sequential(*rest), design.input_shape, linear)
    draw_weights(encoder, body, small_ends=design.linear_path)
    return Network(encoder, body, design)


def _strides(design: Design) -> tuple[int, ...]:
    """One for each hidden layer; runs of former versions have none: 2 each."""
    return tuple(design.options.get("strides") or (2,) * len(design.hidden))


def _kernel(stride: int, *, plane: bool) -> int:
    """Odd, and wide enough that a stride passes over no value."""
    return max(3 if plane else 7, stride | 1)


def _shaped(size: int, *, plane: bool, neutral: int) -> tuple[int, int]:
    """A size of both axes; signals have height 1."""
    return (size if plane else neutral, size)


def _down(fan_in: int, fan_out: int, stride: int, design: Design, *, plane: bool, separable: bool) -> list[nn.Module]:
    """A strided convolution, or depthwise and pointwise ones (Howard et al. 2017, MobileNets), with activations."""
    width = _kernel(stride, plane=plane)
    kernel, step = _shaped(width, plane=plane, neutral=1), _shaped(stride, plane=plane, neutral=1)
    around = _shaped((width - stride + 1) // 2, plane=plane, neutral=0)  # the last values are covered too
    if not separable:
        layers: list[nn.Module] = [nn.Conv2d(fan_in, fan_out, kernel, stride=step, padding=around)]
    else:
        layers = [nn.Conv2d(fan_in, fan_in, kernel, stride=step, padding=around, groups=fan_in)]
        layers += after(design.activation, design.normalization, nn.BatchNorm2d, fan_in)
        layers.append(nn.Conv2d(fan_in, fan_out, 1))
    return layers + after(design.activation, design.normalization, nn.BatchNorm2d, fan_out)


def _up(fan_in: int, fan_out: int, stride: int, design: Design, *, plane: bool, separable: bool) -> list[nn.Module]:
    """A transposed convolution; or a depthwise one before it, which then mixes no neighbours."""
    step = _shaped(stride, plane=plane, neutral=1)
    width = _kernel(stride, plane=plane)
    if separable:
        kernel, around = _shaped(width, plane=plane, neutral=1), _shaped(width // 2, plane=plane, neutral=0)
        return [
            nn.Conv2d(fan_in, fan_in, kernel, padding=around, groups=fan_in),
            *after(design.activation, design.normalization, nn.BatchNorm2d, fan_in),
            nn.ConvTranspose2d(fan_in, fan_out, step, stride=step),
        ]
    wide = -(-(width + stride - 1) // stride) * stride  # a multiple of the stride covers every output equally often
    around = _shaped((wide - stride + 1) // 2, plane=plane, neutral=0)
    extra = _shaped((wide - stride) % 2, plane=plane, neutral=0)
    kernel = _shaped(wide, plane=plane, neutral=1)
    return [nn.ConvTranspose2d(fan_in, fan_out, kernel, stride=step, padding=around, output_padding=extra)]
