"""The last samples of a stream, from which windows are cut as they are completed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CALL_BYTES = 2**21  # of windows that are encoded in one call
_MOST_WINDOWS = 1024


class Windows(NamedTuple):
    """Windows that were completed together.

    Attributes:
        samples: view of the samples that they cover, (m, channels); valid until the next one is cut.
        number: of windows, of which each starts a hop after the one before.
        start, end: time of the first and of the last sample of each, (count,).
    """

    samples: NDArray[Any]
    number: int
    start: NDArray[np.float64]
    end: NDArray[np.float64]


class WindowBuffer:
    """Memory for a window and those that are encoded together with it; it never grows.

    Args:
        window: samples of a window.
        hop: samples from the start of one window to that of the next; may be more than a window.
        width: channels.
        dtype: of the samples.
    """

    def __init__(self, window: int, hop: int, width: int, dtype: str) -> None:
        self.window, self.hop = window, hop
        window_bytes = window * width * np.dtype(dtype).itemsize
        most = max(1, min(_MOST_WINDOWS, _CALL_BYTES // window_bytes, _CALL_BYTES // window_bytes * window // hop))
        capacity = 2 * window + most * min(hop, window)
        self._samples, self._times = np.empty((capacity, width), dtype), np.empty(capacity)
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Forget all samples: the next window starts with the next one."""
        self._first = self._last = self._pass = 0  # filled part; samples before the next window starts

    def add(self, samples: NDArray[Any], times: NDArray[np.float64]) -> Iterator[Windows]:
        """Take samples (k, channels) with their times (k,), and cut the windows that they complete."""
        window, hop, at = self.window, self.hop, 0
        while at < len(samples):
            if self._pass:
                passed = min(self._pass, len(samples) - at)
                self._pass -= passed
                at += passed
                continue
            taken = min(len(samples) - at, self._room())
            to = self._last + taken
            self._samples[self._last : to], self._times[self._last : to] = (
                samples[at : at + taken],
                times[at : at + taken],
            )
            self._last, at = to, at + taken
            while self._last - self._first >= window:
                count = min((self._last - self._first - window) // hop + 1, self._most)
                start, self._first = self._first, self._first + count * hop
                starts = slice(start, start + count * hop, hop)
                ends = slice(start + window - 1, start + window + (count - 1) * hop, hop)
                last = start + window + (count - 1) * hop
                if self._first > self._last:
                    self._pass, self._first = self._first - self._last, self._last
                yield Windows(self._samples[start:last], count, self._times[starts], self._times[ends])

    def _room(self) -> int:
        """Free places behind the samples; what is still needed is moved to the front when there are none."""
        if self._last == len(self._samples):
            kept = self._last - self._first
            for array in (self._samples, self._times):
                array[:kept] = array[self._first : self._last]
            self._first, self._last = 0, kept
        return len(self._samples) - self._last

    def state(self) -> dict[str, NDArray[Any]]:
        """The samples that are still needed, as arrays by name."""
        kept = slice(self._first, self._last)
        return {
            "samples": self._samples[kept].copy(),
            "times": self._times[kept].copy(),
            "pass": np.array(self._pass, np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the place of the buffer that gave a state.

        Raises:
            ValueError: the arrays do not fit.
        """
        samples, times, passed = state["samples"], state["times"], state["pass"]
        fits = samples.dtype == self._samples.dtype and samples.shape[1:] == self._samples.shape[1:]
        if not fits or times.dtype != np.float64 or times.shape != samples.shape[:1] or len(samples) >= self.window:
            raise ValueError("samples")
        if passed.shape or passed.dtype.kind != "i" or passed < 0:
            raise ValueError("pass")
        self._first, self._last, self._pass = 0, len(samples), int(passed)
        self._samples[: len(samples)], self._times[: len(samples)] = samples, times
