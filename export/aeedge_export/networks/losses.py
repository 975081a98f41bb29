"""Reconstruction losses: functions of the decoder's output before its activation, the target, and that activation.

Each is a mean over all values, or with `reduction="none"` one loss for each value.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aeedge.errors import InputError


class Loss(Protocol):
    """A reconstruction loss."""

    def __call__(self, raw: Tensor, target: Tensor, output: nn.Module, reduction: str = "mean") -> Tensor:
        """Loss of `output(raw)` against `target`, both (n, *input_shape)."""


def mse(raw: Tensor, target: Tensor, output: nn.Module, reduction: str = "mean") -> Tensor:
    """Squared error, in squared scaled units."""
    return F.mse_loss(output(raw), target, reduction=reduction)


def bce(raw: Tensor, target: Tensor, output: nn.Module, reduction: str = "mean") -> Tensor:
    """Binary cross-entropy, in nats; from logits, which is stable and cheaper than by sigmoid."""
    return F.binary_cross_entropy_with_logits(raw, target, reduction=reduction)


def huber(raw: Tensor, target: Tensor, output: nn.Module, reduction: str = "mean") -> Tensor:
    """Half the squared error up to 1 in scaled units, linear beyond: large errors pull less (Huber 1964)."""
    return F.huber_loss(output(raw), target, reduction=reduction, delta=1.0)


LOSSES: dict[str, Loss] = {"mse": mse, "bce": bce, "huber": huber}


def reconstruction_loss(name: str) -> Loss:
    """Find a loss by name.

    Raises:
        InputError: an unknown name.
    """
    if name not in LOSSES:
        raise InputError(f"loss: expected {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name]
