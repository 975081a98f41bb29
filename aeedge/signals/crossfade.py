"""A denoised signal without seams: overlapping windows are reconstructed, and each fades into the next one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.signals.clock import SampleClock
from aeedge.signals.layout import Layout
from aeedge.signals.window import as_count, window

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.model import Model
    from aeedge.types import Floats

_CALL_BYTES = 2**21  # of windows that are denoised in one call
_MOST_WINDOWS = 1024


def denoise_signal(
    model: Model, samples: ArrayLike, hop: int | None = None, *, time: float | ArrayLike | None = None
) -> Floats:
    """A recording with encoder and decoder applied to overlapping windows: (samples, channels) to the same, float32.

    A sample is the mean of its reconstructions in all windows that cover it, with weights that rise and fall smoothly
    over a window (Hann). The windows need not fit the recording: the last one ends with it. They are reconstructed in
    blocks.

    Args:
        model: of windows with a decoder, see `aeedge.signals.layout.Layout`.
        samples: a recording in raw units, of one channel also (samples,); a frame is taken by column name.
        hop: samples from the start of one window to that of the next, at most half a window; None for a quarter.
        time: of the first sample in seconds since 1970, or of each; only models that take the time of day or week need
            it. Windows do not cross gaps.

    Raises:
        InputError: no recording, or one (a stretch of it without a gap) that is shorter than a window; NaN or infinity;
            a hop that is too large.
        IncompatibleBundleError: the bundle has no decoder.
    """
    crossfade = Crossfade(model, hop)
    layout, signal = crossfade.layout, crossfade.layout.signal
    clock = SampleClock(signal.rate, signal.longest_step)
    given = layout.samples(samples)
    if len(given) < layout.window:
        raise InputError(
            f"samples: expected a recording of {layout.window} samples or more, as a window has, got {len(given)}"
        )
    if not np.isfinite(given).all() and model.input.missing is None:
        row, column = np.argwhere(~np.isfinite(given))[0].tolist()
        raise InputError(
            f"samples: expected finite numbers, got {given[row, column]} in sample {row}, channel "
            f"'{layout.signal.channels[column]}'; fill it in, or leave it out"
        )
    times, breaks = clock.times(len(given), time, needed=bool(layout.signal.calendar))
    found = np.empty((len(given), len(layout.signal.channels)), np.float32)
    edges = [0, *(at for at, _ in breaks), len(given)]
    for first, last in pairwise(edges):
        at, stretch = first, given[first:last]
        if layout.signal.calendar:
            stretch = layout.with_calendar(stretch, times[first:last])
        for part in crossfade([stretch]):
            found[at : at + len(part)] = part
            at += len(part)
    return found


class Crossfade:
    """Denoises stretches of signals that come in parts; what comes out does not depend on how they are divided.

    Args:
        model, hop: as in `denoise_signal`.
        what: the stretch, for messages.
        invalid: "raise", or "propagate": samples are NaN if every window that covers them has NaN or infinity, or if
            the stretch is shorter than a window.

    Attributes:
        layout: of the model's windows.
        hop: samples from the start of one window to that of the next.

    Raises:
        InputError: a hop that is too large, or a model that has no windows.
    """

    def __init__(self, model: Model, hop: int | None = None, *, what: str = "samples", invalid: str = "raise") -> None:
        self._model, self._what, self._invalid, self.layout = model, what, invalid, Layout(model)
        length, width = self.layout.window, self.layout.width
        self.hop = max(1, length // 4) if hop is None else as_count("hop", hop)
        if self.hop > max(1, length // 2):
            raise InputError(
                f"hop: expected at most half a window of {length} samples, so that windows can fade into each other, "
                f"got {self.hop}"
            )
        self._weights = np.sin(np.pi * (np.arange(length) + 0.5) / length)[:, np.newaxis] ** 2
        window_bytes = length * width * self.layout.dtype.itemsize
        self._most = max(1, min(_MOST_WINDOWS, _CALL_BYTES // window_bytes))

    def __call__(self, parts: Iterable[NDArray[Any]]) -> Iterator[Floats]:
        """Samples (m, width) of one stretch to as many denoised ones, (m, channels), in other parts.

        Raises:
            InputError: the stretch is shorter than a window, or samples that the model refuses.
        """
        length, hop, block = self.layout.window, self.hop, self._most * self.hop
        held: NDArray[Any] | None = None  # from the last window on that was denoised
        sums = np.zeros((0, len(self.layout.signal.channels) + 1))  # of the windows until now; weights last
        start = 0  # of the next window in what is held
        for part in parts:
            for at in range(0, len(part), block):
                piece = part[at : at + block]
                held = piece if held is None else np.concatenate([held, piece])
                while len(held) >= start + block - hop + length:
                    sums = self._added(sums, held, start, self._most)
                    done, start = start + block - hop, hop  # the very last window may begin after that
                    yield self._mean(sums[:done])
                    held, sums = held[done:], sums[done:]
        if held is None:
            return
        last = len(held) - length
        if last < 0:
            yield self._short(len(held))
            return
        count = max(0, (last - start) // hop + 1)
        sums = self._added(sums, held, start, count)
        if last > start + (count - 1) * hop:
            sums = self._added(sums, held, last, 1)
        yield self._mean(sums)

    def _added(self, sums: NDArray[Any], held: NDArray[Any], start: int, count: int) -> NDArray[np.float64]:
        """Weighted sums and weights of all samples that are held, with `count` windows more from `start` on."""
        length, hop = self.layout.window, self.hop
        found = np.zeros((len(held) + hop, sums.shape[1]))
        found[: len(sums)] = sums
        if count:
            rows = self.layout.rows(window(held[start:], length, hop)[:count])
            back = self.layout.windows(self._model.denoise(rows, invalid=self._invalid))
            more = np.ones((count, length, sums.shape[1]))
            more[:, :, :-1] = back[:, :, : sums.shape[1] - 1]
            if self._invalid != "raise":
                more[~np.isfinite(more).all(axis=(1, 2))] = 0.0
            more *= self._weights
            for at in range(0, length, hop):  # the same part of all windows: each has samples of its own
                part, first = more[:, at : at + hop], start + at
                found[first : first + count * hop].reshape(count, hop, -1)[:, : part.shape[1]] += part
        return found[: len(held)]

    def _short(self, count: int) -> Floats:
        if self._invalid == "raise":
            raise InputError(
                f"{self._what}: expected a stretch of {self.layout.window} samples or more without a gap, as a window "
                f"has, got {count}"
            )
        return np.full((count, len(self.layout.signal.channels)), np.nan, np.float32)

    @staticmethod
    def _mean(sums: NDArray[np.float64]) -> Floats:
        with np.errstate(invalid="ignore"):  # NaN where no window is known
            return (sums[:, :-1] / sums[:, -1:]).astype(np.float32)
