"""Recordings cut into windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.runtime.batch import as_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def window(samples: ArrayLike, length: int, hop: int | None = None) -> NDArray[Any]:
    """Windows of a recording: (samples, channels), or (samples,) of one channel, to (n, length, channels).

    Args:
        samples: the recording. An array is not copied: the windows are a view of it that cannot be written to.
        length: samples of a window.
        hop: samples from the start of one window to that of the next; None for a quarter of a window, at least 1.

    Returns:
        All n = (samples - length) // hop + 1 windows that are complete.

    Raises:
        InputError: no recording, a length or a hop that is none, or a recording shorter than a window.
    """
    recording = as_array(samples, "samples")
    if recording.ndim == 1:
        recording = recording[:, np.newaxis]
    if recording.ndim != 2 or recording.dtype.kind not in "fiub":
        raise InputError(
            f"samples: expected numbers (samples, channels), got an array {recording.shape} {recording.dtype}"
        )
    length = as_count("length", length)
    hop = max(1, length // 4) if hop is None else as_count("hop", hop)
    if len(recording) < length:
        raise InputError(
            f"samples: expected a recording of {length} samples or more, as a window has, got {len(recording)}; "
            "use shorter windows or a longer recording"
        )
    views = np.lib.stride_tricks.sliding_window_view(recording, length, axis=0)[::hop]
    return views.swapaxes(1, 2)


def as_count(name: str, value: Any, most: int = 2**53) -> int:
    """A whole number of at least 1.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name}: expected a whole number of at least 1, got {value!r:.60}")
    if value > most:
        raise InputError(f"{name}: expected a whole number of at most {most}, got a larger one")
    return int(value)
