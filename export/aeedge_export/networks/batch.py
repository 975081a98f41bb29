"""What a loss needs to know of all rows of a step, which may be spread over several processes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Batch:
    """The rows of a step, all of them in this process (`aeedge_export.training.distributed` has those of several)."""

    def draw(self, function: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
        """Random numbers for the rows of `like` (n, ...): `function(like)`, for example `torch.randn_like`."""
        return function(like)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the rows: (n, ...) to (...)."""
        return values.mean(dim=0)
