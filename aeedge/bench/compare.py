"""Two bundles side by side: which is faster, by how much, and is that more than noise?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.bench.statistics import Interval, clustered_ratio
from aeedge.system.clock import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bench.scenarios import Call

    Open = Callable[[], AbstractContextManager[Call]]

NEGLIGIBLE = 0.01  # a difference below one percent is none, however sure
PRECISE = 0.02  # half the width of an interval that is worth stopping at: a difference of 5 % is seen
_LOADS, _MOST_LOADS, _STEP, _BLOCKS = 10, 60, 5, 12
_LEAST_CALLS = 3


class Comparison(NamedTuple):
    """How the time of one call of the other bundle (or the baseline) relates to this one's.

    Attributes:
        rows: samples a call.
        ratio: this one's time divided by the other's, with its 99 % interval.
        this_us, other_us: medians in microseconds.
        verdict: what the interval says of this one: "faster", "slower" or "no difference".
    """

    rows: int
    ratio: Interval
    this_us: float
    other_us: float
    verdict: str


def verdict(ratio: Interval) -> str:
    """What may be said of a ratio of times: "no difference" unless the whole interval is apart from 1."""
    if ratio.low > 1 and ratio.estimate > 1 + NEGLIGIBLE:
        return "slower"
    if ratio.high < 1 and ratio.estimate < 1 - NEGLIGIBLE:
        return "faster"
    return "no difference"


def half_width(ratio: Interval) -> float:
    """Half the width of an interval, relative to its estimate."""
    return (ratio.high - ratio.low) / 2 / ratio.estimate


def compare(
    open_this: Open, open_other: Open, queries: list[NDArray[Any]], rows: int, seconds: float, clock: Clock
) -> Comparison:
    """Interleave the two, loading both anew ten times or more, and compare block by block.

    Neighbouring blocks see the same state of the machine, so a disturbance hits both. Who goes first alternates. Ten
    loads take about `seconds`; on a noisy machine more follow, up to sixty, until the interval is narrow. Its width
    ends the measurement, never what it says, so that the verdict is not biased.
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
    """Nanoseconds a call of both in each block, after loading both and a block to warm up."""
    opens = [open_this, open_other]
    first = load % 2
    with opens[first]() as one, opens[1 - first]() as two:
        calls = [one, two] if first == 0 else [two, one]
        for call in calls:
            _block(call, queries, block_ns, clock)
        for block in range(_BLOCKS):
            found = [0.0, 0.0]
            for which in (0, 1) if (block + load) % 2 == 0 else (1, 0):
                found[which] = _block(calls[which], queries, block_ns, clock)
            yield found[0], found[1]


def _block(call: Call, queries: list[NDArray[Any]], block_ns: int, clock: Clock) -> float:
    """Median nanoseconds of a call."""
    took: list[int] = []
    begin = last = clock.now()
    while 0 <= last - begin < block_ns or len(took) < _LEAST_CALLS:
        call(queries[len(took) % len(queries)])
        now = clock.now()
        took.append(max(now - last, 1))  # a clock that is set back is found by the one who compares the clocks
        last = now
    return float(np.median(took))
