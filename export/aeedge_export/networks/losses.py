"""Reconstruction losses: functions of the decoder's output before its activation, the target, and that activation."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aeedge.errors import InputError

Loss = Callable[[Tensor, Tensor, nn.Module], Tensor]


def mse(raw: Tensor, target: Tensor, output: nn.Module) -> Tensor:
    """Mean squared error over all values, in squared scaled units."""
    return F.mse_loss(output(raw), target)


def bce(raw: Tensor, target: Tensor, output: nn.Module) -> Tensor:
    """Mean binary cross-entropy over all values, in nats; from logits, which is stable and cheaper than by sigmoid."""
    return F.binary_cross_entropy_with_logits(raw, target)


LOSSES: dict[str, Loss] = {"mse": mse, "bce": bce}


def reconstruction_loss(name: str) -> Loss:
    """Find a loss by name.

    Raises:
        InputError: an unknown name.
    """
    if name not in LOSSES:
        raise InputError(f"loss: expected {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name]
