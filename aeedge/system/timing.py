"""Time a call again and again: the loop that all measurements share."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from aeedge.system.clock import Clock

    Argument = TypeVar("Argument")

_CHUNK = 64  # calls between two readings of the reference clock


def repeat(
    call: Callable[[Argument], object],
    arguments: Iterable[Argument],
    *,
    least_ns: int = 0,
    least_calls: int = 1,
    clock: Clock | None = None,
    into: array[int] | None = None,
) -> array[int]:
    """Call one after the other until both minimums are reached: nanoseconds of each call, in order.

    A duration is the time between two readings of the clock, so it contains one reading and the loop.

    Args:
        call: called with each of `arguments`, which start over when they are used up.
        arguments: at least one.
        least_ns: for how long, in nanoseconds.
        least_calls: how many calls at least.
        clock: what is read; None for `time.perf_counter_ns`. Its reference clock ends the loop after 2 * `least_ns`: a
            clock that is set back must not make it last forever.
        into: an array("q") to append to. After an exception, such as Ctrl-C, it holds what was measured until then.
    """
    now, reference = (time.perf_counter_ns, time.monotonic_ns) if clock is None else (clock.now, clock.reference)
    durations = array("q") if into is None else into
    add, endless = durations.append, cycle(arguments)
    latest = reference() + 2 * least_ns
    begin = last = now()
    while True:
        for argument in islice(endless, _CHUNK):
            call(argument)
            end = now()
            add(end - last)
            last = end
            if end - begin >= least_ns and len(durations) >= least_calls:
                return durations
        if reference() >= latest and len(durations) >= least_calls:
            return durations
