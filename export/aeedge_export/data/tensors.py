"""Rows that come as torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aeedge.errors import InputError


def without_tensor(values: Any, what: str) -> Any:
    """A torch tensor (on any device, with gradient, of few digits, sparse) or a matrix as an array; all else as it is.

    Args:
        values: whatever a caller gives as rows.
        what: how messages name it.

    Raises:
        InputError: a tensor without values.
    """
    if isinstance(values, np.matrix):
        return np.asarray(values)
    if not isinstance(values, torch.Tensor):
        return values
    try:
        dense = values.detach().to_dense() if values.layout is not torch.strided else values
        narrow = dense.is_floating_point() and dense.dtype not in (torch.float32, torch.float64)
        return (dense.float() if narrow else dense).numpy(force=True)  # numpy knows no bfloat16
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{what}: expected a tensor with values, got one that has none here ({reason})") from error
