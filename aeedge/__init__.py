"""Run learned features on small machines: encode, decode, denoise and score with numpy and onnxruntime alone.

import aeedge
model = aeedge.load("motor.aeedge")
latents = model.encode(x)
"""

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
]
