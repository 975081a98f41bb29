"""Time a call, and notice when the clock cannot be believed."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from typing import NamedTuple

Clock = Callable[[], float]
_WITNESS = getattr(time, "CLOCK_MONOTONIC_RAW", None)  # not adjusted by anybody; Linux and macOS
_CHUNK_SECONDS = 0.002  # the clock is read this rarely, so that reading it costs nothing


class ClockError(Exception):
    """Two clocks disagree about how long something took."""


class Timed(NamedTuple):
    """So many calls took so many seconds."""

    calls: int
    seconds: float

    @property
    def per_call(self) -> float:
        """Seconds a call."""
        return self.seconds / self.calls


def witness() -> float:
    """A clock that is independent of `time.perf_counter` where the system has one."""
    return time.perf_counter() if _WITNESS is None else time.clock_gettime(_WITNESS)


def timed(
    call: Callable[[], object], seconds: float, clock: Clock = time.perf_counter, second: Clock = witness
) -> Timed:
    """Call for at least `seconds`, and at least once.

    Raises:
        ClockError: the two clocks differ by more than 1 % (and 50 µs) about the time that this took.
    """
    chunk, calls, began, also = 1, 0, clock(), second()
    while True:
        before = clock()
        for _ in repeat(None, chunk):
            call()
        calls += chunk
        now = clock()
        if now - began >= seconds or second() - also > 10 * seconds + 60:
            break
        if 0 < now - before < _CHUNK_SECONDS / 2:
            chunk *= 2
    spent, witnessed = clock() - began, second() - also
    if abs(spent - witnessed) > 0.01 * max(spent, witnessed) + 50e-6:
        raise ClockError(f"one clock says {spent:.4f} s, the other {witnessed:.4f} s")
    return Timed(calls, spent)
