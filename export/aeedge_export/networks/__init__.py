"""The families of networks; `build` makes a network of any of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from aeedge.errors import InputError
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.convolutional import conv1d, conv2d
from aeedge_export.networks.copying import copied
from aeedge_export.networks.dense import contractive, dense, sparse
from aeedge_export.networks.linear import pca
from aeedge_export.networks.variational import vae

FAMILIES: dict[str, Callable[[Design], Network]] = {
    "dense": dense,
    "sparse": sparse,
    "contractive": contractive,
    "vae": vae,
    "conv2d": conv2d,
    "conv1d": conv1d,
    "pca": pca,
}
CUSTOM = "custom"


def build(
    family: str, design: Design, seed: int, modules: tuple[nn.Module | None, nn.Module | None] = (None, None)
) -> Network:
    """A network with freshly drawn weights; the same seed gives the same weights.

    Args:
        family: a key of FAMILIES, or "custom" for copies of `modules`.
        design: the architecture.
        seed: for the weights.
        modules: encoder and decoder of family "custom".

    Raises:
        InputError: an unknown family, or a design that it cannot build.
    """
    if family != CUSTOM and modules != (None, None):
        raise InputError(f"encoder, decoder: only family {CUSTOM!r} uses them, this is {family!r}; leave them out")
    if family == CUSTOM:
        if modules[0] is None or modules[1] is None:
            raise InputError("family 'custom' needs encoder= and decoder=, torch modules; pass both")
        return Network(copied(modules[0], "encoder"), copied(modules[1], "decoder"), design)
    if family not in FAMILIES:
        raise InputError(f"family: expected {', '.join([*FAMILIES, CUSTOM])}, got {family!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[family](design)
