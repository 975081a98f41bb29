"""From what the caller passes to blocks that a graph takes, and to an array for the results.

What is larger than a block (2 MiB) is converted block by block, never as a whole.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.runtime.nonfinite import all_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from aeedge.types import Block, Floats


_FLOAT32 = np.dtype(np.float32)
_LINE = 64  # bytes of a cache line, or less
INVALID = "raise", "propagate"
BLOCK_BYTES = 2**21  # of a block's input: with its activations it should stay in a core's cache


class InputBatch:
    """The caller's array as samples of one shape and dtype, converted one block at a time.

    Args:
        x: array-like of shape (n, *shape), or (*shape) for a single sample; or a frame (see frames.py).
        shape: shape of one sample.
        dtype: what the graph takes: float32, uint8 or int16.
        what: the method that was called, for messages.
        columns: names of the values of one-dimensional samples, if known.
        first: number of the first row, for messages, where `x` is a part of something longer.
        invalid: "raise" for an InputError on NaN and infinity, "propagate" for NaN in those rows' results.
        fill: replaces missing values in a block, if the model knows any (see missing.py).

    Raises:
        InputError: a wrong shape, no rows, not numbers.
    """

    def __init__(
        self,
        x: ArrayLike,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        what: str,
        columns: tuple[str, ...] | None = None,
        first: int = 0,
        invalid: str = "raise",
        fill: Callable[[Block], tuple[Block, int]] | None = None,
    ) -> None:
        if invalid not in INVALID:
            raise InputError(f"invalid: expected 'raise' or 'propagate', got {invalid!r}")
        array = as_array(x, what, columns, first)
        self.single = array.shape == shape
        rows = array[np.newaxis] if self.single else array
        if rows.shape[1:] != shape or rows.ndim != len(shape) + 1:
            expected = " or ".join(str(s).replace("'n'", "n") for s in (("n", *shape), shape))
            raise InputError(f"{what}: expected an array of shape {expected}, got {array.shape}")
        if len(rows) == 0:
            raise InputError(f"{what}: expected at least one row of shape {shape}, got an empty array {array.shape}")
        if rows.dtype.kind not in "fiub":
            raise InputError(f"{what}: expected numbers that fit {dtype}, got dtype {rows.dtype}; convert the array")
        if dtype != _FLOAT32 and rows.dtype.kind == "f":
            raise InputError(
                f"{what}: expected {dtype} (raw integers, as the model was exported for), got {rows.dtype}; "
                f"pass the raw values, or round and convert them with .astype({dtype.name!r})"
            )
        self._rows, self._dtype, self._what = rows, dtype, what
        self._columns, self._first, self._propagate, self._fill = columns, first, invalid == "propagate", fill

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of a sample as the graph takes it."""
        return int(self._rows[0].size) * self._dtype.itemsize

    @property
    def is_converted(self) -> bool:
        """Whether rows are copied on their way to the graph."""
        rows = self._rows
        return rows.dtype != self._dtype or not (rows.flags.c_contiguous and rows.flags.aligned)

    def apart_from(self, out: NDArray[Any]) -> None:
        """Copy the input if `out` shares its memory, so that writing results cannot change rows still to come."""
        if np.may_share_memory(self._rows, out):
            self._rows = self._rows.copy()

    def block(self, start: int, stop: int) -> Block:
        """Rows `start` to `stop`, C-contiguous, of the graph's dtype, missing values filled; a view if they are so."""
        part = self._rows if stop - start == len(self._rows) else self._rows[start:stop]
        block = as_block(part, self._dtype)
        if block is None:
            raise self._out_of_range(part, start)
        return block if self._fill is None else self._fill(block)[0]

    def nonfinite_rows(self, block: Block, start: int) -> NDArray[np.bool_] | None:
        """Which rows of a block hold NaN or infinity; None if there are none.

        Raises:
            InputError: such a row, unless invalid="propagate".
        """
        if self._dtype != _FLOAT32 or all_finite(block):
            return None
        found = np.asarray(~np.isfinite(block.reshape(len(block), -1)).all(axis=1))
        if not found.any():
            return None
        if not self._propagate:
            raise self._not_finite(block, start)
        return found

    def _out_of_range(self, part: Block, start: int) -> InputError:
        limits = np.iinfo(self._dtype)
        at = tuple(int(i) for i in np.argwhere((part < limits.min) | (part > limits.max))[0])
        return InputError(
            f"{self._what}: expected values from {limits.min} to {limits.max} ({self._dtype}), "
            f"got {part[at]} in {self._place(start, at)}"
        )

    def _not_finite(self, block: Block, start: int) -> InputError:
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(block))[0])
        value = self._rows[(start + at[0], *at[1:])]
        code = ", the code of a missing value," if np.isnan(block[at]) and value == value else ""
        return InputError(
            f"{self._what}: expected finite numbers, got {value}{code} in {self._place(start, at)}; "
            "clean the data, or pass invalid='propagate' to get NaN for such rows"
        )

    def _place(self, start: int, at: tuple[int, ...]) -> str:
        row = f"row {self._first + start + at[0]}, "
        if len(at) != 2:
            return row + f"position {at[1:]}"
        return row + f"column {at[1]}" + (f" ({self._columns[at[1]]!r})" if self._columns else "")


