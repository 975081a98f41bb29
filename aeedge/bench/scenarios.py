"""The load that is put on a model: MLPerf's SingleStream, MultiStream and Offline, and a fixed rate.

Names and rules are those of MLPerf Inference where they apply (Reddi et al., MLPerf Inference Benchmark, 2020); runs
are shorter, so a result is no MLPerf submission. Ctrl-C ends a scenario early and keeps what was measured.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.system.clock import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Call = Callable[[NDArray[Any]], object]

MULTISTREAM_ROWS = 8  # samples a query, as MLPerf has it
OFFLINE_ROWS = 24_576  # MLPerf's least number of samples in the one query of Offline
_CHUNK = 64  # queries between two looks at the witness
_LONGEST_SLEEP_NS = 100_000_000  # then the witness is asked
_SPIN_NS = 300_000  # sleeping is coarser than this: the rest of a wait is spent looking at the clock


class Run(NamedTuple):
    """Latencies of the queries of one scenario, in nanoseconds, in order.

    Attributes:
        latencies: int64, shape (queries,).
        rows: samples a query.
        seconds: from the first query's start to the last one's end.
        interrupted: ended by Ctrl-C.
        asked, unserved: with a fixed rate, queries due within the run, and those not answered at its end.
        delays: with a fixed rate, nanoseconds from the moment a query was due to the start of its call.
    """

    latencies: NDArray[np.int64]
    rows: int
    seconds: float
    interrupted: bool = False
    asked: int = 0
    unserved: int = 0
    delays: NDArray[np.int64] = np.empty(0, np.int64)


def back_to_back(call: Call, queries: Sequence[NDArray[Any]], rows: int, seconds: float, clock: Clock) -> Run:
    """The next query when the last one is answered: SingleStream with single samples, MultiStream with several `rows`.

    The time between two answers is the latency: it contains one reading of the clock and the loop.
    """
    limit = int(seconds * 1e9)
    ends = array("q")
    endless = cycle(queries)
    begin, witnessed = clock.now(), clock.witness()
    interrupted = False
    try:
        # The witness ends the run too: a clock that is set back must not make it last for ever.
        while (ends[-1] - begin if ends else 0) < limit and clock.witness() - witnessed < 2 * limit:
            for _ in range(_CHUNK):
                call(next(endless))
                ends.append(clock.now())
                if ends[-1] - begin >= limit:
                    break
    except KeyboardInterrupt:
        interrupted = True
    latencies = np.diff(_array(ends), prepend=begin)
    return Run(latencies, rows, float(latencies.sum()) / 1e9, interrupted)


def offline(call: Call, rows: NDArray[Any], seconds: float, clock: Clock) -> Run:
    """All rows in one query, again and again, at least twice."""
    run = back_to_back(call, [rows], len(rows), seconds, clock)
    if len(run.latencies) >= 2 or run.interrupted:
        return run
    again = back_to_back(call, [rows], len(rows), 1e-9, clock)
    both = np.concatenate([run.latencies, again.latencies])
    return Run(both, len(rows), run.seconds + again.seconds, again.interrupted)


def fixed_rate(call: Call, queries: Sequence[NDArray[Any]], rate: float, seconds: float, clock: Clock) -> Run:
    """A query every 1/`rate` seconds, whether or not the last one is answered; timed from the moment it was due.

    So a stall shows in all queries that waited behind it (G. Tene: coordinated omission). The run ends on time: what is
    not answered by then is counted as unserved, so a rate that cannot be reached does not hang.
    """
    period, limit = 1e9 / rate, int(seconds * 1e9)
    asked = max(1, int(rate * seconds))
    latencies, delays = array("q"), array("q")
    endless = cycle(queries)
    begin, last_moment = clock.now(), clock.witness() + 2 * limit + 10**9
    interrupted = False
    try:
        for number in range(asked):
            due = begin + int(number * period)
            _wait(due, last_moment, clock)
            start = clock.now()
            if start - begin >= limit + period or clock.witness() > last_moment:
                break
            call(next(endless))
            delays.append(start - due)
            latencies.append(clock.now() - due)
    except KeyboardInterrupt:
        interrupted = True
        asked = max(len(latencies), 1)
    spent = (clock.now() - begin) / 1e9
    found = _array(latencies)
    return Run(found, 1, spent, interrupted, asked, asked - len(found), _array(delays)[: len(found)])


def _array(values: array[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _wait(due: int, last_moment: int, clock: Clock) -> None:
    """Sleep until shortly before `due`, then watch the clock: sleeping alone wakes up a tenth of a millisecond late."""
    while (left := due - clock.now()) > 0 and clock.witness() <= last_moment:
        if left > 2 * _SPIN_NS:
            clock.sleep(min(left - _SPIN_NS, _LONGEST_SLEEP_NS) / 1e9)
