"""Time a call, checked against a reference clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

Clock = Callable[[], float]
_RAW_CLOCK = getattr(time, "CLOCK_MONOTONIC_RAW", None)  # not adjusted by NTP; Linux and macOS
_CHUNK_SECONDS = 0.002  # between two readings of the clock, so that their cost is negligible


class ClockError(Exception):
    """The clock and the reference clock disagree about a duration."""


class Timed(NamedTuple):
    """A number of calls and the seconds that they took."""

    calls: int
    seconds: float

    @property
    def per_call(self) -> float:
        """Seconds per call."""
        return self.seconds / self.calls


def reference_clock() -> float:
    """A clock that is independent of `time.perf_counter` where the system has one."""
    return time.perf_counter() if _RAW_CLOCK is None else time.clock_gettime(_RAW_CLOCK)


def timed(
    call: Callable[[], object], seconds: float, clock: Clock = time.perf_counter, reference: Clock = reference_clock
) -> Timed:
    """Call for at least `seconds`, and at least once.

    Raises:
        ClockError: the two clocks differ by more than 1 % (and 50 µs) about the time that this took.
    """
    chunk, calls, began, reference_began = 1, 0, clock(), reference()
    while True:
        before = clock()
        for _ in repeat(None, chunk):
            call()
        calls += chunk
        now = clock()
        if now - began >= seconds or reference() - reference_began > 10 * seconds + 60:
            break
        if 0 < now - before < _CHUNK_SECONDS / 2:
            chunk *= 2
    spent, expected = clock() - began, reference() - reference_began
    if abs(spent - expected) > 0.01 * max(spent, expected) + 50e-6:
        raise ClockError(f"the clock measured {spent:.4f} s, the reference clock {expected:.4f} s")
    return Timed(calls, spent)
