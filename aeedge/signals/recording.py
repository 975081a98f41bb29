"""Recordings in files, a row for each sample: read for a model, and cut at gaps in time and into windows."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.errors import InputError, printable, shortened
from aeedge.files.images import are_images
from aeedge.files.rows import Part, RowFile, Wanted, open_rows, row_files
from aeedge.files.source import STDIN
from aeedge.files.times import TimeFormat, find_format, rate_said
from aeedge.signals.clock import GAP
from aeedge.signals.layout import Layout
from aeedge.signals.window import window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.reader import Bundle
    from aeedge.model import Model

_BLOCK_BYTES = 2**22  # of windows that are given at a time
_RATE_ERROR = 0.05  # of times against the rate of the training
_SAME_RATE = 0.01  # of a header
_BACKWARD = 0.1  # share of steps back, from which on rows are not in the order of time
_COARSE = 0.1  # share of samples with the time of the one before, from which on a clock counts in longer steps
_DEFAULT_NAME = re.compile(r"(?:x|ch|channel[ _]?)?\d+")  # of channels that had none


class Piece(NamedTuple):
    """Consecutive samples of a stretch without a gap.

    Attributes:
        samples: (m, width), of the model's dtype.
        first: number of the first sample, counted over all files.
        stretch: number of the stretch; another one begins with each file and after each gap.
        kept: values of the columns that are kept, m of each; that of time first, if there is one.
    """

    samples: NDArray[Any]
    first: int
    stretch: int
    kept: list[list[Any]]


class Recordings:
    """Files of recordings, one after the other, for a model of a signal.

    Args:
        model: of a bundle whose manifest says what its windows are.
        paths: of files and folders, "-" for standard input.
        keep: names of columns whose values are wanted beside the samples.
        missing: whether values may be missing, NaN or infinite; otherwise they are an InputError.
        numbers: whether the time of a sample is wanted as a number, not as the cell that tells it.
        options: of `aeedge.files.rows.open_rows`: array, dialect.

    Attributes:
        signal: of the model.
        are_windows: whether the files hold arrays of windows, (n, window, width): nothing is to be cut.
        time: what there is to say of the time of a sample: "any" for cells of a column, "<f8" for seconds from the
            beginning of a file, None for nothing.
        wav: the format of the first file, if it is a WAV.
        notes: what was guessed, cut and left out; complete once all is read.

    Raises:
        InputError: images; a file that is not as the model's recordings are: other channels, another rate, no time
            where the model needs it; what `open_rows` raises.
    """

    def __init__(
        self,
        model: Model | Bundle,
        paths: Sequence[str | os.PathLike[str]],
        *,
        keep: Sequence[str] = (),
        missing: bool = False,
        numbers: bool = False,
        **options: Any,
    ) -> None:
        if are_images(paths):
            raise InputError(f"{paths[0]}: expected recordings, got images")
        self._spec, self._missing, self._options = model.manifest.input, missing, options
        signal = self._spec.signal
        assert signal is not None
        self.signal, self._layout = signal, Layout(model)
        self._wanted = Wanted(signal.channels, None, self._spec.dtype, self._spec.dialect, tuple(keep), signal.time)
        self._files = row_files(paths)
        if [os.fspath(file) for file in self._files].count(STDIN) > 1:
            raise InputError("standard input: can be read only once; name it once")
        self.notes: list[str] = []
        self.are_windows = False
        self._first = self._opened(self._files[0])
        self.are_windows = self._first.row == self._spec.shape
        self.wav = self._first.wav
        knows_time = self._first.has_time or (signal.rate is not None and not self.are_windows)
        self.time = None if not knows_time else "any" if self._first.has_time and not numbers else "<f8"

    @property
    def time_name(self) -> str:
        """What to call the column of time."""
        name = self.signal.time
        return "time" if name is None or name.isdecimal() else name

    def _windows_as_they_are(self) -> Iterator[Part]:
        for name, rows in self._each():
            if rows.row != self._spec.shape:
                raise InputError(f"{name}: expected windows {self._spec.shape}, as in the first file, got others")
            yield from rows.parts()

    def windows(self) -> Iterator[Part]:
        """Windows at the hop of the training, views (m, window, width), none across files or gaps; or as they are.

        Of windows that were cut, kept are the numbers of their first samples, counted over all files; if it is known,
        the time of the first sample; and of each other column the value at the last sample.

        Raises:
            InputError: as `pieces`; a file, or all stretches of it, is shorter than a window.
        """
        if self.are_windows:
            yield from self._windows_as_they_are()
            return
        length, hop = self.signal.window, self.signal.hop
        at_once = max(1, _BLOCK_BYTES // (length * self.signal.width * self._layout.dtype.itemsize))
        times = 0 if self.time is None else 1
        count, stretch, skip, origin = 0, 0, 0, 0
        held: NDArray[Any] = np.empty((0, 0))
        kept: list[list[Any]] = []
        for piece in self.pieces():
            samples, columns = piece.samples, piece.kept
            if piece.stretch != stretch:
                stretch, origin, skip, held, kept = piece.stretch, piece.first, 0, samples[:0], [[] for _ in columns]
            passed = min(skip, len(samples))  # between windows, where the hop is longer
            skip, origin = skip - passed, origin + passed
            held = np.concatenate([held, samples[passed:]])
            kept = [before + new[passed:] for before, new in zip(kept, columns)]
            ready = max(0, (len(held) - length) // hop + 1)
            for first in range(0, ready, at_once):
                some = range(first, min(first + at_once, ready))
                starts = [i * hop for i in some]
                yield (
                    window(held, length, hop)[some.start : some.stop],
                    [
                        [origin + start for start in starts],
                        *([column[start] for start in starts] for column in kept[:times]),
                        *([column[start + length - 1] for start in starts] for column in kept[times:]),
                    ],
                )
            count, done = count + ready, ready * hop
            skip += max(0, done - len(held))
            origin += min(done, len(held))
            held, kept = held[done:], [column[done:] for column in kept]
        if not count:
            raise InputError(f"{self._name}: expected a stretch of {length} samples without a gap in time, got none")
        self.notes.append(f"{count:,} windows of {length} samples, hop {hop}, of {self._samples}")

    def pieces(self) -> Iterator[Piece]:
        """All samples in order, in bounded memory.

        Raises:
            InputError: another number of channels, values that are no finite numbers, times that cannot be read or are
                of another rate, a file that is shorter than a window.
        """
        first = stretch = gaps = shorts = 0
        for name, rows in self._each():
            began, length, origin = first, 0, 0.0  # length of the stretch, time of the file's first sample
            clock = _Clock(name, self.signal.time or "", rows.decimal, self.signal.rate, self.signal.longest_step)
            stretch += 1
            for block, kept in rows.parts():
                samples, columns = self._checked(block, name, first - began), kept
                times, at_gaps = np.empty(0), list[int]()
                if rows.has_time:
                    times, columns = clock.times(kept[0], first - began), kept if self.time == "any" else kept[1:]
                    at_gaps = clock.gaps(times)
                elif self.time == "<f8":
                    times = np.arange(first - began, first - began + len(samples)) / (self.signal.rate or 1.0)
                if self.time == "<f8":
                    origin = times[0] if first == began else origin
                    columns = [(times - origin).tolist(), *columns]
                if self.signal.calendar:
                    clock.check_dates()
                    samples = self._layout.with_calendar(samples, times)
                for at, to in pairwise(sorted({0, *at_gaps, len(samples)})):
                    if at in at_gaps:
                        shorts += length < self.signal.window
                        stretch, gaps, length = stretch + 1, gaps + 1, 0
                    yield Piece(samples[at:to], first + at, stretch, [column[at:to] for column in columns])
                    length += to - at
                first += len(samples)
            if first - began < self.signal.window:
                raise InputError(
                    f"{name}: expected a recording of {self.signal.window:,} samples or more, as a window has, got "
                    f"{first - began:,}"
                )
            shorts += length < self.signal.window
        self._samples = f"{first:,} samples" + (f" in {len(self._files):,} files" if len(self._files) > 1 else "")
        if gaps:
            short = f"; stretches between them that are shorter than a window: {shorts:,}" if shorts else ""
            self.notes.append(f"gaps in time, which no window crosses: {gaps:,}{short}")

    def _each(self) -> Iterator[tuple[str, RowFile]]:
        """The files, with their names."""
        for i, file in enumerate(self._files):  # opened when its turn comes: there may be thousands
            rows = self._opened(file) if i else self._first
            self._name = "standard input" if os.fspath(file) == STDIN else os.fspath(file)
            yield self._name, rows
            self._add(*rows.notes)

    def _add(self, *notes: str) -> None:
        """Notes, each once."""
        self.notes.extend(note for note in notes if note not in self.notes)

    def _opened(self, path: str | os.PathLike[str]) -> RowFile:
        """A file that can be one of the model's recordings, as far as its head tells."""
        name = "standard input" if os.fspath(path) == STDIN else os.fspath(path)
        rows = open_rows(path, self._wanted, missing=self._missing, **self._options)
        self._add(*rows.notes)
        signal = self.signal
        are_named = not all(map(_DEFAULT_NAME.fullmatch, signal.channels))
        if rows.names is not None and are_named and set(rows.names).isdisjoint(signal.channels):
            raise InputError(
                f"{name}: expected columns {shortened(signal.channels)}, as the model was trained with, got "
                f"{shortened(rows.names)}; rename them"
            )
        if rows.wav is not None and signal.rate and abs(rows.wav.rate / signal.rate - 1) > _SAME_RATE:
            raise InputError(
                f"{name}: expected {rate_said(signal.rate)}, as the model was trained with, got "
                f"{rate_said(rows.wav.rate)}; resample it"
            )
        lacks_time = not rows.has_time and rows.row != self._spec.shape
        if lacks_time and signal.time is not None:
            self._add(f"no column '{printable(signal.time)}' with times: gaps are not seen")
        if lacks_time and (signal.calendar or (self._files.index(path) and self.time == "any")):
            why = "for the model takes the time of day or week" if signal.calendar else "as the first file has"
            got = "got none" if rows.names is None else f"got {shortened(rows.names)}"
            raise InputError(f"{name}: expected a column '{printable(signal.time or 'time')}', {why}, {got}")
        return rows

    def _checked(self, block: NDArray[Any], name: str, first: int) -> NDArray[Any]:
        """Samples (m, channels) in the model's dtype."""
        channels = self.signal.channels
        block = block[:, np.newaxis] if block.ndim == 1 else block
        if block.ndim != 2 or block.shape[1] != len(channels):
            width = f", or windows (n, {self.signal.window}, {self.signal.width})"
            count = f"{len(channels)} channel{'s' * (len(channels) != 1)}"
            raise InputError(
                f"{name}: expected a recording with {count} ({shortened(channels)}){width}, got "
                + (f"{block.shape[1]} channels" if block.ndim == 2 else f"an array (n, {str(block.shape[1:])[1:-1]})")
            )
        if not self._missing and not np.isfinite(block).all():
            row, column = np.argwhere(~np.isfinite(block))[0].tolist()
            raise InputError(
                f"{name}: expected finite numbers, got {block[row, column]} in sample {first + row} (counted from 0), "
                f"channel '{printable(channels[column])}'; clean the data, or pass invalid='propagate' to get NaN there"
            )
        try:
            return self._layout.samples(block)
        except InputError as error:
            raise InputError(f"{name}: {str(error).removeprefix('samples: ')}") from None


