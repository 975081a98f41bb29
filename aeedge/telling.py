"""Do an encoder's latents tell that a row held NaN or infinity? Tried out, for `aeedge tune`.

Where they do, a call looks at its latents, which are far fewer than the values of its rows.

Layers of weights add products, and all that a ReLU does is to make zero of what is negative. So what an infinite value
makes of a sum, infinity of some sign or NaN, no other value of its row can make finite again: what is added is finite
and changes nothing, or makes NaN of it, and NaN stays NaN. If a row with a single infinite value has latents that are
not finite, then so has every row with that value in that column, or with NaN there. It is enough to try each column
once with either sign; and with NaN, in batches of many sizes, whether this onnxruntime's ReLU keeps it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.finite import all_finite, may_tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.steps import Step

_BATCHES = *range(1, 17), 64, 256
_MOST_SECONDS = 0.5  # for as many rows as there are columns, three times for each way


def latents_tell(ways: Sequence[Step], row: NDArray[Any]) -> bool:
    """Whether no row that is not finite has finite latents; False also if that would take too long to find out.

    Args:
        ways: the steps of `encode` that may be taken.
        row: one whose latents are finite, of shape input_shape.
    """
    until = time.monotonic() + _MOST_SECONDS
    for step in ways:
        if step.dtype != "float32" or not may_tell(step.chain) or not all_finite(step.new(row[np.newaxis])):
            return False
        for bad in (np.inf, -np.inf, np.nan):
            for columns in _cut(row.size):
                rows = np.tile(row.reshape(-1), (len(columns), 1))
                rows[range(len(columns)), columns] = bad
                latents = step.new(rows.reshape(-1, *row.shape))
                if np.isfinite(latents).all(axis=1).any() or time.monotonic() > until:
                    return False
    return True


def _cut(columns: int) -> Iterator[range]:
    """All columns, in batches of many sizes."""
    first = 0
    for size in itertools.cycle(_BATCHES):
        if first >= columns:
            return
        yield range(first, min(first + size, columns))
        first += size
