"""Time as a benchmark needs it: a fine clock, and a second one that would notice if the first went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

_TOLERANCE = 0.005  # share of a run by which the clocks may differ
_SLACK_NS = 2_000_000  # the two cannot be read at the same instant


def _witness() -> int:
    """Nanoseconds since boot: unlike `perf_counter` this goes on while a machine is suspended (Linux)."""
    which = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns() if which is None else time.clock_gettime_ns(which)


class Clock(NamedTuple):
    """What a measurement reads. `now` and `witness` in nanoseconds, `sleep` in seconds; tests put in their own."""

    now: Callable[[], int] = time.perf_counter_ns
    witness: Callable[[], int] = _witness
    sleep: Callable[[float], None] = time.sleep


def disagreement(spent: int, witnessed: int) -> str | None:
    """Why a clock cannot be trusted that counted `spent` nanoseconds where the witness counted `witnessed`, or None."""
    if abs(spent - witnessed) <= max(_SLACK_NS, _TOLERANCE * witnessed):
        return None
    return f"the clock jumped: it counted {spent / 1e9:.3f} s where a second clock counted {witnessed / 1e9:.3f} s"


def reading_cost(clock: Clock) -> float:
    """Nanoseconds that one reading of the clock takes: contained in every latency."""
    count = 2000
    begin = clock.now()
    for _ in range(count - 1):
        clock.now()
    return (clock.now() - begin) / count
