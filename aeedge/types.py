"""Arrays as annotations name them; imported by type checkers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]
"""Samples (n, *shape) as a graph takes them: C-contiguous, float32, uint8 or int16."""

Floats = NDArray[np.float32]
"""Results: latents (n, k), reconstructions and residuals (n, *shape), scores (n,)."""
