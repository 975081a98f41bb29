"""Missing values in raw samples, as a bundle's manifest describes them: which they are, and what replaces them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.manifest import InputSpec
    from aeedge.types import Block


def missing_values(block: Block, spec: InputSpec) -> NDArray[np.bool_]:
    """Mask of NaN and of the codes of `spec.missing` in raw samples: (n, *shape) of any numbers to the same, bool.

    Codes are compared in the dtype of the block, if it is one of floats.
    """
    floats = block.dtype.kind == "f"
    found = np.ascontiguousarray(np.isnan(block) if floats else np.zeros(block.shape, np.bool_))
    if spec.missing is None or not spec.missing.codes:
        return found
    values, mask = block.reshape(len(block), -1), found.reshape(len(block), -1)
    at = spec.positions(spec.missing.codes)
    for name, codes in spec.missing.codes.items():
        column = at[name]
        with np.errstate(over="ignore"):
            wanted = np.array(codes).astype(block.dtype) if floats else np.array(codes)
        for code in wanted:
            mask[:, column] |= values[:, column] == code
    return found


def missing_rows(block: Block, spec: InputSpec) -> NDArray[np.bool_]:
    """Which raw samples (n, *shape) have a missing value: (n,) bool."""
    return np.asarray(missing_values(block, spec).reshape(len(block), -1).any(axis=1))


def fill_missing(block: Block, spec: InputSpec) -> tuple[Block, int]:
    """Raw samples (n, *shape) with missing values replaced, and how many were; the same block where there are none.

    They become the numbers of `spec.missing.fill`, or NaN where the policy has none. Integers become float32.
    """
    found = missing_values(block, spec)
    count = int(np.count_nonzero(found))
    if not count:
        return block, 0
    fill = None if spec.missing is None else spec.missing.fill
    filled = np.array(block, block.dtype if block.dtype.kind == "f" else np.float32, order="C")
    np.copyto(filled, np.nan if fill is None else np.array(fill).reshape(spec.shape), casting="same_kind", where=found)
    return filled, count