class _Clock:
    """The time of each sample of a file, by a column that is read in the way that its first cells are written."""

    def __init__(self, name: str, column: str, decimal: str, rate: float | None, longest_step: float | None) -> None:
        self._name, self._column, self._decimal, self._rate = name, column, decimal, rate
        self._format: TimeFormat | None = None
        self._known = longest_step  # that is no gap, of the training
        self._longest: float | None = None  # the same here, after the first steps
        self._last = math.nan

    def check_dates(self) -> None:
        """Refuse times that do not count from 1970.

        Raises:
            InputError: they do not.
        """
        if self._format is None or not self._format.dated:
            raise InputError(
                f"{self._name}: expected dates in the column '{printable(self._column)}', for the model takes the time "
                "of day or week, got times without a date"
            )

    def times(self, cells: list[Any], first: int) -> NDArray[np.float64]:
        """Seconds, (m,), of samples from the number `first` on.

        Raises:
            InputError: a cell that is no time.
        """
        if self._format is None:
            self._format = find_format(cells, decimal=self._decimal, name=self._column)
        times = self._format.column(cells)
        if np.isnan(times).any():
            at = int(np.argmax(np.isnan(times)))
            got = "nothing" if cells[at] is None or cells[at] == "" else repr(str(cells[at]))
            raise InputError(
                f"{self._name}: expected a time in the column '{printable(self._column)}', got {got:.60} in sample "
                f"{first + at} (counted from 0); correct it, or leave the sample out"
            )
        return times

    def gaps(self, times: NDArray[np.float64]) -> list[int]:
        """Before which samples some are missing, or the clock goes back.

        Raises:
            InputError: the first steps are not of the rate of the training.
        """
        steps = np.diff(times, prepend=times[0] if math.isnan(self._last) else self._last)
        if self._longest is None and (back := float((steps < 0).mean())) > _BACKWARD:
            raise InputError(
                f"{self._name}: expected times that rise from sample to sample in the column "
                f"'{printable(self._column)}', but {back:.0%} of the steps go back; sort the rows"
            )
        if self._longest is None and (steps > 0).any():
            found = self._longest_step(steps[1:], _quantum(times))
            self._longest = found if self._known is None else self._known
        self._last = float(times[-1])
        return np.flatnonzero((steps > (self._longest or math.inf)) | (steps < 0)).tolist()

    def _longest_step(self, steps: NDArray[np.float64], quantum: float) -> float:
        forward, rate = steps[steps > 0], self._rate
        typical = float(np.median(forward)) if len(forward) else math.inf
        if rate is not None and (steps == 0).mean() > _COARSE:
            return typical + GAP / rate + 1e-9
        step = float(forward[forward <= GAP * typical + quantum].mean())
        if rate is not None and abs(step * rate - 1) > _RATE_ERROR:
            raise InputError(
                f"{self._name}: expected {rate_said(rate)}, as the model was trained with, got "
                f"{rate_said(1 / step)} by the column '{printable(self._column)}'; resample it"
            )
        return GAP * step + quantum


def _quantum(times: NDArray[np.float64]) -> float:
    """What times are rounded to, in seconds: a power of ten from 1 to 1e-6, or 0 where they are finer."""
    for digits in range(7):
        scaled = times * 10.0**digits
        if (np.abs(scaled - np.rint(scaled)) <= np.maximum(1e-9 * np.abs(scaled), 1e-6)).all():
            return float(10.0**-digits)
    return 0.0
