"""One row or a few, on arrays that are bound once: nothing is allocated but the result.

A call takes a set of arrays that nobody uses, or makes one, and puts it back: there are as many as calls were ever
made at the same time, whatever threads they came from, and one that is interrupted by another (a signal handler)
does not share with it. Taking from a list and appending to it are atomic.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.finite import looker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

OneRow = Callable[[Any], "Floats | None"]
"""Takes rows as a caller passed them; gives the result, or None if they are not plain, or not finite."""

FEW = 16  # rows; with more, copying them costs what being bound saves
_FEW_BYTES = 2**15  # ... and with more bytes


class Short:
    """The short way for rows of a shape and exactly this dtype.

    Args:
        shape, dtype: of a row.
        make: binds arrays for so many rows.

    Attributes:
        most: rows that it takes.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, make: Callable[[int], OneRow]) -> None:
        self._shape = shape
        self.most = max(1, min(FEW, _FEW_BYTES // max(1, np.dtype(dtype).itemsize * prod(shape))))
        self._made: list[None] = []
        self._idle: list[list[OneRow]] = [[] for _ in range(self.most + 1)]
        self._make, self._dtype = make, np.dtype(dtype)

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return len(self._made) > sum(map(len, self._idle))

    def function(self) -> OneRow:
        """The way of one row, also without the leading axis, for whatever a caller passes.

        A closure, which is faster than a method. Not kept here, where it would be a cycle.
        """
        shape, leading, array, wanted, make = self._shape, (1, *self._shape), np.ndarray, self._dtype, self._new
        take, put_back = self._idle[1].pop, self._idle[1].append

        def call(x: Any) -> Floats | None:
            if type(x) is not array or x.dtype is not wanted:
                return None
            several = x.shape == leading
            if not several and x.shape != shape:
                return None
            try:
                bound = take()
            except IndexError:
                bound = make(1)
            try:
                result = bound(x)
                return result if several or result is None else result[0]
            finally:
                put_back(bound)

        return call

    def few(self, x: NDArray[Any]) -> Floats | None:
        """The same for up to `most` rows, (n, *shape), of the dtype."""
        free = self._idle[len(x)]
        try:
            bound = free.pop()
        except IndexError:
            bound = self._new(len(x))
        try:
            return bound(x)
        finally:
            free.append(bound)

    def _new(self, count: int) -> OneRow:
        bound = self._make(count)
        self._made.append(None)
        return bound


def on_bound(
    rows: NDArray[Any],
    run: Callable[[], None],
    then: Callable[[], None] | None,
    result: Callable[[], Floats],
    telling: Floats | None = None,
) -> OneRow:
    """What is done with as many rows as fit into `rows`, (n, *shape): copy them there, look at them, run, copy out.

    Args:
        rows: what is bound to the input.
        run, then: the runs that follow; `then` of the decoder, if it is needed.
        result: makes a new array of what came of it.
        telling: what is looked at instead of the rows, after the runs, because it tells of them (see finite.py).
    """
    before = looker(rows) if rows.dtype == np.float32 and telling is None else None
    after = None if telling is None else looker(telling)

    def work(x: Any) -> Floats | None:
        rows[...] = x
        if before is not None and not isfinite(before()):
            return None
        run()
        if then is not None:
            then()
        return None if after is not None and not isfinite(after()) else result()

    return work
