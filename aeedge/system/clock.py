"""The clocks of a benchmark: a fine one that is measured with, and a reference clock that shows when it is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

_TOLERANCE = 0.005  # share of a run by which the clocks may differ
_SLACK_NS = 2_000_000  # the two cannot be read at the same instant


def _since_boot_ns() -> int:
    """Nanoseconds since boot: unlike `perf_counter` this goes on while a machine is suspended (Linux)."""
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic_ns() if clock_id is None else time.clock_gettime_ns(clock_id)


class Clock(NamedTuple):
    """`now` and `reference` return nanoseconds, `sleep` takes seconds. Tests pass simulated ones."""

    now: Callable[[], int] = time.perf_counter_ns
    reference: Callable[[], int] = _since_boot_ns
    sleep: Callable[[float], None] = time.sleep


def disagreement(spent: int, reference: int) -> str | None:
    """Why a clock is wrong that counted `spent` nanoseconds where the reference clock counted `reference`, or None."""
    if abs(spent - reference) <= max(_SLACK_NS, _TOLERANCE * reference):
        return None
    return f"the clock jumped: it counted {spent / 1e9:.3f} s, the reference clock {reference / 1e9:.3f} s"


def reading_cost(clock: Clock) -> float:
    """Nanoseconds that one reading of the clock takes; every latency contains one."""
    count = 2000
    begin = clock.now()
    for _ in range(count - 1):
        clock.now()
    return (clock.now() - begin) / count
