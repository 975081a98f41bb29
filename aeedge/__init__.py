"""Run learned features on small machines: encode, decode, denoise and score with numpy and onnxruntime alone.

import aeedge
model = aeedge.load("motor.aeedge")
latents = model.encode(x)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aeedge.errors import (
    AeedgeError,
    BundleError,
    CorruptBundleError,
    IncompatibleBundleError,
    InputError,
    VerificationError,
)
from aeedge.loading import load
from aeedge.model import Model

if TYPE_CHECKING:
    from aeedge.recalibration import recalibrate

__version__ = "0.1.0"

__all__ = [
    "AeedgeError",
    "BundleError",
    "CorruptBundleError",
    "IncompatibleBundleError",
    "InputError",
    "Model",
    "VerificationError",
    "__version__",
    "load",
    "recalibrate",
]


def __getattr__(name: str) -> Any:
    """What few programs need is imported when it is first used."""
    if name == "recalibrate":
        from aeedge.recalibration import recalibrate

        return recalibrate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
