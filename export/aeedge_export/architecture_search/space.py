"""What is tried: families, widths and numbers of latents that fit the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aeedge.errors import InputError, shortened
from aeedge_export.networks.convolutional import convolutional_choices

FAMILIES = ("dense", "conv1d", "conv2d", "pca")
_AXES = {"conv1d": 2, "conv2d": 3}  # of one row
_WIDTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
_TWO = ((128, 64), (256, 64))


@dataclass(frozen=True)
class Candidate:
    """A network to try.

    Attributes:
        name: unique, and the name of its folder.
        params: of an Autoencoder.
    """

    name: str
    params: dict[str, Any]

    @property
    def family(self) -> str:
        """The kind of network."""
        return str(self.params["family"])

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers, or channels."""
        return tuple(self.params.get("hidden", ()))

    @property
    def latent(self) -> int:
        """Number of latents."""
        return int(self.params["latent"])


def candidates(
    shape: tuple[int, ...], families: Sequence[str] | str, latents: Sequence[int], *, channels_last: bool = False
) -> list[Candidate]:
    """The candidates for rows of a shape.

    Args:
        shape: of one row, or of its features behind a front end.
        families: names; "auto" for all that take such rows.
        latents: numbers of latents.
        channels_last: whether the channels of signals and images are the last axis of a row.

    Raises:
        InputError: an unknown family, one that does not take such rows, or more latents than values in a row.
    """
    size = int(np.prod(shape))
    if "auto" in (families, *families):
        families = [family for family in FAMILIES if _AXES.get(family, len(shape)) == len(shape)]
    families = [families] if isinstance(families, str) else list(dict.fromkeys(families))
    if unknown := [family for family in families if family not in FAMILIES]:
        raise InputError(f"families: expected some of {', '.join(FAMILIES)}, got {shortened(unknown, 3)}")
    for family in families:
        if _AXES.get(family, len(shape)) != len(shape):
            what = {"conv1d": "signals, rows of two axes", "conv2d": "images, rows of three axes"}[family]
            raise InputError(f"families: {family!r} takes {what}, got rows of shape {shape}; leave it out")
    if many := [latent for latent in latents if not 0 < latent <= size]:
        raise InputError(f"latents: expected numbers from 1 to {size}, the values in a row, got {shortened(many, 3)}")
    found = []
    for latent in dict.fromkeys(latents):
        for family in families:
            for choice in _choices(shape, family, channels_last=channels_last):
                params = {"family": family, "latent": latent, **choice}
                found.append(Candidate(f"{family}-{_form(choice)}k{latent}", params))
    return found


def _choices(shape: tuple[int, ...], family: str, *, channels_last: bool) -> list[dict[str, Any]]:
    """Parameters of a family that are tried."""
    if family == "pca":
        return [{}]
    if family == "dense":
        return [{"hidden": hidden} for hidden in _widths(int(np.prod(shape)))]
    return convolutional_choices(shape, family, channels_last=channels_last)


def _widths(size: int) -> Iterator[tuple[int, ...]]:
    """None, those up to 8 times the values in a row, and two layers where there are many."""
    widths = [width for width in _WIDTHS if width <= max(64, 8 * size)]
    yield ()
    yield from ((width,) for width in widths)
    yield from (pair for pair in _TWO if pair[0] in widths)


def _form(choice: dict[str, Any]) -> str:
    """The part of a name that tells choices of a family apart: 128-64-, none-, 16-32-s4-2-sep-."""
    if not choice:
        return ""
    parts = ["-".join(map(str, choice["hidden"])) or "none"]
    if (strides := choice.get("strides", "auto")) != "auto":
        parts.append("s" + "-".join(map(str, strides)))
    if choice.get("separable"):
        parts.append("sep")
    return "-".join(parts) + "-"
