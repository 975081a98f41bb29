"""Codes of latents in a manifest: steps of a few bits, and what they cost.

Specified in docs/reference/bundle-format.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aeedge.bundle.json_node import Node
from aeedge.record import Record

BITS = (8, 4)
LEAST_ROWS = 20  # of an export, of which a half says what the range is, and a quarter each chooses and judges
_LARGEST, _SMALLEST = (2 - 2**-23) * 2.0**127, 2.0**-126  # of float32, without subnormal numbers


class CodeScale(Record):
    """The steps of one number of bits: code c of a latent stands for low + step·c.

    `low` and `step` have one number for each of the flattened latents, or a single one for all. `latent_error` is the
    root mean square of what rounding changes, divided by that of the latents around their means; `error_ratio` is, by
    variant, the mean squared reconstruction error with codes divided by that without, empty without a decoder.
    """

    low: tuple[float, ...]
    step: tuple[float, ...]
    latent_error: float
    error_ratio: Mapping[str, float]


class CodesSpec(Record):
    """Codes of latents: `scales` by the number of bits, whose errors were measured on so many `rows`."""

    rows: int
    scales: Mapping[int, CodeScale]

    def document(self) -> dict[str, Any]:
        """This as JSON."""
        return {"rows": self.rows, "scales": {str(bits): _scale_document(s) for bits, s in self.scales.items()}}


def code_bytes(latents: int, bits: int) -> int:
    """Bytes of the codes of so many latents."""
    return -(-latents * bits // 8)


def read_codes(node: Node, latents: int) -> CodesSpec:
    """The entry of a manifest, for so many latents; other numbers of bits, of a later aeedge, are passed over."""
    scales = node.get("scales").mapping()
    return CodesSpec(
        rows=node.get("rows").integer(1),
        scales={bits: _scale(scales[str(bits)], bits, latents) for bits in BITS if str(bits) in scales},
    )


def _scale(node: Node, bits: int, latents: int) -> CodeScale:
    low, step = _numbers(node.get("low"), latents, -_LARGEST), _numbers(node.get("step"), latents, _SMALLEST)
    if len(low) != len(step) or any(a + (2**bits - 1) * b > _LARGEST for a, b in zip(low, step)):
        raise node.get("step").wrong("as many steps as 'low' has numbers, which end within float32")
    return CodeScale(
        low=low,
        step=step,
        latent_error=node.get("latent_error").number(0.0),
        error_ratio={name: item.number(0.0) for name, item in node.get("error_ratio").mapping().items()},
    )


def _numbers(node: Node, latents: int, least: float) -> tuple[float, ...]:
    """One number or as many as there are latents, without a Node for each: a map may have thousands."""
    values = node.value
    if not isinstance(values, list) or len(values) not in (1, latents):
        raise node.wrong(f"a list of {latents} numbers, or of one")
    if not all(type(value) in (int, float) and least <= value <= _LARGEST for value in values):
        raise node.wrong(f"numbers from {least:g} to {_LARGEST:g}")
    return tuple(map(float, values))


def _scale_document(scale: CodeScale) -> dict[str, Any]:
    return scale._asdict() | {
        "low": list(scale.low),
        "step": list(scale.step),
        "error_ratio": dict(scale.error_ratio),
    }
