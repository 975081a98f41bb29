"""How samples of a stream become rows of a model: what a bundle says of its windows, or what its shape says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import SignalSpec
from aeedge.errors import InputError
from aeedge.runtime.batch import as_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.bundle.reader import Bundle
    from aeedge.model import Model

_DAY, _WEEK = 86_400.0, 604_800.0
_MONDAY = 4 * _DAY  # the first one after 1 January 1970, a Thursday


class Layout:
    """Windows of a model, and the samples that they are made of.

    A bundle that was made from recordings says what its windows are. Of others the shape of a sample is taken: of two
    axes, (window, channels), or (channels, window) where `training.channels` is "first"; of one axis, the values of one
    moment where they have names, otherwise a window of one channel.

    Attributes:
        signal: channels, window, hop, rate.
        dtype: of the samples.

    Raises:
        InputError: samples of the model are no windows, as images.
    """

    def __init__(self, model: Model | Bundle) -> None:
        if not hasattr(model, "manifest"):
            raise InputError(f"model: expected what aeedge.load gives, got {model!r:.80}")
        spec = model.manifest.input
        self.dtype = np.dtype(spec.dtype)
        self._shape = spec.shape
        self._channels_first = spec.signal is None and model.manifest.training.get("channels", "first") == "first"
        self.signal = spec.signal or self._guessed(model)
        self.window, self.width = self.signal.window, self.signal.width
        self._turned = len(self._shape) == 2 and self._channels_first
        self._named = spec.signal is not None or spec.features is not None

    def _guessed(self, model: Model | Bundle) -> SignalSpec:
        spec, shape = model.manifest.input, model.manifest.input.shape
        if len(shape) == 1 and spec.features is not None:
            return SignalSpec(spec.features, 1, 1, units=spec.units)
        if len(shape) == 1:
            return SignalSpec(("0",), shape[0], max(1, shape[0] // 4))
        if len(shape) != 2:
            raise InputError(
                f"{model.path}: expected a model of windows (samples, channels), its samples have the shape {shape}; a "
                "stream cannot be cut into those"
            )
        channels, length = shape if self._channels_first else shape[::-1]
        return SignalSpec(tuple(map(str, range(channels))), length, max(1, length // 4))

    def samples(self, given: ArrayLike) -> NDArray[Any]:
        """Samples (k, channels) in the model's dtype; NaN and infinity stay, also where it takes integers (as floats).

        Raises:
            InputError: another number of channels, no numbers, or numbers that an integer model cannot take.
        """
        channels = self.signal.channels
        found = as_array(given, "samples", channels if self._named else None)
        if found.dtype == object:  # None among numbers is a missing value
            try:
                found = found.astype(np.float64)
            except (ValueError, TypeError) as error:
                raise InputError(f"samples: expected numbers (k, {len(channels)}), got {error}") from None
        if found.ndim == 1:
            found = found[:, np.newaxis] if len(channels) == 1 else found[np.newaxis]
        if found.ndim != 2 or found.shape[1] != len(channels) or found.dtype.kind not in "fiub":
            raise InputError(
                f"samples: expected numbers (k, {len(channels)}), for the channels are {', '.join(channels[:8])}"
                f"{' …' if len(channels) > 8 else ''}; got an array {np.shape(given)} {found.dtype}"
            )
        if found.dtype == self.dtype:
            return found
        if self.dtype.kind == "f":
            with np.errstate(over="ignore"):
                return found.astype(self.dtype)
        whole = found if found.dtype.kind in "iub" else found[np.isfinite(found).all(axis=1)]
        limits = np.iinfo(self.dtype)
        if whole.size and (whole.min() < limits.min or whole.max() > limits.max or (whole != np.trunc(whole)).any()):
            raise InputError(
                f"samples: expected whole numbers from {limits.min} to {limits.max}, as the model was trained with "
                f"{self.dtype}, got others; pass what the sensor gives, without scaling"
            )
        return found.astype(self.dtype) if len(whole) == len(found) else found

    def with_calendar(self, samples: NDArray[Any], times: NDArray[np.float64]) -> NDArray[Any]:
        """Samples (k, channels) with the channels that are made of their times, (k, width)."""
        return np.concatenate([samples, calendar_channels(times, self.signal.calendar)], axis=1, dtype=self.dtype)

    def rows(self, windows: NDArray[Any]) -> NDArray[Any]:
        """Windows (n, window, width) in the model's shape."""
        if self._turned:
            return windows.swapaxes(1, 2)
        return windows if len(self._shape) == 2 else windows.reshape(len(windows), *self._shape)

    def windows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The reverse of `rows`: (n, window, width)."""
        return rows.swapaxes(1, 2) if self._turned else rows.reshape(len(rows), self.window, self.width)


def calendar_channels(times: NDArray[np.float64], calendar: tuple[str, ...]) -> NDArray[np.float32]:
    """Sine and cosine of the time of day and of the week, (k, 2 · periods); times (k,) in seconds since 1970 UTC."""
    found = np.empty((len(times), 2 * len(calendar)), np.float32)
    for i, period in enumerate(calendar):
        length, start = (_DAY, 0.0) if period == "day" else (_WEEK, _MONDAY)
        phase = 2 * math.pi * (((times - start) % length) / length)
        found[:, 2 * i], found[:, 2 * i + 1] = np.sin(phase), np.cos(phase)
    return found
