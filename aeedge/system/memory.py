"""Stay within a memory limit: how many rows a block may have, and how many threads may run.

A bundle does not state how much memory the activations of its graphs need, so it is measured: blocks of 1, 2, 4, ...
rows are run as long as the next size will fit, and the growth of the process is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aeedge.errors import InputError
from aeedge.system.limits import resident_bytes

_MOST_ROWS = 1024
_FEW = 16  # rows; with smaller blocks, more threads are not faster than larger blocks
_RESERVE = 2**21  # bytes for what is not measured: Python objects, thread stacks
_MARGIN = 1.05  # processes differ a little in what they need
_ARENA = 2  # onnxruntime's arena may take this many times what a block needs


class Fit(NamedTuple):
    """Threads, and rows of a block on each."""

    threads: int
    rows: int


class Limit(NamedTuple):
    """How much the process may grow, in MB (10⁶ bytes), beyond the bytes that it occupied `before`."""

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
        InputError: not a number above 0, or a system that does not report how much memory a process occupies.
    """
    if isinstance(mb, bool) or not isinstance(mb, (int, float)) or not mb > 0:
        raise InputError(f"memory_limit_mb: expected a number above 0, or None for no limit, got {mb!r}")
    before = resident_bytes()
    if before is None:
        raise InputError("memory_limit_mb: not supported on this system, which has no /proc/self/statm")
    return Limit(float(mb), before)


def fit(limit: Limit, run: Callable[[int], None], row_bytes: int, threads: int) -> Fit:
    """The largest blocks and the most threads that stay within the limit.

    Args:
        limit: begun before the model was opened.
        run: runs a number of rows through all graphs.
        row_bytes: bytes of the arrays of one row outside the graphs.
        threads: the maximum.

    Raises:
        InputError: not even one row fits; the message names the smallest limit that would do.
    """
    run(1)
    one = limit.grown()
    base = one + _RESERVE
    if base + row_bytes > limit.bytes:
        raise InputError(
            f"memory_limit_mb: expected at least {_rounded(_MARGIN * (base + row_bytes))} for this bundle, "
            f"got {limit.mb:g}; allow more, or export a smaller network"
        )
    available = (limit.bytes - base) / _ARENA
    rows, each = 1, float(row_bytes)
    while rows < _MOST_ROWS and 2 * rows * each <= available:
        rows *= 2
        run(rows)
        each = max(each, row_bytes + (limit.grown() - one) / rows)
    count = max(1, min(threads, int(available / (each * min(rows, _FEW)))))
    while rows > 1 and count * rows * each > available:
        rows //= 2
    return Fit(count, rows)


def _rounded(size: float) -> str:
    """MB, upwards to a tenth."""
    return f"{-(-size // 1e5) / 10:g}"
