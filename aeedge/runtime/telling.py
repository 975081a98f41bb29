"""Do the latents of a row tell that it held NaN or infinity, and how many of them are enough?

Mostly the first one is: a call then looks at one number a row instead of all its values.

Layers of weights add products, and all that a ReLU does is to make zero of what is negative. So what an infinite value
makes of a sum, infinity of some sign or NaN, no other value of its row can make finite again: what is added is finite
and changes nothing, or makes NaN of it, and NaN stays NaN. If a latent of a row with a single infinite value is not
finite, then it is not for any row with that value in that column, or with NaN there. It is enough to try each column
once with either sign, which the exporter does. What else it takes, that ReLU keeps NaN, is up to the implementation,
and is tried where the encoder runs. docs/decisions/0011-latents-that-tell.md has the argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aeedge.runtime.nonfinite import BAD, all_finite, still_tell

if TYPE_CHECKING:
    from aeedge.runtime.batch import Floats
    from aeedge.runtime.session import Session

_AT_ONCE = 256  # rows


def telling_latents(encoder: Session, row: Floats) -> int:
    """How many latents, from the first on, have to be looked at: of any row that is not finite, one of them is not.

    Each column is tried, at export and by `self_check`. 0 if the latents do not tell.

    Args:
        encoder: its session.
        row: of the encoder's dtype and shape; one whose latents are finite.
    """
    chain, run = encoder.chain, encoder.run
    if row.dtype != np.float32 or not still_tell(chain, run, row.shape) or not all_finite(run(row[np.newaxis])):
        return 0
    needed = 1
    for bad in BAD:
        for first in range(0, row.size, _AT_ONCE):
            columns = range(first, min(first + _AT_ONCE, row.size))
            rows = np.tile(row.reshape(-1), (len(columns), 1))
            rows[range(len(columns)), columns] = bad
            told = ~np.isfinite(run(rows.reshape(-1, *row.shape)))
            if not told.any(axis=1).all():
                return 0
            needed = max(needed, 1 + int(told.argmax(axis=1).max()))
    return needed
