"""Recordings to windows: arrays, frames and files, several at once; no window crosses a recording or a gap."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aeedge.errors import InputError
from aeedge.files.times import as_rate
from aeedge_export.data.cutting import Cutting, Windows, cut
from aeedge_export.data.dataset import Selection
from aeedge_export.data.recording_arrays import from_objects
from aeedge_export.data.recording_files import read_recordings
from aeedge_export.data.segments import Recording

__all__ = ["Windows", "window"]


def window(
    recordings: Any,
    *,
    window: int,
    hop: int | None = None,
    rate: float | str | None = None,
    channels: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    times: Any = None,
    resample: float | str | None = None,
    calendar: Sequence[str] = (),
    missing: str = "refuse",
) -> Windows:
    """Cut recordings into windows to train on: `Autoencoder().fit_rows(w.X, signal=w.signal)`.

    Args:
        recordings: one recording or a list of them, each later in time than the one before: arrays (samples,) or
            (samples, channels), frames (pandas, polars, pyarrow) whose numeric columns are channels, or paths of files
            as `aeedge train` reads them.
        window: samples of a window.
        hop: samples from one window's start to the next; default: a quarter of a window.
        rate: samples a second, also as text such as "50Hz", "8kHz" or "5min" (a sample every 5 minutes); default: found
            in the times, or in the header of a WAV file.
        channels: names for the columns of arrays; of frames and files, those to take. Default: all that are measured.
        units: of the channels.
        times: of arrays the time of each sample, (samples,), for several recordings a list of these: dates, text, or
            seconds since some start. Of frames and files, the name of the column. Default: found out.
        resample: a rate that samples are brought to, by linear interpolation within stretches without a gap.
        calendar: "day", "week": for each two more channels, sine and cosine of the time of day or of the week.
        missing: what NaN and codes such as -9999 are: "refuse", "drop" (no window has them) or "median" (filled).

    Raises:
        InputError: recordings that are too short, of unlike channels or rates, or irregular in time; or parameters that
            do not fit.
    """
    channels = (channels,) if isinstance(channels, str) else channels
    cutting = Cutting(
        window,
        hop,
        None if rate is None else as_rate("rate", rate),
        None if resample is None else as_rate("resample", resample),
        (calendar,) if isinstance(calendar, str) else tuple(calendar),
        missing,
    ).checked()
    if channels is not None and len(set(channels)) < len(channels):
        raise InputError(f"channels: expected each name once, got {', '.join(map(str, channels))}")
    if _are_paths(recordings):
        paths = [recordings] if isinstance(recordings, (str, os.PathLike)) else list(recordings)
        selection = Selection(columns=tuple(channels or ()), time=times)
        found = read_recordings(paths, selection, missing=missing != "refuse")
    else:
        found = from_objects(recordings, channels, times)
    if units is not None:
        found = [_with_units(one, units) for one in found]
    return cut(found, cutting)


def _are_paths(recordings: Any) -> bool:
    if isinstance(recordings, (str, os.PathLike)):
        return True
    are_paths = (
        [isinstance(one, (str, os.PathLike)) for one in recordings] if isinstance(recordings, (list, tuple)) else []
    )
    if len(set(are_paths)) > 1:
        raise InputError(
            "recordings: expected either paths of files or arrays and frames, got some of both; read files first"
        )
    return bool(are_paths) and are_paths[0]


def _with_units(recording: Recording, units: Sequence[str]) -> Recording:
    if isinstance(units, str) or len(units) != len(recording.channels):
        raise InputError(f"units: expected one for each of {len(recording.channels)} channels, got {units!r:.80}")
    return replace(recording, units=tuple(map(str, units)))
