"""The short way: plain rows, which nothing has to be converted for, go straight to onnxruntime.

What the long way (rows.py, runner.py) does for all kinds of input takes longer than some rows do. One row or a few are
copied to arrays that are bound once, so that nothing is allocated but the result; more are taken where they are.

A call takes a set of bound arrays that nobody uses, or makes one, and puts it back: there are as many as calls were
ever made at the same time, whatever threads they came from, and one that is interrupted by another (a signal handler)
does not share with it. Taking from a list and appending to it are atomic.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.runtime.nonfinite import all_finite, looker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

Plain = Callable[[Any], "Floats | None"]
"""Takes rows as a caller passed them; gives the results, or None if they are not plain, not finite, or too many."""

# With more, copying costs what being bound saves; on a pool the others' caches have to fetch what was copied.
_FEW_ROWS, _FEW_BYTES, _FEW_BYTES_SHARED = 16, 2**14, 2**13


class Short:
    """The short way of a method through one session.

    Args:
        shape, dtype: of a row.
        make: binds arrays for so many rows.
        new: runs a batch as it is, (n, *shape).
        tells: whether results show that their rows were finite.
        shared: whether several threads run it.

    Attributes:
        most: rows that are bound.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        make: Callable[[int], Plain],
        new: Callable[[NDArray[Any]], Floats],
        tells: Callable[[Floats], bool],
        shared: bool,
    ) -> None:
        self.shape, self.dtype, self.new, self.tells = shape, np.dtype(dtype), new, tells
        most_bytes = _FEW_BYTES_SHARED if shared else _FEW_BYTES
        self.most = max(1, min(_FEW_ROWS, most_bytes // max(1, self.dtype.itemsize * prod(shape))))
        self._made: list[None] = []
        self.idle: list[list[Plain]] = [[] for _ in range(self.most + 1)]
        self._make = make

    @property
    def busy(self) -> bool:
        """Whether a call on bound arrays is under way."""
        return len(self._made) > sum(map(len, self.idle))

    def few(self, x: NDArray[Any]) -> Floats | None:
        """Results of up to `most` rows, (n, *shape), of the dtype; None if they are not finite."""
        free = self.idle[len(x)]
        try:
            bound = free.pop()
        except IndexError:
            bound = self.bound(len(x))
        try:
            return bound(x)
        finally:
            free.append(bound)

    def bound(self, count: int) -> Plain:
        """A new set of arrays for so many rows."""
        made = self._make(count)
        self._made.append(None)
        return made


class Borders:
    """How many rows go which way; a row always goes the short one.

    Attributes:
        alone: up to so many on the calling thread ...
        pool: ... but from so many on the pool,
        most: up to so many.
    """

    __slots__ = ("alone", "most", "pool")

    def __init__(self) -> None:
        self.alone = self.pool = self.most = 0.0


def plain(alone: Short, pool: Short | None, one: Short, borders: Borders, busy: list[None]) -> Plain:
    """The short way for whatever a caller passes, also one row without the leading axis.

    A closure, which is faster than a method.

    Args:
        alone, pool: on the calling thread, and on the pool if there is one.
        one: the one of both that runs single rows.
        borders: how many rows go which way, as it stands when they come.
        busy: is as long as calls are under way that are not on bound arrays.
    """
    shape, leading, array, wanted = one.shape, (1, *one.shape), np.ndarray, one.dtype
    single = leading, shape
    take, put_back, bound_new, floats = one.idle[1].pop, one.idle[1].append, one.bound, one.dtype == np.float32

    def call(x: Any) -> Floats | None:
        if type(x) is not array or x.dtype is not wanted:
            return None
        found = x.shape
        if found in single:
            try:
                bound = take()
            except IndexError:
                bound = bound_new(1)
            try:
                result = bound(x)
                return result if found == leading or result is None else result[0]
            finally:
                put_back(bound)
        count = found[0] if found[1:] == shape else 0
        if count < borders.pool:
            if not 0 < count <= borders.alone:
                return None
            way = alone
        elif pool is None or count > borders.most:
            return None
        else:
            way = pool
        if count <= way.most:
            return way.few(x)
        flags = x.flags
        if not flags.c_contiguous or not flags.aligned:
            return None
        busy.append(None)
        try:
            result = way.new(x)
        finally:
            busy.pop()
        return result if not floats or way.tells(result) or all_finite(x) else None

    return call


def on_bound(
    rows: NDArray[Any],
    run: Callable[[], None],
    then: Callable[[], None] | None,
    result: Callable[[], Floats],
    telling: Floats | None = None,
) -> Plain:
    """What is done with as many rows as fit into `rows`, (n, *shape): copy them there, look at them, run, copy out.

    Args:
        rows: what is bound to the input.
        run, then: the runs that follow; `then` of the decoder, if it is needed.
        result: makes a new array of what came of it.
        telling: (n,) or (n, k), what is looked at instead of the rows, after the runs (see telling.py).
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
