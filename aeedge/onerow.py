"""One row or a few, on arrays that are bound once: nothing is allocated but the result.

A call takes a set of arrays that nobody uses, or makes one, and puts it back: there are as many as calls were ever
made at the same time, whatever threads they came from, and one that is interrupted by another (a signal handler)
does not share with it. Taking from a list and appending to it are atomic.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OneRow = Callable[[Any], "NDArray[np.float32] | None"]
"""Takes what a caller passed; gives the result, or None for whatever is not plainly one finite row, or a few."""

FEW = 16  # rows; with more, copying them costs what being bound saves
_FEW_BYTES = 2**15  # ... and with more bytes


class Places(NamedTuple):
    """Arrays bound to sessions: where the rows go, the runs that follow, and what comes of them."""

    rows: NDArray[Any]
    run: Callable[[], None]
    watch: Callable[[], float] | None  # not finite if a row is not; known after `run`
    then: Callable[[], None] | None  # the second run, of the decoder
    whole: Callable[[], Any]  # a new result with the leading axis
    bare: Callable[[], Any]  # ... and without


def one_row(shape: tuple[int, ...], dtype: str, make: Callable[[int], Places], busy: list[None]) -> OneRow:
    """A function for rows of a shape (also without the leading axis) and exactly this dtype.

    `make` binds arrays for so many rows. `busy` is as long as calls are under way.
    """
    rank, wanted, array = len(shape) + 1, np.dtype(dtype), np.ndarray
    most = max(1, min(FEW, _FEW_BYTES // max(1, wanted.itemsize * prod(shape))))
    idle: list[list[Places]] = [[] for _ in range(most + 1)]
    enter, leave = busy.append, busy.pop

    def call(x: Any) -> NDArray[np.float32] | None:
        if type(x) is not array or x.dtype is not wanted:
            return None
        size = x.shape
        if size == shape:
            count, bare_row = 1, True
        elif len(size) == rank and size[1:] == shape and 0 < size[0] <= most:
            count, bare_row = size[0], False
        else:
            return None
        free = idle[count]
        enter(None)
        try:
            places = free.pop() if free else make(count)
        except IndexError:  # another thread was faster
            places = make(count)
        try:
            rows, run, watch, then, whole, bare = places
            rows[...] = x
            run()
            if watch is not None and not isfinite(watch()):
                return None
            if then is not None:
                then()
            result: NDArray[np.float32] = bare() if bare_row else whole()
            return result
        finally:
            free.append(places)
            leave()

    return call


def asked(watch: NDArray[np.float32] | None) -> Callable[[], float] | None:
    """The sum of a watch, in double precision, which cannot overflow; None where there is no watch."""
    if watch is None:
        return None
    if len(watch) == 1:
        item: Callable[[], float] = watch.item
        return item
    values = watch.tolist
    return lambda: sum(values())
