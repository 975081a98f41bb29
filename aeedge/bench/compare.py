"""Compare two bundles: which is faster, by how much, and is the difference more than noise?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.bench.statistics import Interval, clustered_ratio
from aeedge.system.clock import Clock
from aeedge.system.timing import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bench.scenarios import Call

    Open = Callable[[], AbstractContextManager[Call]]

NEGLIGIBLE = 0.01  # smaller differences count as none, however significant
PRECISE = 0.02  # half the width of an interval at which the measurement ends: a difference of 5 % is found
_LOADS, _MOST_LOADS, _STEP, _BLOCKS = 10, 60, 5, 12
_LEAST_CALLS = 3


class Comparison(NamedTuple):
    """The time of a call of this bundle against that of another bundle.

    Attributes:
        rows: samples per call.
        ratio: this time divided by the other, with its 99 % interval.
        this_us, other_us: medians in microseconds.
        verdict: whether this one is "faster" or "slower", or "no_difference".
    """

    rows: int
    ratio: Interval
    this_us: float
    other_us: float
    verdict: str


def verdict(ratio: Interval) -> str:
    """The verdict on a ratio of times: "no_difference" unless the interval excludes 1."""
    if ratio.low > 1 and ratio.estimate > 1 + NEGLIGIBLE:
        return "slower"
    if ratio.high < 1 and ratio.estimate < 1 - NEGLIGIBLE:
        return "faster"
    return "no_difference"


def half_width(ratio: Interval) -> float:
    """Half the width of an interval, relative to its estimate."""
    return (ratio.high - ratio.low) / 2 / ratio.estimate


def compare(
    open_this: Open, open_other: Open, queries: list[NDArray[Any]], rows: int, seconds: float, clock: Clock
) -> Comparison:
    """Interleave calls of both, loading them again ten times or more, and compare block by block.

    Neighbouring blocks see the same state of the machine, so a disturbance hits both. The first of the two alternates.
    Ten loads take about `seconds`; on a noisy machine more follow, up to sixty, until the interval is narrow. Only its
    width ends the measurement, not its position, so that the verdict is not biased.
    """
    block_ns = int(seconds * 1e9 / (_LOADS * _BLOCKS * 2))
    found: list[list[tuple[float, float]]] = []
    while True:
        found.append(list(_one_load(open_this, open_other, queries, len(found), block_ns, clock)))
        if len(found) < _LOADS or len(found) % _STEP:
            continue
        blocks = np.array(found)
        this, other = blocks[..., 0], blocks[..., 1]
        ratio = clustered_ratio(this / other)
        if half_width(ratio) <= PRECISE or len(found) >= _MOST_LOADS:
            break
    return Comparison(rows, ratio, float(np.median(this)) / 1e3, float(np.median(other)) / 1e3, verdict(ratio))


def _one_load(
    open_this: Open, open_other: Open, queries: list[NDArray[Any]], load: int, block_ns: int, clock: Clock
) -> Iterator[tuple[float, float]]:
    """Nanoseconds per call of both in each block, after loading both and a block for warm-up."""
    opens = [open_this, open_other]
    first = load % 2
    with opens[first]() as one, opens[1 - first]() as two:
        calls = [one, two] if first == 0 else [two, one]
        for call in calls:
            timed(call, queries, block_ns, clock)
        for block in range(_BLOCKS):
            found = [0.0, 0.0]
            for which in (0, 1) if (block + load) % 2 == 0 else (1, 0):
                found[which] = timed(calls[which], queries, block_ns, clock)
            yield found[0], found[1]


def timed(
    call: Call, queries: list[NDArray[Any]], block_ns: int, clock: Clock, least_calls: int = _LEAST_CALLS
) -> float:
    """Median nanoseconds of a call, positive even if the clock is set back, which conditions.py reports."""
    return max(1.0, float(np.median(repeat(call, queries, least_ns=block_ns, least_calls=least_calls, clock=clock))))
