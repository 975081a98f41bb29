"""conv2d for images (C, H, W) and conv1d for signals (C, T), or with the channels last: strided, then transposed
convolutions.

The decoder's layers were chosen by measurement in onnxruntime (docs/decisions/0006). conv1d runs as 2-D convolutions
with 1×k kernels, for which onnxruntime has faster code.
"""

from __future__ import annotations

from itertools import pairwise

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
    return _build(design, _channels_first(design), (2, 2), (3, 3))


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
    return _build(design, (channels, 1, samples), (1, 2), (1, 7))


def _channels_first(design: Design) -> tuple[int, ...]:
    *others, last = design.input_shape
    return (last, *others) if design.channels_last else design.input_shape


def _build(design: Design, shape: tuple[int, ...], step: tuple[int, int], kernel: tuple[int, int]) -> Network:
    channels, height, width = shape
    depth = len(design.hidden)
    down = (step[0] ** depth, step[1] ** depth)
    if not depth or height < down[0] or width < down[1]:
        raise InputError(
            f"family {'conv2d' if step[0] > 1 else 'conv1d'}: expected rows of at least {down[0]}×{down[1]} for "
            f"hidden={design.hidden} channels, got {height}×{width}; use fewer (one or more), or family='dense'"
            f"{'' if design.channels_last or width >= channels else ', or channels=' + repr('last')}"
        )
    small = (-(-height // down[0]), -(-width // down[1]))
    pad = (small[0] * down[0] - height, small[1] * down[1] - width)
    features = design.hidden[-1] * small[0] * small[1]
    first, axes = _channels_first(design), len(design.input_shape)
    trunk: list[nn.Module] = [Permute(axes, first=True)] if design.channels_last else []
    trunk += [nn.Unflatten(1, (channels, 1))] if axes == 2 else []
    trunk += [Pad(*pad)] if any(pad) else []
    around = (kernel[0] // 2, kernel[1] // 2)
    for fan_in, fan_out in pairwise((channels, *design.hidden)):
        trunk += [nn.Conv2d(fan_in, fan_out, kernel, stride=step, padding=around)]
        trunk += after(design.activation, design.normalization, nn.BatchNorm2d, fan_out)
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
    wide = (kernel[0] + step[0] - 1, kernel[1] + step[1] - 1)  # an even kernel covers every output equally often
    for index, (fan_in, fan_out) in enumerate(ups):
        rest.append(nn.ConvTranspose2d(fan_in, fan_out, wide, stride=step, padding=around))
        if index < len(ups) - 1:
            rest += after(design.activation, design.normalization, nn.BatchNorm2d, fan_out)
    rest.append(Crop(first))
    rest += [Permute(axes, first=False)] if design.channels_last else []
    linear = nn.Linear(design.latent, design.size) if design.linear_path else None
    body = Decoder(nn.Linear(design.latent, features), nn.Sequential(*rest), design.input_shape, linear)
    draw_weights(encoder, body, small_ends=design.linear_path)
    return Network(encoder, body, design)
