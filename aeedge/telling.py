"""Do an encoder's latents tell that a row held NaN or infinity?

Where they do, a call looks at its latents, which are far fewer than the values of its rows.

Layers of weights add products, and all that a ReLU does is to make zero of what is negative. So what an infinite value
makes of a sum, infinity of some sign or NaN, no other value of its row can make finite again: what is added is finite
and changes nothing, or makes NaN of it, and NaN stays NaN. If a row with a single infinite value has latents that are
not finite, then so has every row with that value in that column, or with NaN there. It is enough to try each column
once with either sign, which the exporter does. What else it takes, that ReLU keeps NaN, is up to the implementation,
and is tried where the encoder runs. docs/decisions/0011-latents-that-tell.md has the argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aeedge.finite import all_finite

if TYPE_CHECKING:
    from aeedge.rows import Floats
    from aeedge.session import Session

_OF_WEIGHTS = {"Add", "Conv", "Div", "Gemm", "MatMul", "Mul", "Sub"}  # in a chain the other input is constant
_KEEPING = _OF_WEIGHTS | {"Flatten", "LeakyRelu", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_BAD = np.nan, np.inf, -np.inf
_AT_ONCE = 256  # rows


def latents_tell(encoder: Session, row: Floats) -> bool:
    """Whether no row that is not finite has finite latents: each column is tried, for the exporter and `self_check`.

    Args:
        encoder: its session.
        row: of the encoder's dtype and shape; one whose latents are finite.
    """
    if row.dtype != np.float32 or not still_tell(encoder, row.shape) or not all_finite(encoder.run(row[np.newaxis])):
        return False
    for bad in _BAD:
        for first in range(0, row.size, _AT_ONCE):
            columns = range(first, min(first + _AT_ONCE, row.size))
            rows = np.tile(row.reshape(-1), (len(columns), 1))
            rows[range(len(columns)), columns] = bad
            if _any_finite(encoder.run(rows.reshape(-1, *row.shape))):
                return False
    return True


def still_tell(encoder: Session, shape: tuple[int, ...]) -> bool:
    """Whether latents that tell elsewhere do so here, of float32 rows: the graph is such a chain, and NaN gets through.

    Tried in batches of some sizes, which takes the time of six rows.
    """
    if not may_tell(encoder.chain):
        return False
    size = math.prod(shape)
    for bad in (_BAD[:1], _BAD[:2], _BAD):
        rows = np.zeros((len(bad), size), np.float32)
        rows[range(len(bad)), [0, size // 2, size - 1][: len(bad)]] = bad
        if _any_finite(encoder.run(rows.reshape(-1, *shape))):
            return False
    return True


def may_tell(chain: Sequence[str]) -> bool:
    """Whether an encoder consists of nothing but weights, ReLU and reshaping."""
    return bool(chain) and _KEEPING.issuperset(chain)


def _any_finite(latents: Floats) -> bool:
    """Whether any row of latents (n, k) is finite."""
    return bool(np.isfinite(latents).all(axis=1).any())
