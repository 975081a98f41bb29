"""Noise on the training inputs, drawn anew for every batch; the target stays clean (Vincent et al. 2008).

    gaussian:0.2        adds Gaussian noise of this standard deviation, in scaled units
    masking:0.3         sets this share of values to 0, in scaled units
    salt_pepper:0.1     sets this share of values to their minimum or maximum over the training rows
    dropout:0.4         sets this share to 0 and scales the others up, so that the expectation is unchanged

Several may be joined with "+" or "," and are applied in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aeedge.errors import InputError

KINDS = ("gaussian", "masking", "salt_pepper", "dropout")


def parse_noise(text: str | None) -> tuple[tuple[str, float], ...]:
    """Names and strengths, in order; empty for None, "" and "none".

    Raises:
        InputError: an unknown name, or a strength out of range.
    """
    if text is None or text in ("", "none"):
        return ()
    found = []
    for part in str(text).replace("+", ",").split(","):
        name, _, number = part.strip().partition(":")
        try:
            strength = float(number)
        except ValueError:
            strength = -1.0
        most = math.inf if name == "gaussian" else 1.0
        if name not in KINDS or not 0 <= strength < most:
            raise InputError(
                f"noise: expected names with strengths such as 'gaussian:0.2' or 'masking:0.3,salt_pepper:0.1' "
                f"({', '.join(KINDS)}; shares below 1), got {part.strip()!r}"
            )
        found.append((name, strength))
    return tuple(found)


def corruption(noise: tuple[tuple[str, float], ...], low: Tensor, high: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that corrupts scaled rows (n, *shape), with torch's random state.

    Args:
        noise: from `parse_noise`.
        low, high: minimum and maximum of each value in scaled units, of the shape of one row, for salt and pepper.
    """

    def corrupt(x: Tensor) -> Tensor:
        for name, strength in noise:
            if name == "gaussian":
                x = x + strength * torch.randn_like(x)
            elif name == "dropout":
                x = F.dropout(x, strength)
            elif name == "masking":
                x = x * (torch.rand_like(x) >= strength)
            else:
                chance = torch.rand_like(x)
                x = torch.where(chance < strength / 2, low, torch.where(chance < strength, high, x))
        return x

    return corrupt
