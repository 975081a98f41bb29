"""Recordings cut into windows: what a window is, from which stretches, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import CALENDAR, Missing, SignalSpec
from aeedge.errors import InputError, printable, shortened
from aeedge.files.times import as_rate, duration_text, rate_said, rate_text
from aeedge.signals.layout import calendar_channels
from aeedge.signals.window import as_count
from aeedge.signals.window import window as views_of
from aeedge_export.data.clocks import counted
from aeedge_export.data.labels import UNLABELLED, anomalous_class
from aeedge_export.data.missing import POLICIES
from aeedge_export.data.missing_samples import of_windows, without_missing
from aeedge_export.data.segments import SAME_RATE, Recording, Segment, segments


@dataclass(frozen=True)
class Windows:
    """Windows of recordings, in the order of the recordings and of time.

    Attributes:
        X: (n, window, width); of one stretch without a gap a view, which cannot be written to.
        signal: what they are, for `Autoencoder.fit_rows` and `export_bundle`.
        starts: (n,) float64, the time of each window's first sample: seconds since 1970 where times have dates, else
            seconds from the start of its recording, or samples where the rate is not known.
        notes: what was found, guessed and left out, in sentences.
        findings: those of `notes` that are about rates, gaps and windows.
        missing: how missing values were told and treated, None where they were not.
        labels: a class for each window, (n,): of its samples the rarest class; None without.
        spans: (n, 2), the first sample of each window and the one after its last, of all recordings laid end to end.
        samples: number of these samples.
        dialect: how the first text file is written, None for others.
    """

    X: NDArray[Any]
    signal: SignalSpec
    starts: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    missing: Missing | None = None
    labels: NDArray[Any] | None = None
    spans: NDArray[np.intp] = field(default_factory=lambda: np.zeros((0, 2), np.intp))
    samples: int = 0
    dialect: dict[str, Any] | None = None


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut.

    Attributes:
        window: samples of a window, from 2.
        hop: samples from one window's start to the next; None for a quarter of a window.
        rate: in Hz, None to find it out.
        resample: the rate that is wanted, in Hz; None to leave samples as they are.
        calendar: periods whose sine and cosine become channels: "day", "week".
        missing: "refuse", "drop" (samples with missing values split a recording) or "median" (filled).
    """

    window: int
    hop: int | None = None
    rate: float | None = None
    resample: float | None = None
    calendar: tuple[str, ...] = ()
    missing: str = "refuse"

    def checked(self) -> Cutting:
        """This, if it can be.

        Raises:
            InputError: it cannot.
        """
        if as_count("window", self.window) < 2:
            raise InputError("window: expected 2 samples or more, got 1; to train on single samples, leave it out")
        if self.hop is not None:
            as_count("hop", self.hop)
        if not set(self.calendar) <= set(CALENDAR) or len(set(self.calendar)) < len(self.calendar):
            raise InputError(f"calendar: expected {' and '.join(CALENDAR)}, got {', '.join(map(str, self.calendar))}")
        if self.missing not in POLICIES:
            raise InputError(f"missing: expected {', '.join(POLICIES)}, got {self.missing!r}")
        return self

    @property
    def step(self) -> int:
        """The hop."""
        return max(1, self.window // 4) if self.hop is None else self.hop


def cut(
    recordings: Sequence[Recording], cutting: Cutting, like: SignalSpec | None = None, *, keep: bool = False
) -> Windows:
    """Cut recordings into windows.

    Args:
        recordings: one or more, each later than the one before.
        cutting: how.
        like: what the windows are that a model was trained on; these must be alike.
        keep: whether missing values that are to be filled stay NaN, to be filled by another training's medians.

    Raises:
        InputError: see `window`.
    """
    cutting = cutting.checked()
    _check_alike(recordings, like)
    treated, masks, missing, notes = without_missing(recordings, cutting.missing, keep=keep)
    parts = [_cut_one(one, mask, cutting) for one, mask in zip(treated, masks)]
    rate = _common_rate([part.rate for part in parts], recordings, like)
    alike = len({part.source for part in parts}) == 1
    notes += filter(None, [parts[0].source if alike else ""])
    for part, one in zip(parts, recordings):
        notes += [] if alike or not part.source else [f"{one.name}: {part.source}"]
        notes += [f"{one.name}: {note}" for note in part.notes]
    X = [views for part in parts for views in part.views]
    first = recordings[0]
    step, length = cutting.step, cutting.window
    seconds = f" ({duration_text(length / rate)}, every {duration_text(step / rate)})" if rate else ""
    stretches = counted(len(X), "stretch", "stretches")
    count = sum(map(len, X))
    notes.append(f"windows: {count:,} of {length:,} samples, hop {step:,}{seconds}, from {stretches} without a gap")
    if short := [n for part in parts for n in part.short]:
        notes.append(
            f"{counted(len(short), 'stretch', 'stretches')} ({sum(short):,} samples) shorter than a window left out"
        )
    signal = SignalSpec(
        channels=first.channels,
        window=length,
        hop=step,
        rate=rate,
        units=first.units,
        time=first.time,
        calendar=cutting.calendar,
        longest_step=max((part.longest for part in parts if part.longest is not None), default=None),
    )
    offsets = np.cumsum([0, *(len(one.samples) for one in recordings)])
    spans = np.concatenate([part.spans + offset for part, offset in zip(parts, offsets)])
    return Windows(
        X=X[0] if len(X) == 1 else np.concatenate(X),
        signal=signal,
        starts=np.concatenate([part.starts for part in parts]),
        notes=tuple(dict.fromkeys((*(note for one in recordings for note in one.notes), *notes))),
        findings=tuple(notes),
        missing=None if missing is None else of_windows(missing, signal),
        labels=_labels(recordings, spans),
        spans=spans,
        samples=int(offsets[-1]),
        dialect=first.dialect,
    )


class _Part(NamedTuple):
    """What became of one recording: windows by stretch, lengths of stretches too short for one, its rate."""

    views: list[NDArray[Any]]
    starts: NDArray[np.float64]
    spans: NDArray[np.intp]
    short: list[int]
    rate: float | None
    longest: float | None
    source: str
    notes: list[str]


def _cut_one(recording: Recording, bad: NDArray[np.bool_] | None, cutting: Cutting) -> _Part:
    length, step = cutting.window, cutting.step
    _check_size(recording.name, len(recording.samples), cutting)
    found, rate, longest, notes = segments(recording, bad, cutting.rate, cutting.resample)
    long = [one for one in found if len(one.samples) >= length]
    if not long:
        longest = max((len(one.samples) for one in found), default=0)
        if len(found) == 1:
            _check_size(recording.name, longest, cutting)
        raise InputError(
            f"{recording.name}: expected a stretch of {length:,} samples without a gap, got {len(found):,}, the "
            f"longest of {longest:,}; use a smaller window, or leave the recording out"
        )
    if cutting.calendar and not recording.dated:
        got = "none" if recording.times is None else "seconds since some start"
        raise InputError(f"calendar: expected dated times of {recording.name}, got {got}; name their column (time=...)")
    views, starts, spans = [], [], []
    for one in long:
        views.append(views_of(_with_calendar(one, cutting.calendar), length, step))
        rows = np.asarray(one.rows)
        first = np.arange(len(views[-1])) * step
        spans.append(np.stack([rows[first], rows[first + length - 1] + 1], axis=1))
        starts.append(rows[first] / (rate or 1.0) if one.times is None else one.times[first])
    short = [len(one.samples) for one in found if len(one.samples) < length]
    source = "" if rate is None else f"rate: {rate_said(rate)}{_source_of(recording, cutting)}"
    return _Part(views, np.concatenate(starts), np.concatenate(spans), short, rate, longest, source, notes)


def _source_of(recording: Recording, cutting: Cutting) -> str:
    """Where a rate comes from."""
    if cutting.resample is not None or cutting.rate is not None:
        return ""
    if recording.rate is not None:
        return ", as its header says"
    if recording.time is None:
        return ", found in its times"
    return f", found in column '{printable(f'x{recording.time}' if recording.time.isdecimal() else recording.time)}'"


def _check_size(name: str, count: int, cutting: Cutting) -> None:
    if count < cutting.window:
        raise InputError(
            f"{name}: expected {cutting.window:,} samples or more, as a window has, got {count:,}; use a smaller "
            "window, or leave the recording out"
        )
    if cutting.step > count:
        raise InputError(
            f"hop: expected at most {count:,}, the samples of {name}, got {cutting.step:,}; use a smaller one"
        )


def _with_calendar(segment: Segment, calendar: tuple[str, ...]) -> NDArray[Any]:
    if not calendar or segment.times is None:
        return segment.samples
    return np.concatenate([segment.samples, calendar_channels(segment.times, calendar)], axis=1, dtype=np.float32)


def _check_alike(recordings: Sequence[Recording], like: SignalSpec | None) -> None:
    """Refuse recordings of other channels, or units, than the first one, or than those of the training."""
    first = recordings[0]
    expected, of = (first.channels, first.name) if like is None else (like.channels, "the training")
    for one in recordings:
        if one.channels != expected:
            raise InputError(
                f"{one.name}: expected the channels {shortened(expected)}, as {of} has them, got "
                f"{shortened(one.channels)}"
            )
        if one.units != first.units:
            got, units = (shortened(u or ("none",)) for u in (one.units, first.units))
            raise InputError(f"{one.name}: expected the units {units}, as {first.name} has them, got {got}")


def _common_rate(
    rates: Sequence[float | None], recordings: Sequence[Recording], like: SignalSpec | None
) -> float | None:
    """The rate of all recordings; one that is not known counts as the same."""
    known = [(rate, one.name) for rate, one in zip(rates, recordings) if rate is not None]
    if like is not None and like.rate is not None:
        known.insert(0, (like.rate, "the training"))
    for rate, name in known[1:]:
        if abs(rate / known[0][0] - 1) > SAME_RATE:
            raise InputError(
                f"{name}: expected {rate_said(known[0][0])}, the rate of {known[0][1]}, got {rate_said(rate)}; bring "
                f"both to one rate (resample='{rate_text(min(rate, known[0][0]))}')"
            )
    return as_rate("rate", known[0][0]) if known else None


def _labels(recordings: Sequence[Recording], spans: NDArray[np.intp]) -> NDArray[Any] | None:
    """A class for each window: the anomalous one, or else the rarest, that any of its samples has."""
    known = [one.labels for one in recordings if one.labels is not None]
    if len(known) < len(recordings):
        return None
    labels = np.concatenate(known)
    names, counts = np.unique(labels[labels != UNLABELLED], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    anomalous = anomalous_class(list(map(str, names)), counts.tolist())
    found = np.full(len(spans), UNLABELLED if labels.dtype.kind == "U" else 0, labels.dtype)
    for name in sorted(names[order].tolist(), key=lambda name: str(name) == anomalous):
        before = np.concatenate([[0], np.cumsum(labels == name)])
        found[before[spans[:, 1]] > before[spans[:, 0]]] = name
    return found
