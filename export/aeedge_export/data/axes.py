"""Where the channels of signals and images are: in the first axis of a row or in the last one.

Explicit by `channels` ("first", "last") or `axes` ("nct", "ntc", "nchw", "nhwc"). Otherwise images have their channels
first unless only the last axis is small enough, and signals are decided by their statistics: features of unlike units
cannot share a scale, while the samples of one channel can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge_export.data.scaling import Statistics

CHANNELS = ("auto", "first", "last")
AXES = {"nct": "first", "ntc": "last", "nchw": "first", "nhwc": "last"}
_ROW = {
    (2, False): "(channels, samples)",
    (2, True): "(samples, channels)",
    (3, False): "(channels, height, width)",
    (3, True): "(height, width, channels)",
}
_HIDDEN = 0.1  # of a common deviation; what varies less is invisible beside the rest
_VANISHING = 0.001  # of it: less than time makes of a signal
_CLEARLY = 5.0  # times that one axis must be more unlike than the other
_SHORT = 4  # times that the last axis is shorter than the first where its length suggests channels
_MOST_CHANNELS = 4  # of an image: grey, with alpha, RGB, RGBA


def resolve_channels(
    channels: str, axes: str | None, statistics: Statistics, *, matters: bool, family: str
) -> tuple[bool, list[str]]:
    """Whether the channels of a row are in its last axis, and notes about how that was decided.

    Args:
        channels, axes: the estimator's parameters, checked.
        statistics: of the raw rows.
        matters: whether the layout of signals changes anything.
        family: "conv2d" refuses images whose channels seem to be last.

    Raises:
        InputError: `channels` and `axes` contradict each other, or the rows have other axes.
    """
    shape = statistics.mean.shape
    asked = _asked(channels, axes, shape)
    if asked is not None:
        return asked == "last", []
    if len(shape) == 3:
        return _images(shape, family)
    return _signals(statistics) if len(shape) == 2 and matters else (False, [])


def channels_first(rows: NDArray[Any], channels_last: bool) -> NDArray[Any]:
    """Rows (n, *shape) with the channels of each in its first axis."""
    return np.moveaxis(rows, -1, 1) if channels_last else rows


def _asked(channels: str, axes: str | None, shape: tuple[int, ...]) -> str | None:
    """ "first" or "last" where the parameters say so, checked against the rows; None for "auto"."""
    if axes is None and channels == "auto":
        return None
    if axes is not None:
        axes = str(axes).lower()
        if channels not in ("auto", AXES[axes]):
            raise InputError(
                f"axes: {axes!r} has its channels {AXES[axes]}, but channels={channels!r}; pass one of them"
            )
        if len(shape) != len(axes) - 1:
            raise InputError(
                f"axes: {axes!r} needs rows of {len(axes) - 1} axes, got rows of shape {shape}; "
                "reshape the rows, or leave it out"
            )
        return AXES[axes]
    if len(shape) not in (2, 3):
        raise InputError(
            f"channels: expected signals or images, rows of 2 or 3 axes, got rows of shape {shape}; leave it out"
        )
    return channels


def _images(shape: tuple[int, ...], family: str) -> tuple[bool, list[str]]:
    last = shape[2] <= _MOST_CHANNELS < min(shape[:2])
    if last and family == "conv2d":
        raise InputError(
            f"family 'conv2d' expects channels first, rows of shape (channels, height, width), got {shape}; "
            "for (height, width, channels) pass channels='last', otherwise channels='first'"
        )
    return last, [_taken(shape, last, ": only the last axis can be channels")] if last else []


def _signals(statistics: Statistics) -> tuple[bool, list[str]]:
    """Decide by what a scale common to all of an axis would hide."""
    first, last = statistics.mean.shape
    if first == 1:  # one channel: a row of one sample is no signal
        return False, []
    (seen_first, rough_first), (seen_last, rough_last) = (_likeness(statistics, axis) for axis in (0, 1))
    unlike_first = seen_first < _HIDDEN and seen_first * _CLEARLY < seen_last
    unlike_last = seen_last < _HIDDEN and seen_last * _CLEARLY < seen_first
    if unlike_last and rough_last > _smoothest(last, first, seen_last):
        return True, [_taken((first, last), True, ": the last axis holds values of unlike units")]
    if unlike_first and rough_first > _smoothest(first, last, seen_first):
        return False, []
    if last == 1 < first:
        return True, [_taken((first, last), True, ": one sample is no signal")]
    if unlike_last and last <= 2 * first:
        return False, [_taken((first, last), False, ", though the last axis holds values of unlike units, or a trend")]
    if _SHORT * last <= first:
        why = f", though {last} is small beside {first}"
        return False, [_taken((first, last), False, why)]
    return False, []


def _smoothest(length: int, other: int, seen: float) -> float:
    """Least roughness of an axis of channels: statistics differ along time too, but smoothly and by less."""
    if 2 * length <= other or (length <= 2 * other and seen < _VANISHING):
        return -1.0
    return 0.3 if length < other else 1.0


def _likeness(statistics: Statistics, axis: int) -> tuple[float, float]:
    """How alike the slices along an axis are: what the smallest of them has of their common deviation, 0 to 1; and how
    rough they are as a sequence: von Neumann's ratio of their means and log deviations, 2 for an arbitrary order, near
    0 along time.
    """
    mean, deviation = (np.moveaxis(values, axis, 0) for values in (statistics.mean, statistics.std))
    middle = mean.mean(axis=1)
    spread = np.sqrt((deviation**2 + (mean - middle[:, None]) ** 2).mean(axis=1))
    varies = spread > 1e-7 * np.abs(middle)
    middle, spread = middle[varies], spread[varies]
    if len(spread) < 2:
        return 1.0, 0.0
    common = np.sqrt((spread**2 + (middle - middle.mean()) ** 2).mean())
    sequence = np.stack([middle / common, np.log(spread)])
    about = np.square(sequence - sequence.mean(axis=1, keepdims=True)).sum()
    rough = np.square(np.diff(sequence)).sum() / max(about, 1e-30)
    return float(spread.min() / common), float(rough)


def _taken(shape: tuple[int, ...], last: bool, why: str) -> str:
    return f"rows of shape {shape} were taken as {_ROW[len(shape), last]}{why}; pass channels=... to be explicit"
