"""Arrays whose addresses onnxruntime knows, so that a call on a few samples allocates nothing but its result.

A call takes a set of bound arrays that is idle, or makes one, and puts it back: there are as many as calls were ever
made at the same time, whatever threads they came from, and one that is interrupted by another (a signal handler) does
not share with it. Taking from a list and appending to it are atomic.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING

from aeedge.record import Record
from aeedge.runtime.batch import copy_into

if TYPE_CHECKING:
    from aeedge.types import Block, Floats

    BoundCall = Callable[[Block, Floats | None], Floats | None]


class Bound(Record):
    """The bound arrays of a method for a number of samples.

    Attributes:
        input: (n, *row_in), to be filled before a run.
        output: what the last stage writes; the result itself where `direct`.
        run: runs all stages.
        result: gives the result in a new array.
        direct: whether nothing is left to be done with `output`.
        failed: what to raise instead of an error of `run`; None for the error itself.
        watched: after a run, a function whose result is finite if the input was; None where it cannot be otherwise.
    """

    input: Block
    output: Floats
    run: Callable[[], None]
    result: Callable[[], Floats]
    direct: bool
    failed: Callable[[Exception], Exception | None]
    watched: Callable[[], float] | None


class BoundArrays:
    """The sets of bound arrays of a method, by number of samples.

    Args:
        bind: binds arrays for a number of samples.
        most: the most samples that are bound.
    """

    def __init__(self, bind: Callable[[int], Bound], most: int) -> None:
        self.idle: list[list[BoundCall]] = [[] for _ in range(most + 1)]
        self._bind = bind
        self._made: list[weakref.ref[BoundCall]] = []  # but for those that an interrupted call lost

    @property
    def busy(self) -> bool:
        """Whether a call on bound arrays is under way."""
        return len(self._made) > sum(map(len, self.idle))

    def run(self, x: Block, out: Floats | None) -> Floats | None:
        """Results of a few samples (n, *shape), in `out` or a new array; None if they do not fit or are not finite."""
        idle, bound = self.idle[len(x)], None
        try:  # a signal handler may raise between any two steps
            try:
                bound = idle.pop()
            except IndexError:
                bound = self.make(len(x))
            return bound(x, out)
        finally:
            if bound is not None:
                idle.append(bound)

    def make(self, count: int) -> BoundCall:
        """A new set of arrays for this many samples, as a function that copies in, runs and copies out."""
        bound = _bound_call(self._bind(count))
        self._made.append(weakref.ref(bound, self._made.remove))
        return bound


def _bound_call(bound: Bound) -> BoundCall:
    rows, run, failed, watched, result = bound.input, bound.run, bound.failed, bound.watched, bound.result
    dtype, output = rows.dtype, bound.output if bound.direct else None

    def call(x: Block, out: Floats | None) -> Floats | None:
        if x.dtype is dtype:
            rows[...] = x
        elif not copy_into(rows, x):
            return None
        try:
            run()
        except Exception as error:
            if (told := failed(error)) is None:
                raise
            raise told from None
        if watched is not None and not isfinite(watched()):
            return None
        if out is None:
            return result()
        out[...] = result() if output is None else output
        return out

    return call
