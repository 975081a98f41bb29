"""How a model is called: MLPerf's SingleStream, MultiStream and Offline, and a fixed rate.

Names and rules are those of MLPerf Inference where they apply (Reddi et al., MLPerf Inference Benchmark, 2020); runs
are shorter, so a result is not an MLPerf submission. Ctrl-C ends a scenario early and keeps what was measured.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.system.clock import Clock
from aeedge.system.timing import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Call = Callable[[NDArray[Any]], object]

MULTISTREAM_ROWS = 8  # samples per query in MLPerf
OFFLINE_ROWS = 24_576  # MLPerf's minimum of samples in the one query of Offline
_LONGEST_SLEEP_NS = 100_000_000  # then the reference clock is read
_SPIN_NS = 300_000  # sleeping is coarser than this: the rest of a wait is spent polling the clock


class Run(NamedTuple):
    """Latencies of the queries of one scenario, in nanoseconds, in order.

    Attributes:
        latencies: int64, shape (queries,).
        rows: samples per query.
        seconds: from the first query's start to the last one's end.
        interrupted: ended by Ctrl-C.
        due, unserved: with a fixed rate, queries due within the run, and those not answered at its end.
        delays: with a fixed rate, nanoseconds from the moment a query was due to the start of its call.
    """

    latencies: NDArray[np.int64]
    rows: int
    seconds: float
    interrupted: bool = False
    due: int = 0
    unserved: int = 0
    delays: NDArray[np.int64] = np.empty(0, np.int64)


def back_to_back(
    call: Call, queries: Sequence[NDArray[Any]], rows: int, seconds: float, clock: Clock, least_queries: int = 1
) -> Run:
    """The next query when the last one is answered: SingleStream with single samples, MultiStream with several `rows`.

    The time between two answers is the latency: it contains one reading of the clock and the loop.
    """
    durations, interrupted = array("q"), False
    try:
        repeat(call, queries, least_ns=int(seconds * 1e9), least_calls=least_queries, clock=clock, into=durations)
    except KeyboardInterrupt:
        interrupted = True
    latencies = _array(durations)
    return Run(latencies, rows, float(latencies.sum()) / 1e9, interrupted)


def offline(call: Call, rows: NDArray[Any], seconds: float, clock: Clock) -> Run:
    """All rows in one query, repeated, at least twice."""
    return back_to_back(call, [rows], len(rows), seconds, clock, least_queries=2)


def fixed_rate(call: Call, queries: Sequence[NDArray[Any]], rate: float, seconds: float, clock: Clock) -> Run:
    """A query every 1/`rate` seconds, whether or not the last one is answered; timed from the moment it was due.

    So a stall is counted in all queries that waited for it (no coordinated omission, as G. Tene calls it). The run ends
    on time, even if the rate cannot be reached: queries that are not answered by then are counted as unserved.
    """
    period, limit = 1e9 / rate, int(seconds * 1e9)
    due_count = max(1, int(rate * seconds))
    latencies, delays = array("q"), array("q")
    endless = cycle(queries)
    begin, last_moment = clock.now(), clock.reference() + 2 * limit + 10**9
    interrupted = False
    try:
        for number in range(due_count):
            due = begin + int(number * period)
            _wait(due, last_moment, clock)
            start = clock.now()
            if start - begin >= limit + period or clock.reference() > last_moment:
                break
            call(next(endless))
            delays.append(start - due)
            latencies.append(clock.now() - due)
    except KeyboardInterrupt:
        interrupted = True
        due_count = max(len(latencies), 1)
    spent = (clock.now() - begin) / 1e9
    found = _array(latencies)
    return Run(found, 1, spent, interrupted, due_count, due_count - len(found), _array(delays)[: len(found)])


def _array(values: array[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _wait(due: int, last_moment: int, clock: Clock) -> None:
    """Sleep until shortly before `due`, then poll the clock: a sleep ends a tenth of a millisecond late."""
    while (left := due - clock.now()) > 0 and clock.reference() <= last_moment:
        if left > 2 * _SPIN_NS:
            clock.sleep(min(left - _SPIN_NS, _LONGEST_SLEEP_NS) / 1e9)
