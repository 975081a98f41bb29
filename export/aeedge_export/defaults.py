"""What "auto" means: settings from the data's shape, and checks of what was asked for.

The rules are those of benchmarks/quality.py; a person who sets nothing gets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from aeedge.errors import InputError
from aeedge_export.networks.base import Design
from aeedge_export.scaling import Scaler, Statistics
from aeedge_export.training import SCHEDULES, Settings

_STEPS = 6000  # of the optimiser, about, where epochs are "auto"


@dataclass(frozen=True)
class Resolved:
    """Parameters with every "auto" replaced, and notes about what was changed."""

    design: Design
    settings: Settings
    notes: tuple[str, ...]


def resolve(
    params: Mapping[str, Any],
    input_shape: tuple[int, ...],
    rows: int,
    scaler: Scaler,
    statistics: Statistics,
    seed: int,
) -> Resolved:
    """Replace every "auto" and check the rest.

    Args:
        params: the estimator's parameters.
        input_shape: shape of one row.
        rows: number of training rows.
        scaler: the fitted scaler.
        statistics: of the raw training rows.
        seed: for the order of rows.

    Raises:
        InputError: a parameter that does not fit the data, or is of a wrong type.
    """
    size = prod(input_shape)
    unit_range = _unit_range(scaler, statistics)
    latent = _latent(params["latent"], size)
    notes = []
    batch_size = _whole("batch_size", params["batch_size"], 64 if rows < 20_000 else 256)
    if batch_size > rows:
        if params["batch_size"] != "auto":
            notes.append(f"{rows} training rows are fewer than a batch of {batch_size}: each epoch is one step")
        batch_size = rows
    output = params["output"]
    if output == "auto":
        output = "sigmoid" if params["loss"] == "bce" or (scaler.kind == "shared" and unit_range) else "linear"
    if params["loss"] == "bce" and not unit_range:
        low, high = _scaled_range(scaler, statistics)
        raise InputError(
            f"loss 'bce' needs values from 0 to 1 after scaling, got {low:.4g} to {high:.4g}; "
            "use scaling='minmax', or loss='mse'"
        )
    design = Design(
        input_shape=input_shape,
        latent=latent,
        hidden=_hidden(params["hidden"], size, latent),
        activation=params["activation"],
        latent_activation=params["latent_activation"],
        output=output,
        loss=params["loss"],
    )
    return Resolved(design, _settings(params, rows, batch_size, seed), tuple(notes))


def _settings(params: Mapping[str, Any], rows: int, batch_size: int, seed: int) -> Settings:
    steps = max(1, rows // batch_size)
    epochs = _whole("epochs", params["epochs"], int(np.clip(_STEPS // steps, 20, 400)))
    if params["schedule"] not in SCHEDULES:
        raise InputError(f"schedule: expected {', '.join(SCHEDULES)}, got {params['schedule']!r}")
    clip, patience = params["gradient_clip"], params["patience"]
    return Settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=_positive("learning_rate", params["learning_rate"], 2e-3),
        weight_decay=0.0 if params["weight_decay"] == 0 else _positive("weight_decay", params["weight_decay"], 0.0),
        schedule=params["schedule"],
        gradient_clip=None if clip is None else _positive("gradient_clip", clip, 1.0),
        patience=None if patience is None else _whole("patience", patience, max(10, epochs // 5)),
        seed=seed,
    )


def _latent(value: Any, size: int) -> int:
    latent = _whole("latent", value, min(32, max(1, size // 2)))
    if latent > size:
        raise InputError(
            f"latent: expected at most {size}, the number of values in a row, got {latent}; "
            "an autoencoder must have fewer latents than inputs to learn anything"
        )
    return latent


def _hidden(value: Any, size: int, latent: int) -> tuple[int, ...]:
    if isinstance(value, str) and value == "auto":
        return (int(np.clip(2 ** round(np.log2(max(4 * latent, size) * 1.0)), 16, 512)),)
    if isinstance(value, str) or not all(_is_whole(width) and width > 0 for width in value):
        raise InputError(f"hidden: expected 'auto' or whole numbers above 0, got {value!r}")
    return tuple(int(width) for width in value)


def _unit_range(scaler: Scaler, statistics: Statistics) -> bool:
    low, high = _scaled_range(scaler, statistics)
    return low >= -1e-6 and high <= 1 + 1e-6


def _scaled_range(scaler: Scaler, statistics: Statistics) -> tuple[float, float]:
    low = (statistics.min - scaler.mean) / scaler.scale
    high = (statistics.max - scaler.mean) / scaler.scale
    return float(low.min()), float(high.max())


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _whole(name: str, value: Any, auto: int) -> int:
    if isinstance(value, str) and value == "auto":
        return auto
    if not _is_whole(value) or value < 1:
        raise InputError(f"{name}: expected 'auto' or a whole number of at least 1, got {value!r}")
    return int(value)


def _positive(name: str, value: Any, auto: float) -> float:
    if isinstance(value, str) and value == "auto":
        return auto
    if not isinstance(value, (int, float, np.floating, np.integer)) or not 0 < value < np.inf:
        raise InputError(f"{name}: expected a number above 0, got {value!r}")
    return float(value)
