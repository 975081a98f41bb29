"""Rows as pictures for the report: images as PNG inside the page, signals as curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LARGEST = 256  # pixels of a side; larger images are not kept with a run
_SAMPLES = 512  # of a signal


def image_shape(shape: tuple[int, ...], names: Sequence[str] | None = None) -> tuple[int, ...] | None:
    """(channels, height, width) of rows that can be shown as images.

    Args:
        shape: of a row, channels first; flat rows of 64, 784 … values count as square.
        names: of the columns; flat rows with other names than pixel0, px_1_2 … are a table.
    """
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape
    named = names is not None and not all(name.lower().startswith(("pix", "px")) for name in names)
    side = round(shape[0] ** 0.5) if len(shape) == 1 and not named else 0
    return (1, side, side) if side >= 8 and side * side == shape[0] else None


def png(pixels: NDArray[Any], low: float, high: float) -> str:
    """Pixels (channels, height, width) between `low` and `high` as the address of a PNG."""
    grey = np.clip((pixels - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    image = Image.fromarray(grey[0] if grey.shape[0] == 1 else grey.transpose(1, 2, 0))
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def of_residual(
    row: NDArray[Any], back: NDArray[Any], scale: NDArray[Any], names: Sequence[str] | None = None
) -> dict[str, Any]:
    """What shows a row's residual: "picture", input, output and residual side by side; or "signal", two curves.

    Args:
        row: channels first, in raw units.
        back: its reconstruction.
        scale: of the residual, broadcasts to a row.
        names: of the columns of a table.

    Returns:
        Empty for rows of tables, whose values have names.
    """
    shape = image_shape(row.shape, names)
    residual = np.abs((row - back) / scale)
    if shape is not None and max(shape[1:]) <= _LARGEST:
        low, high = float(row.min()), float(row.max())
        shown = [np.clip((part - low) / max(high - low, 1e-12), 0, 1) for part in (row, back)]
        shown.append(residual / max(float(residual.max()), 1e-12))
        return {"picture": png(np.concatenate([part.reshape(shape) for part in shown], axis=2), 0.0, 1.0)}
    if row.ndim == 2 and row.shape[1] > 1:
        channel = int(residual.max(axis=1).argmax())
        start = int(np.clip(residual[channel].argmax() - _SAMPLES // 2, 0, max(row.shape[1] - _SAMPLES, 0)))
        part = slice(start, start + _SAMPLES)
        curves = {"input": row[channel, part], "output": back[channel, part]}
        values = {name: [float(f"{value:.5g}") for value in curve] for name, curve in curves.items()}
        return {"signal": {"channel": channel, "start": start, **values}}
    return {}
