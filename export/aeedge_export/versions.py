"""Versions of the packages that training and export depend on."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import sklearn
import torch

from aeedge import __version__


def versions() -> dict[str, str]:
    """Package name to version."""
    return {
        "aeedge": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
