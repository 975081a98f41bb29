"""Stay within a limit of memory: how many rows may be worked on at a time, and on how many threads.

What a graph's activations take is not written in a bundle, so it is measured: blocks of 1, 2, 4, ... rows are run as
long as the next size will fit, and what the process grows by is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aeedge.errors import InputError
from aeedge.system.limits import resident_bytes

_MOST_ROWS = 1024
_FEW = 16  # rows; below, more threads would not be faster than larger blocks
_RESERVE = 2**21  # bytes for what is not counted: Python's objects, stacks of threads
_MARGIN = 1.05  # what one process needs another may need a little more of
_GROWS = 2  # onnxruntime's arena may take this many times what a block needs


class Fit(NamedTuple):
    """Threads, and rows of a block on each."""

    threads: int
    rows: int


class Limit(NamedTuple):
    """How much a process may grow by, in MB (10⁶ bytes), beyond the bytes that it occupied `before`."""

    mb: float
    before: int

    @property
    def bytes(self) -> float:
        """The limit in bytes."""
        return self.mb * 1e6

    def grown(self) -> int:
        """Bytes that the process has grown by."""
        return max(0, (resident_bytes() or 0) - self.before)


def limit(mb: float) -> Limit:
    """The argument `memory_limit_mb`, from this moment on.

    Raises:
        InputError: not a number above 0, or a system that does not tell how much memory a process has.
    """
    if isinstance(mb, bool) or not isinstance(mb, (int, float)) or not mb > 0:
        raise InputError(f"memory_limit_mb: expected a number above 0, or None for no limit, got {mb!r}")
    before = resident_bytes()
    if before is None:
        raise InputError("memory_limit_mb: this system does not tell what a process occupies (no /proc/self/statm)")
    return Limit(float(mb), before)


def fit(limit: Limit, run: Callable[[int], None], row_bytes: int, threads: int) -> Fit:
    """The largest blocks and the most threads that stay within the limit.

    Args:
        limit: begun before the model was opened.
        run: runs so many rows through all of the graphs.
        row_bytes: of a row's arrays outside the graphs.
        threads: the most.

    Raises:
        InputError: not even one row fits; the message names the smallest limit that would do.
    """
    run(1)
    one = limit.grown()
    base = one + _RESERVE
    if base + row_bytes > limit.bytes:
        raise InputError(
            f"memory_limit_mb: expected at least {_rounded(_MARGIN * (base + row_bytes))} for this bundle, "
            f"got {limit.mb:g}; allow more, or export a smaller net"
        )
    room = (limit.bytes - base) / _GROWS
    rows, each = 1, float(row_bytes)
    while rows < _MOST_ROWS and 2 * rows * each <= room:
        rows *= 2
        run(rows)
        each = max(each, row_bytes + (limit.grown() - one) / rows)
    lanes = max(1, min(threads, int(room / (each * min(rows, _FEW)))))
    while rows > 1 and lanes * rows * each > room:
        rows //= 2
    return Fit(lanes, rows)


def _rounded(size: float) -> str:
    """MB, upwards to a tenth."""
    return f"{-(-size // 1e5) / 10:g}"
