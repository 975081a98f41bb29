"""From what the caller passes to blocks that a graph takes, and back into one array.

Rows are taken block by block, so that a block's activations stay in cache and only one block at a time is converted,
whatever the caller passes. Blocks run on the caller's thread, or on several when there are enough of them.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import ArrayLike, NDArray

    Block = NDArray[Any]
    BlockFunction = Callable[[Block], NDArray[np.float32]]

_BLOCK_VALUES = 2**18  # 1 MiB of float32 input: with its activations it stays within a core's L2 cache
_BLOCK_ROWS = (16, 1024)
_SMALL_VALUES = 4096
_FLOAT32 = np.dtype(np.float32)


class Rows:
    """The caller's array as rows of one shape and dtype, converted and checked one block at a time.

    Args:
        x: array-like of shape (n, *shape), or (*shape) for a single row.
        shape: shape of one row.
        dtype: what the graph takes: "float32", "uint8" or "int16".
        what: the method that was called, for messages.
        columns: names of the values of one-dimensional rows, if known.
        first: number of the first row, for messages, where `x` is a part of something longer.
        invalid: "raise" for an InputError on NaN and infinity, "propagate" for NaN in those rows' results.

    Raises:
        InputError: a wrong shape, no rows, not numbers.
    """

    def __init__(
        self,
        x: ArrayLike,
        shape: tuple[int, ...],
        dtype: str,
        *,
        what: str,
        columns: tuple[str, ...] | None = None,
        first: int = 0,
        invalid: str = "raise",
    ) -> None:
        if invalid not in ("raise", "propagate"):
            raise InputError(f"invalid: expected 'raise' or 'propagate', got {invalid!r}")
        array = _as_array(x, what)
        self.single = array.shape == shape
        rows = array[np.newaxis] if self.single else array
        if rows.shape[1:] != shape or rows.ndim != len(shape) + 1:
            expected = " or ".join(str(s).replace("'n'", "n") for s in (("n", *shape), shape))
            raise InputError(f"{what}: expected an array of shape {expected}, got {array.shape}")
        if len(rows) == 0:
            raise InputError(f"{what}: expected at least one row of shape {shape}, got an empty array {array.shape}")
        if rows.dtype.kind not in "fiub":
            raise InputError(f"{what}: expected numbers that fit {dtype}, got dtype {rows.dtype}; convert the array")
        if dtype != "float32" and rows.dtype.kind == "f":
            raise InputError(
                f"{what}: expected {dtype} (raw integers, as the model was exported for), got {rows.dtype}; "
                f"pass the raw values, or round and convert them with .astype({dtype!r})"
            )
        self._rows, self._dtype, self._what = rows, np.dtype(dtype), what
        self._columns, self._first, self._propagate = columns, first, invalid == "propagate"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def block_rows(self) -> int:
        """Rows in a block: a power of two, fewer where a row is wide."""
        fitting: int = max(1, _BLOCK_VALUES // self._rows[0].size)
        return min(max(1 << (fitting.bit_length() - 1), _BLOCK_ROWS[0]), _BLOCK_ROWS[1])

    def apart_from(self, out: NDArray[Any]) -> None:
        """Copy the rows if `out` shares their memory, so that writing results cannot change rows still to come."""
        if np.may_share_memory(self._rows, out):
            self._rows = self._rows.copy()

    def block(self, start: int, stop: int) -> tuple[Block, NDArray[np.bool_] | None]:
        """Rows `start` to `stop`, C-contiguous and of the graph's dtype, and which of them hold NaN or infinity.

        float32 C-contiguous rows come back as a view. Rows that are not finite are zeroed in a copy.
        """
        part = self._rows if stop - start == len(self._rows) else self._rows[start:stop]
        if self._dtype != _FLOAT32:
            return self._integers(part, start), None
        if part.dtype == _FLOAT32:
            block = np.ascontiguousarray(part)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinity, and is found below
                block = np.ascontiguousarray(part, _FLOAT32)
        if _surely_finite(block):
            return block, None
        good = np.asarray(np.isfinite(block).reshape(len(block), -1).all(axis=1))
        if good.all():
            return block, None
        if not self._propagate:
            raise self._not_finite(part, block, start)
        block = block.copy() if np.may_share_memory(block, part) else block
        block[~good] = 0
        return block, ~good

    def _integers(self, part: Block, start: int) -> Block:
        if part.dtype != self._dtype:
            limits = np.iinfo(self._dtype)
            outside = (part < limits.min) | (part > limits.max) if part.dtype != bool else np.zeros(1, bool)
            if outside.any():
                at = tuple(int(i) for i in np.argwhere(outside)[0])
                raise InputError(
                    f"{self._what}: expected values from {limits.min} to {limits.max} ({self._dtype}), "
                    f"got {part[at]} in {self._place(start, at)}"
                )
        return np.ascontiguousarray(part, self._dtype)

    def _not_finite(self, part: Block, block: Block, start: int) -> InputError:
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(block))[0])
        return InputError(
            f"{self._what}: expected finite numbers, got {part[at]} in {self._place(start, at)}; "
            "clean the data, or pass invalid='propagate' to get NaN for such rows"
        )

    def _place(self, start: int, at: tuple[int, ...]) -> str:
        row = f"row {self._first + start + at[0]}, "
        if len(at) != 2:
            return row + f"position {at[1:]}"
        return row + f"column {at[1]}" + (f" ({self._columns[at[1]]!r})" if self._columns else "")


class Blocks:
    """Runs a function over blocks of rows, on up to `threads` threads, into one array. Survives fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

    def run(
        self, rows: Rows, function: BlockFunction, row_shape: tuple[int, ...], out: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Fill `out` (or a new array) of shape (n, *row_shape) with `function` of each block of rows.

        Raises:
            InputError: rows that are not finite, the first one named, or an `out` that does not fit. After an error
                the content of `out` is undefined.
        """
        size = rows.block_rows
        if out is None and len(rows) <= size:  # what the graph returns is new: no need to copy it
            block, bad = rows.block(0, len(rows))
            whole = function(block)
            if bad is not None:
                whole[bad] = np.nan
            return whole[0] if rows.single else whole
        result = _output(rows, row_shape, out)

        def fill(start: int) -> None:
            stop = min(start + size, len(rows))
            block, bad = rows.block(start, stop)
            result[start:stop] = function(block)
            if bad is not None:
                result[start:stop][bad] = np.nan

        starts = range(0, len(rows), size)
        if self.threads == 1 or len(starts) == 1:
            for start in starts:
                fill(start)
        else:
            self._run_threaded(fill, starts)
        return result[0] if rows.single and out is None else result

    def _run_threaded(self, fill: Callable[[int], None], starts: range) -> None:
        todo = deque(starts)
        failures: list[tuple[int, BaseException]] = []

        def lane() -> None:
            while todo and not failures:
                try:
                    start = todo.popleft()
                except IndexError:
                    return  # another lane took the last block
                try:
                    fill(start)
                except BaseException as error:  # raised below, on the caller's thread
                    failures.append((start, error))

        pool = self._executor()
        helpers = [pool.submit(lane) for _ in range(min(self.threads, len(starts)) - 1)]
        lane()
        for helper in helpers:
            helper.result()
        if failures:  # blocks are begun in order, so the first failing row is among them
            raise min(failures, key=lambda failure: failure[0])[1]

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool_process != os.getpid():  # a forked child has none of its parent's threads
            from concurrent.futures import ThreadPoolExecutor  # costs milliseconds, and single rows need none

            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="aeedge")
            self._pool_process = os.getpid()
        return self._pool

    def close(self) -> None:
        """End the threads; a later `run` starts them anew."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pool_process == os.getpid():
            pool.shutdown()


def _surely_finite(block: NDArray[np.float32]) -> bool:
    """Whether a quick look shows that all values are finite; for large blocks a sum, which may overflow in vain."""
    if block.size <= _SMALL_VALUES:
        return bool(np.isfinite(block).all())
    with np.errstate(over="ignore", invalid="ignore"):
        return isfinite(np.add.reduce(block, axis=None))


def _as_array(x: ArrayLike, what: str) -> NDArray[Any]:
    if isinstance(x, np.ndarray):
        return x
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older numpy only warns of rows of unequal length
            return np.asarray(x)
    except (ValueError, TypeError, Warning) as error:
        raise InputError(f"{what}: expected an array of numbers, got {type(x).__name__} ({error})") from None


def _output(rows: Rows, row_shape: tuple[int, ...], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    shape = (len(rows), *row_shape)
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray):
        raise InputError(f"out: expected a float32 array of shape {shape}, got {type(out).__name__}")
    target = out[np.newaxis] if rows.single and out.shape == row_shape else out
    if target.dtype != np.float32 or target.shape != shape or not target.flags.writeable:
        state = "" if target.flags.writeable else "read-only "
        raise InputError(f"out: expected a writable float32 array of shape {shape}, got {state}{out.dtype} {out.shape}")
    rows.apart_from(out)
    return target
