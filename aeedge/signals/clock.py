"""The time of each sample of a stream, and where time jumps."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.signals.health import Fault

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

GAP = 1.5  # sample periods from one sample to the next, from which on some are missing
_RATE_ERROR = 0.01  # that a sensor's clock may have, where chunks come with the time of their first sample


class SampleClock:
    """Counts the samples of a stream in seconds, and compares with the times that come with them.

    Args:
        rate: samples a second; None if unknown: then gaps are not found, only a clock that goes backwards.
        longest_step: seconds from one sample to the next, beyond which some are missing; None for half a period more
            than one.
    """

    def __init__(self, rate: float | None, longest_step: float | None = None) -> None:
        self._period, self._known = 1.0 if rate is None else 1.0 / rate, rate is not None
        self._longest = longest_step or (GAP * self._period if self._known else math.inf)
        self.clear()

    def clear(self) -> None:
        """Begin at 0."""
        self._origin, self._count = 0.0, 0  # a time that was given, and the samples since then
        self._told = self._begun = False  # whether a time was given; whether there were samples
        self._anew = self._each = False  # whether the samples that come have a time; whether each has one

    @property
    def next(self) -> float:
        """When the next sample is due."""
        return self._origin + self._count * self._period

    @property
    def _last(self) -> float:
        """The time of the last sample, to the bit as it was given."""
        return self._origin + (self._count - 1) * self._period

    @property
    def _untold(self) -> float:
        """Seconds since the last sample whose time was given."""
        return max(0, self._count - 1) * self._period

    def skip(self, count: int) -> None:
        """Let samples pass that were lost."""
        self._count += count
        self._begun = True

    def passed(self, times: NDArray[np.float64]) -> None:
        """Count samples with their times, without a gap between them."""
        if self._anew and self._each:
            self._origin, self._count = float(times[-1]), 1
        elif self._anew:
            self._origin, self._count, self._anew = float(times[0]), len(times), False
        else:
            self._count += len(times)
        self._begun = True

    def times(
        self, count: int, given: float | ArrayLike | None, *, needed: bool
    ) -> tuple[NDArray[np.float64], list[tuple[int, Fault]]]:
        """The time of each of `count` samples that come next, and where there is a gap before one of them.

        Raises:
            InputError: times that are none, or none although they are `needed`.
        """
        if given is None:
            if needed and not self._told:
                raise InputError(
                    "time: expected the time of the samples in seconds since 1970, because the model takes the time of "
                    "day or week, got none"
                )
            self._anew = False
            return self._spaced(self._count, count, self._origin), []
        found = self._checked(given, count)
        self._anew, self._each = True, found.ndim > 0
        before, self._told = self._begun and self._told, True
        if self._each:
            return found, self._breaks(found, before)
        first = float(found)
        jump = self._jump(first - self._last - self._period, self._untold) if before else None
        return self._spaced(0, count, first), [] if jump is None else [(0, jump)]

    def _spaced(self, first: int, count: int, origin: float) -> NDArray[np.float64]:
        """The times of samples that are a period apart."""
        if count == 1:  # the same in a third of the time: samples often come one by one
            return np.array((first * self._period + origin,))
        times: NDArray[np.float64] = np.arange(first, first + count, dtype=np.float64)
        times *= self._period
        times += origin
        return times

    def _breaks(self, times: NDArray[np.float64], before: bool) -> list[tuple[int, Fault]]:
        """Where one of several times is too far from the one before; `before`: whether the first one has such."""
        steps = np.diff(times, prepend=self._last if before else times[0] - self._period)
        found = []
        for at in np.flatnonzero((steps > self._longest) | (steps < 0)).tolist():
            fault = self._jump(float(steps[at]) - self._period, 0.0 if at else self._untold)
            if fault is not None:
                found.append((at, fault))
        return found

    def _jump(self, late: float, elapsed: float) -> Fault | None:
        """A fault where a sample is so many seconds late that some are missing, or earlier than the one before.

        Over the `elapsed` time, of which nothing was told, the sensor's clock may have gone wrong a little.
        """
        slack = _RATE_ERROR * elapsed
        if late + self._period > self._longest + slack:
            return Fault("gap", None, f"{late:.6g} s without samples")
        if late < -self._period - slack:
            return Fault("clock", None, f"the clock went back by {-late - self._period:.6g} s")
        return None

    def _checked(self, given: float | ArrayLike, count: int) -> NDArray[np.float64]:
        try:
            found = _seconds(given)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"time: expected seconds, one number or one for each sample, got {given!r:.60}") from None
        if found.shape not in ((), (count,)) or not np.isfinite(found).all():
            raise InputError(f"time: expected seconds, one finite number or {count} of them, got {found!r:.60}")
        if found.ndim == 0 and count > 1 and not self._known:
            raise InputError(
                "time: expected a time for each sample, because the bundle does not say at which rate they come, got "
                "one for all"
            )
        return found

    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"origin": self._origin, "count": self._count, "told": self._told, "begun": self._begun}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what another one did.

        Raises:
            KeyError, TypeError, ValueError: this is no state.
        """
        self._origin, self._count = float(state["origin"]), int(state["count"])
        self._told, self._begun = bool(state["told"]), bool(state["begun"])


def _seconds(given: Any) -> NDArray[np.float64]:
    """Numbers as they are; dates (datetime, datetime64) in seconds since 1970 UTC, those without a zone as UTC."""
    if isinstance(given, datetime):
        zoned = given if given.tzinfo is not None else given.replace(tzinfo=timezone.utc)
        return np.asarray(zoned.timestamp())
    found = np.asarray(given)
    if found.dtype.kind == "M":
        return np.asarray((found - np.datetime64(0, "s")) / np.timedelta64(1, "s"), np.float64)
    if found.dtype.kind == "c":
        raise TypeError("complex")
    return np.asarray(found, np.float64)
