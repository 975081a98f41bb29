"""Recordings as stretches without a gap, at one rate: split where samples are missing, resampled on request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly

from aeedge.errors import InputError
from aeedge.files.times import rate_said, rate_text
from aeedge_export.data.clocks import Clock, read_clock

_MOST_SAMPLES = 10**9  # of a recording that is resampled
_TAPS, _PASSED = 40, 0.85  # of the low-pass: taps for each factor, and what it lets pass of the new Nyquist frequency
SAME_RATE = 0.01
"""By which rates of recordings may differ, relatively."""


@dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        name: for messages.
        samples: (n, channels); NaN where a value is missing.
        channels: names.
        units: of the channels, None where they are not known.
        times: of the samples, (n,) in seconds, NaN where one is not known; None without.
        time: name of the column that they are from, or its position from 0 where it has none; None without.
        dated: whether they count from 1970.
        rate: in Hz, as a header says; None without.
        labels: a class for each sample, (n,), None without.
        selected: mask of the samples that are wanted, None for all.
        dialect: how the text file is written, None for others.
        notes: what was found and guessed, in sentences.
    """

    name: str
    samples: NDArray[Any]
    channels: tuple[str, ...]
    units: tuple[str, ...] | None = None
    times: NDArray[np.float64] | None = None
    time: str | None = None
    dated: bool = False
    rate: float | None = None
    labels: NDArray[Any] | None = None
    selected: NDArray[np.bool_] | None = None
    dialect: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Segment:
    """Consecutive samples without a gap.

    Attributes:
        samples: (m, channels), a view of the recording where nothing was left out or resampled.
        rows: of the recording that each sample stands for, (m,), rising.
        times: of each sample, (m,) in seconds.
    """

    samples: NDArray[Any]
    rows: Sequence[int] | NDArray[np.intp]
    times: NDArray[np.float64] | None


class Stretches(NamedTuple):
    """What a recording is cut into at gaps.

    Attributes:
        segments: without a gap.
        rate: samples a second, after resampling; None if unknown.
        longest: seconds from one sample to the next, beyond which there is a gap; None if unknown.
        notes: what was found, in sentences.
    """

    segments: list[Segment]
    rate: float | None
    longest: float | None
    notes: list[str]


def segments(
    recording: Recording, bad: NDArray[np.bool_] | None, rate: float | None, resample: float | None
) -> Stretches:
    """The stretches of a recording.

    Args:
        recording: one.
        bad: mask of the samples that are missing or not wanted, None for none.
        rate: that was given, in Hz.
        resample: the rate that is wanted, in Hz; None to leave samples as they are.

    Raises:
        InputError: times that are irregular, or contradict the rate.
    """
    known, times = recording.rate if rate is None else rate, recording.times
    if rate is not None and recording.rate is not None and abs(rate / recording.rate - 1) > SAME_RATE:
        raise InputError(
            f"rate: expected {rate_said(recording.rate)}, as the header of {recording.name} says, got "
            f"{rate_said(rate)}; leave it out, or resample (resample='{rate_text(rate)}')"
        )
    clock = None
    if times is not None:
        if (lost := np.isnan(times)).any():
            bad = lost if bad is None else bad | lost
        clock = read_clock(times, recording.name, rate=known, dated=recording.dated, resample=resample is not None)
        known = clock.rate
    found = _runs(recording, clock, bad)
    notes = [] if clock is None else list(clock.notes)
    if resample is None:
        return Stretches(found, known, None if clock is None else clock.longest, notes)
    if known is None:
        raise InputError(
            f"resample: the rate of {recording.name} is not known; give it (rate=...), or a column of times"
        )
    if clock is not None and not clock.irregular and abs(known / resample - 1) < 1e-9:
        return Stretches(found, resample, clock.longest, notes)
    about = "about " if clock is not None and clock.irregular else ""
    notes.append(f"resampled from {about}{rate_said(known)} to {rate_said(resample)}")
    return Stretches([_resampled(one, known, resample) for one in found if len(one.samples) > 1], resample, None, notes)


def _runs(recording: Recording, clock: Clock | None, bad: NDArray[np.bool_] | None) -> list[Segment]:
    """Samples between breaks."""
    samples, times = recording.samples, recording.times
    keep = None if clock is None else clock.keep
    count = len(samples) if keep is None else len(keep)
    if bad is not None and keep is not None:
        bad = bad[keep]
    broken = np.zeros(max(count - 1, 0), np.bool_) if clock is None else clock.breaks
    if bad is not None:
        broken = broken | bad[1:] | bad[:-1]
    starts = np.concatenate([[0], np.flatnonzero(broken) + 1])
    stops = np.append(starts[1:], count)
    if bad is not None:
        good = ~bad[starts]
        starts, stops = starts[good], stops[good]
    found = []
    for start, stop in zip(starts.tolist(), stops.tolist()):
        rows = range(start, stop) if keep is None else keep[start:stop]
        at: Any = slice(start, stop) if keep is None else rows
        found.append(Segment(samples[at], rows, None if times is None else times[at]))
    return found


def _resampled(segment: Segment, source: float, rate: float) -> Segment:
    """A stretch at another rate: interpolated linearly; before samples are left out, what they cannot show is removed.

    Args:
        segment: two samples or more.
        source: its rate, in Hz; of irregular samples the median one.
        rate: the new one.
    """
    rows = np.asarray(segment.rows)
    times = rows / source if segment.times is None else segment.times
    count = float(times[-1] - times[0]) * rate
    if count > _MOST_SAMPLES:
        raise InputError(
            f"resample: expected a rate at which recordings have fewer than {_MOST_SAMPLES:,} samples, got "
            f"{rate_text(rate)}, at which one has {count:.3g}; take a lower one"
        )
    if count < 1:
        return Segment(segment.samples[:1].astype(np.float32), rows[:1], times[:1])
    factor = max(1, math.ceil(source / rate - 1e-6))
    fine = times[0] + np.arange(int((times[-1] - times[0]) * rate * factor + 1e-6) + 1) / (rate * factor)
    columns = segment.samples.astype(np.float64).T
    values = np.stack([np.interp(fine, times, column) for column in columns], axis=1)
    if factor > 1:
        low_pass = firwin(_TAPS * factor + 1, _PASSED / factor)
        values = resample_poly(values, 1, factor, axis=0, window=low_pass, padtype="line")
    grid = fine[::factor]
    places = np.searchsorted(times, grid, side="right") - 1
    return Segment(values.astype(np.float32), rows[np.clip(places, 0, len(rows) - 1)], grid)