def as_block(rows: Block, dtype: np.dtype[Any]) -> Block | None:
    """Samples as a graph takes them, C-contiguous and of its dtype; the same array where they are so already.

    None where they are not numbers, or integers that the dtype cannot hold. Floats that float32 cannot hold become
    infinity, which is found later.
    """
    if rows.dtype == dtype:
        return rows if rows.flags.c_contiguous and rows.flags.aligned else np.array(rows, dtype, order="C")
    block = np.empty(rows.shape, dtype)
    return block if copy_into(block, rows) else None


def copy_into(target: Block, x: Block) -> bool:
    """Copy numbers of any dtype into an array of the graph's; False where they do not fit (see `as_block`)."""
    kind = x.dtype.kind
    if kind == "f" and target.dtype == _FLOAT32:
        with np.errstate(all="ignore"):
            target[...] = x
        return True
    if kind not in "iub":
        return False
    target[...] = x
    return target.dtype == _FLOAT32 or kind == "b" or _in_range(x, target.dtype)


def _in_range(x: Block, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds all integers of an array."""
    limits = np.iinfo(dtype)
    if limits.min == 0:  # one pass: a bit above the dtype's, or a sign, of any value stays set
        found = int(np.bitwise_or.reduce(x, axis=None))
        return 0 <= found <= limits.max
    return int(np.minimum.reduce(x, axis=None)) >= limits.min and int(np.maximum.reduce(x, axis=None)) <= limits.max


def touch_cache_lines(block: Block) -> None:
    """Read one number of each cache line, in order, so that the processor fetches the others ahead.

    Products of integers read some columns of a few rows at a time, which the hardware prefetcher does not foresee: it
    took a fifth of a small network's time. For floats it gained nothing.
    """
    block.reshape(-1)[:: max(1, _LINE // block.itemsize)].argmax()


def as_array(x: Any, what: str, columns: Sequence[str] | None = None, first: int = 0) -> NDArray[Any]:
    """What the caller passes as a plain array; frames by name (see frames.py), NaN where something is masked.

    Raises:
        InputError: it is none, and cannot be made one, such as a tensor with a gradient or of a GPU, or its rows are of
            several lengths.
    """
    if type(x) is np.ndarray and not x.dtype.names and x.dtype.kind != "O":
        return x
    from aeedge.runtime.frames import UNREADABLE, as_rows  # most calls bring arrays

    x, reason = as_rows(x, what, columns, first), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older numpy only warns of rows of unequal length
            found = np.asarray(x)  # not a matrix, which is never one-dimensional
    except UNREADABLE as error:
        reason = f" ({error})"
    else:
        reason = "" if found.ndim == 0 and found.dtype.kind in "OSU" else None
    if (reason is not None or found.dtype.kind == "O") and len(lengths := _lengths(x)) > 1:
        raise InputError(
            f"{what}: expected rows of one shape, got {type(x).__name__} with parts of length {lengths[0]} to "
            f"{lengths[-1]}; pad or cut them to one length"
        )
    if reason is not None:
        raise InputError(f"{what}: expected an array of numbers, got {type(x).__name__}{reason}")
    return found


def _lengths(x: Any) -> list[int]:
    """The different lengths of a sequence's parts; empty where they have none."""
    try:
        parts = x if len(x) else ()
        return sorted({len(part) for part in parts if hasattr(part, "__len__") and not isinstance(part, str)})
    except TypeError:  # no sequence, or parts that have none, as those of sparse matrices
        return []


def output(rows: InputBatch, row_shape: tuple[int, ...], out: Floats | None) -> Floats:
    """An array for the results of `rows`: (n, *row_shape), the caller's if there is one.

    Raises:
        InputError: an `out` that does not fit.
    """
    shape = (len(rows), *row_shape)
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise InputError(f"out: expected a float32 array of shape {shape}, got {type(out).__name__}")
    target = out[np.newaxis] if rows.single and out.shape == row_shape else out
    if target.dtype != np.float32 or target.shape != shape or not target.flags.writeable:
        state = "" if target.flags.writeable else "read-only "
        raise InputError(f"out: expected a writable float32 array of shape {shape}, got {state}{out.dtype} {out.shape}")
    rows.apart_from(out)
    return target
