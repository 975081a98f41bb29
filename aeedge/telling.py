"""Does the first latent of a row tell that the row held NaN or infinity?

Where it does, a call looks at one number a row instead of all its values.

Layers of weights add products, and all that a ReLU does is to make zero of what is negative. So what an infinite value
makes of a sum, infinity of some sign or NaN, no other value of its row can make finite again: what is added is finite
and changes nothing, or makes NaN of it, and NaN stays NaN. If the first latent of a row with a single infinite value
is not finite, then it is not for any row with that value in that column, or with NaN there. It is enough to try each
column once with either sign, which the exporter does. What else it takes, that ReLU keeps NaN, is up to the
implementation, and is tried where the encoder runs. docs/decisions/0011-latents-that-tell.md has the argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeedge.finite import BAD, all_finite, still_tell

if TYPE_CHECKING:
    from aeedge.rows import Floats
    from aeedge.session import Session

_AT_ONCE = 256  # rows


def first_latent_tells(encoder: Session, row: Floats) -> bool:
    """Whether no row that is not finite has a finite first latent: each column is tried, at export and by `self_check`.

    Args:
        encoder: its session.
        row: of the encoder's dtype and shape; one whose latents are finite.
    """
    chain, run = encoder.chain, encoder.run
    if row.dtype != np.float32 or not still_tell(chain, run, row.shape) or not all_finite(run(row[np.newaxis])):
        return False
    for bad in BAD:
        for first in range(0, row.size, _AT_ONCE):
            columns = range(first, min(first + _AT_ONCE, row.size))
            rows = np.tile(row.reshape(-1), (len(columns), 1))
            rows[range(len(columns)), columns] = bad
            if np.isfinite(run(rows.reshape(-1, *row.shape))[:, 0]).any():
                return False
    return True
