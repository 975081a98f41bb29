"""The fast path: arrays of numbers in the right shape go to onnxruntime in three Python calls.

A few samples are copied (and converted) into arrays that are bound once (see bound.py); more are taken where they are.
Whatever does not fit, or is not finite, is left to the dispatcher, which finds out why.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.runtime.batch import BLOCK_BYTES, INVALID, as_block
from aeedge.runtime.nonfinite import all_finite

if TYPE_CHECKING:
    from aeedge.runtime.methods import Method
    from aeedge.runtime.policy import Cutoffs
    from aeedge.types import Floats

    FastCall = Callable[[Any, Any, str], Floats | None]

_FLOAT32 = np.dtype(np.float32)


def fast_call(serial: Method, pooled: Method | None, one: Method, cutoffs: Cutoffs, busy: set[int]) -> FastCall:
    """The fast path of a method: (x, out, invalid) to results, or None for what the dispatcher has to look at.

    A closure, which is faster than a method.

    Args:
        serial, pooled: on the calling thread, and on the intra-op pool if that is open.
        one: the one of both that runs single samples.
        cutoffs: how many rows go which way.
        busy: threads with calls under way that are not on bound arrays.
    """
    shape, leading, array, dtype = one.row_in, (1, *one.row_in), np.ndarray, one.dtype
    single, row_out, integers = (leading, shape), one.row_out, one.dtype != _FLOAT32
    take, put_back, make = one.arrays.idle[1].pop, one.arrays.idle[1].append, one.arrays.make
    row_bytes = dtype.itemsize * int(np.prod(shape))

    def call(x: Any, out: Any, invalid: str) -> Floats | None:
        if type(x) is not array or invalid not in INVALID:
            return None
        found = x.shape
        if found in single:
            if out is not None and not _fits(out, (1, *row_out), row_out if found == shape else None):
                return None
            bound = None
            try:  # a signal handler may raise between any two steps
                try:
                    bound = take()
                except IndexError:
                    bound = make(1)
                result = bound(x, out)
                return result if found == leading or out is not None or result is None else result[0]
            finally:
                if bound is not None:
                    put_back(bound)
        count = found[0] if found[1:] == shape else 0
        way, most = (serial, cutoffs.serial_to) if count < cutoffs.pool_from else (pooled, cutoffs.whole_to)
        if not 0 < count <= most or way is None or (out is not None and not _fits(out, (count, *row_out), None)):
            return None
        if count <= way.bound_rows:
            return way.arrays.run(x, out)
        plain = x.dtype is dtype and x.flags.c_contiguous and x.flags.aligned
        if not plain and count * row_bytes > BLOCK_BYTES:
            return None
        block = x if plain else as_block(x, dtype)
        if block is None:
            return None
        thread = get_ident()
        try:
            busy.add(thread)
            if out is None:
                result = way.run(block)
            elif np.may_share_memory(block, out):
                return None
            else:
                way.run_into(block, out)
                result = out
        finally:
            busy.discard(thread)
        exposes = way.exposes
        return result if integers or (exposes is not None and exposes(result)) or all_finite(block) else None

    return call


def not_open(x: Any, out: Any, invalid: str) -> None:
    """The fast path where there is none: the dispatcher opens sessions, or says why it cannot."""


def _fits(out: Any, shape: tuple[int, ...], single: tuple[int, ...] | None) -> bool:
    """Whether results can be written to `out`; what is wrong with it the dispatcher finds out."""
    if type(out) is not np.ndarray or out.dtype is not _FLOAT32 or not out.flags.writeable:
        return False
    return bool(out.shape in (shape, single))
