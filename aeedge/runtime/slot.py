"""Arrays of the caller's own, bound once: what a control loop uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.manifest import InputSpec
    from aeedge.types import Floats


class Slot:
    """An input array and what the methods make of it; `Model.bind` makes one, for one thread.

    Write samples into `input`, then call `encode()`, `denoise()`, `residual()`, `score()` or `features()`. Each returns
    the same array at every call, float32, which is valid until the next call of this slot, of the shape that the
    model's method of this name gives.

    A call raises InputError for NaN or infinity, which it names, or with invalid="propagate" gives NaN for those
    samples; AeedgeError once the model is closed.

    Attributes:
        input: (n, *shape) of the model's dtype, raw units, zeros at first.
    """

    def __init__(self, bind: Callable[[str, NDArray[Any]], Callable[[], Floats]], spec: InputSpec, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"bind: expected a whole number of samples of at least 1, got {n!r}")
        self._bind = bind
        self.input: NDArray[Any] = np.zeros((n, *spec.shape), spec.dtype)

    # Functions that are kept as attributes: a call is then one call of Python, and onnxruntime's.

    @cached_property
    def encode(self) -> Callable[[], Floats]:
        """Latents of `input`, (n, *latent_shape)."""
        return self._bind("encode", self.input)

    @cached_property
    def denoise(self) -> Callable[[], Floats]:
        """Reconstructions of `input`, (n, *shape), in raw units."""
        return self._bind("denoise", self.input)

    @cached_property
    def residual(self) -> Callable[[], Floats]:
        """Residuals of `input` in scaled units, (n, *shape)."""
        return self._bind("residual", self.input)

    @cached_property
    def features(self) -> Callable[[], Floats]:
        """What a front end makes of `input`, (n, *features_shape)."""
        return self._bind("features", self.input)

    @cached_property
    def score(self) -> Callable[[], Floats]:
        """Anomaly scores of `input`, (n,)."""
        return self._bind("score", self.input)
