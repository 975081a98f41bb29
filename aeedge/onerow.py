"""One row, on arrays that are bound once: nothing is allocated but the result.

A call takes a set of arrays that nobody uses, or makes one, and puts it back: there are as many as calls were ever
made at the same time, whatever threads they came from, and one that is interrupted by another (a signal handler)
does not share with it. Taking from a list and appending to it are atomic.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OneRow = Callable[[Any], "NDArray[np.float32] | None"]
"""Takes what a caller passed as a row; gives the result, or None for whatever is not plainly one finite row."""


class Places(NamedTuple):
    """Arrays bound to sessions: where the row goes, the runs that follow, and what comes of them."""

    row: NDArray[Any]
    run: Callable[[], None]
    watch: Callable[[], float] | None  # not finite if the row is not; known after `run`
    then: Callable[[], None] | None  # the second run, of the decoder
    whole: Callable[[], Any]  # a new result with the leading axis
    bare: Callable[[], Any]  # ... and without


def one_row(shape: tuple[int, ...], dtype: str, make: Callable[[], Places], busy: list[None]) -> OneRow:
    """A function for rows of a shape (with or without a leading axis of 1) and exactly this dtype.

    `busy` is as long as calls are under way.
    """
    leading, wanted, array = (1, *shape), np.dtype(dtype), np.ndarray
    idle: list[Places] = []
    take, put_back, enter, leave = idle.pop, idle.append, busy.append, busy.pop

    def call(x: Any) -> NDArray[np.float32] | None:
        if type(x) is not array or x.dtype is not wanted:
            return None
        size = x.shape
        if size != leading and size != shape:
            return None
        enter(None)
        try:
            places = take() if idle else make()
        except IndexError:  # another thread was faster
            places = make()
        try:
            row, run, watch, then, whole, bare = places
            row[...] = x
            run()
            if watch is not None and not isfinite(watch()):
                return None
            if then is not None:
                then()
            result: NDArray[np.float32] = whole() if size == leading else bare()
            return result
        finally:
            put_back(places)
            leave()

    return call
