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
    from aeedge.signals.crossfade import denoise_signal
    from aeedge.signals.stream import Stream
    from aeedge.signals.window import window

__version__ = "0.1.0"

__all__ = [
    "AeedgeError",
    "BundleError",
    "CorruptBundleError",
    "IncompatibleBundleError",
    "InputError",
    "Model",
    "Stream",
    "VerificationError",
    "__version__",
    "denoise_signal",
    "load",
    "recalibrate",
    "window",
]

_LATER = {  # what few programs need is imported when it is first used
    "Stream": "aeedge.signals.stream",
    "denoise_signal": "aeedge.signals.crossfade",
    "recalibrate": "aeedge.recalibration",
    "window": "aeedge.signals.window",
}


def __getattr__(name: str) -> Any:
    """What is not imported yet."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
