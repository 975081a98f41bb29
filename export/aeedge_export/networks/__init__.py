"""The families: how each builds its network. `build` is the one way in."""

from __future__ import annotations

from collections.abc import Callable

import torch

from aeedge.errors import InputError
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.dense import dense

FAMILIES: dict[str, Callable[[Design], Network]] = {
    "dense": dense,
}


def build(family: str, design: Design, seed: int) -> Network:
    """A network with freshly drawn weights; the same seed gives the same weights.

    Raises:
        InputError: an unknown family, or a design that it cannot build.
    """
    if family not in FAMILIES:
        raise InputError(f"family: expected {', '.join(FAMILIES)}, got {family!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[family](design)
