"""Recordings that a program holds: arrays, and frames whose numeric columns are channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, absent, printable, shortened
from aeedge.files.times import to_seconds
from aeedge.runtime.frames import as_rows, frame_columns
from aeedge_export.data.clocks import find_times
from aeedge_export.data.columns import why_not_by_values
from aeedge_export.data.segments import Recording
from aeedge_export.data.tensors import without_tensor

_KEPT = ("uint8", "int16", "float32", "float64")  # dtypes of samples that windows keep


def from_objects(recordings: Any, channels: Sequence[str] | None, times: Any) -> list[Recording]:
    """Arrays and frames as recordings; see `aeedge_export.window`.

    Raises:
        InputError: something else, columns that are not there, or times that do not fit.
    """
    if isinstance(recordings, (list, tuple)) and not len(recordings):
        raise InputError("recordings: expected one or more, got none")
    several = isinstance(recordings, (list, tuple)) and not np.isscalar(recordings[0])
    if several and isinstance(recordings[0], (list, tuple)):  # the rows of one
        several = False
    given = list(recordings) if several else [recordings]
    clocks = list(times) if several and times is not None and not isinstance(times, str) else [times] * len(given)
    if len(clocks) != len(given):
        raise InputError(f"times: expected those of {len(given)} recordings, got {len(clocks)}")
    names = [f"recording {i}" if several else "recordings" for i in range(len(given))]
    return [_from_object(*one, channels) for one in zip(given, names, clocks)]


def _from_object(given: Any, name: str, times: Any, channels: Sequence[str] | None) -> Recording:
    given = without_tensor(given, name)
    columns = frame_columns(given)
    if columns is not None and not columns[2]:
        return _from_frame(given, name, times, channels)
    try:
        samples = np.asarray(as_rows(given, name))
    except ValueError as error:
        raise InputError(f"{name}: expected samples (samples, channels), got {error}") from None
    samples = as_samples(samples, name)
    width = samples.shape[1]
    found = tuple(f"x{i}" for i in range(width)) if channels is None else tuple(map(str, channels))
    if len(found) != width or len(set(found)) < width:
        raise InputError(
            f"channels: expected {width} different names for the columns of {name}, got {shortened(found)}"
        )
    if isinstance(times, str):
        raise InputError(f"times: expected the time of each sample of {name}, an array, got {times!r}")
    if times is None:
        return Recording(name, samples, found)
    seconds, how = to_seconds(np.asarray(times) if isinstance(times, np.ndarray) else list(times))
    if len(seconds) != len(samples):
        raise InputError(
            f"times: expected one for each of the {len(samples):,} samples of {name}, got {len(seconds):,}"
        )
    notes = (f"{name}: {how.note}",) if how.note else ()
    return Recording(name, samples, found, times=seconds, dated=how.dated, notes=notes)


def _from_frame(frame: Any, name: str, times: Any, channels: Sequence[str] | None) -> Recording:
    columns = frame_columns(frame)
    assert columns is not None
    labels, column, _ = columns
    places = {str(label): i for i, label in enumerate(labels)}
    for asked in (*(channels or ()), *([times] if isinstance(times, str) else [])):
        if asked not in places:
            raise InputError(f"{name}: {absent(str(asked), places)}")
    values = {label: np.asarray(column(i)) for label, i in places.items()}
    times = _frame_times(frame, values, name, times)
    left_out, chosen = {}, []
    for label, found in values.items() if channels is None else ():
        reason = "text" if not _is_numeric(found) else why_not_by_values(label, as_rows(frame, name, [label])[:, 0])
        reason = "the time" if times is not None and label == times[0] else reason
        if reason:
            left_out[label] = reason
        else:
            chosen.append(label)
    names = chosen if channels is None else list(map(str, channels))
    if not names:
        raise InputError(f"{name}: expected columns of numbers, got {shortened(places)}; name some (channels=...)")
    notes = [f"{name}: channels {shortened(names)}"]
    if left_out:
        notes.append("left out: " + shortened([f"{printable(label)} ({why})" for label, why in left_out.items()]))
    if times is None:
        return Recording(name, as_samples(as_rows(frame, name, names), name), tuple(names), notes=tuple(notes))
    label, seconds, how = times
    notes += [f"{name}: {how.note}"] if how.note else []
    samples = as_samples(as_rows(frame, name, names), name)
    return Recording(name, samples, tuple(names), times=seconds, time=label, dated=how.dated, notes=tuple(notes))


def _frame_times(frame: Any, values: dict[str, NDArray[Any]], name: str, asked: Any) -> Any:
    """Name, times and format of what tells the time in a frame, None without."""
    if asked is not None and not isinstance(asked, str):
        seconds, how = to_seconds(asked if isinstance(asked, np.ndarray) else list(asked))
        return None, seconds, how
    if asked is not None:
        found = values[asked]
        return find_times({asked: _cells(found)}, ".", name, asked)
    index = getattr(frame, "index", None)
    if index is not None and not callable(index) and (np.asarray(index).dtype.kind == "M" or hasattr(index, "tz")):
        seconds, how = to_seconds(_cells(np.asarray(index)))
        return getattr(index, "name", None), seconds, how
    dates = [label for label, found in values.items() if found.dtype.kind == "M" or not _is_numeric(found)]
    return find_times({label: _cells(values[label]) for label in dates}, ".", name)


def _cells(values: NDArray[Any]) -> Any:
    """A column as `to_seconds` takes it."""
    return values if values.dtype.kind == "M" else values.tolist()


def _is_numeric(values: NDArray[Any]) -> bool:
    """Whether a column holds numbers, if as objects and with missing ones."""
    if values.dtype.kind != "O":
        return values.dtype.kind in "fiub"
    known = [
        value for value in values.tolist() if value is not None and type(value).__name__ not in ("NAType", "NaTType")
    ]
    return bool(known) and all(isinstance(value, (int, float)) for value in known)


def as_samples(samples: NDArray[Any], name: str) -> NDArray[Any]:
    """An array as samples (n, channels) in a dtype that windows keep.

    Raises:
        InputError: another shape, or no numbers.
    """
    if samples.ndim == 1:
        samples = samples[:, np.newaxis]
    if samples.ndim == 3:
        raise InputError(
            f"{name}: expected a recording (samples, channels), got {samples.shape}; if these are windows already, "
            "train on them as they are"
        )
    if samples.ndim != 2 or samples.dtype.kind not in "fiub" or not samples.shape[1]:
        raise InputError(f"{name}: expected numbers (samples, channels), got an array {samples.shape} {samples.dtype}")
    if not len(samples):
        raise InputError(f"{name}: expected samples, but it has none")
    if samples.dtype.name in _KEPT:
        return samples
    with np.errstate(over="ignore"):
        return samples.astype(np.float32)
