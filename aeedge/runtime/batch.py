"""From what the caller passes to blocks that a graph takes, and to an array for the results.

Rows are converted block by block, whatever the caller passes: never the whole array at once.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.runtime.nonfinite import all_finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Block = NDArray[Any]
    Floats = NDArray[np.float32]

_FLOAT32 = np.dtype(np.float32)
_LINE = 64  # bytes of a cache line, or less


class Rows:
    """The caller's array as rows of one shape and dtype, converted one block at a time.

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
    def row_bytes(self) -> int:
        """Bytes of a row as the graph takes it."""
        return int(self._rows[0].size) * self._dtype.itemsize

    def apart_from(self, out: NDArray[Any]) -> None:
        """Copy the rows if `out` shares their memory, so that writing results cannot change rows still to come."""
        if np.may_share_memory(self._rows, out):
            self._rows = self._rows.copy()

    def block(self, start: int, stop: int) -> Block:
        """Rows `start` to `stop`, C-contiguous and of the graph's dtype; a view where they are so already."""
        part = self._rows if stop - start == len(self._rows) else self._rows[start:stop]
        if part.dtype == self._dtype and part.flags.c_contiguous and part.flags.aligned:
            return part
        if self._dtype != _FLOAT32:
            return self._integers(part, start)
        with np.errstate(all="ignore"):  # what does not fit becomes infinity, and is found later
            return np.require(part, _FLOAT32, ("C", "A"))

    def bad(self, block: Block, start: int, *, told: bool) -> NDArray[np.bool_] | None:
        """Which rows of a block hold NaN or infinity; None if there are none, as may have been told (see `teller`).

        Raises:
            InputError: such a row, unless invalid="propagate".
        """
        if told or self._dtype != _FLOAT32 or all_finite(block):
            return None
        bad = np.asarray(~np.isfinite(block.reshape(len(block), -1)).all(axis=1))
        if not bad.any():
            return None
        if not self._propagate:
            raise self._not_finite(block, start)
        return bad

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
        return np.require(part, self._dtype, ("C", "A"))

    def _not_finite(self, block: Block, start: int) -> InputError:
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(block))[0])
        value = self._rows[(start + at[0], *at[1:])]
        return InputError(
            f"{self._what}: expected finite numbers, got {value} in {self._place(start, at)}; "
            "clean the data, or pass invalid='propagate' to get NaN for such rows"
        )

    def _place(self, start: int, at: tuple[int, ...]) -> str:
        row = f"row {self._first + start + at[0]}, "
        if len(at) != 2:
            return row + f"position {at[1:]}"
        return row + f"column {at[1]}" + (f" ({self._columns[at[1]]!r})" if self._columns else "")


def prefetch(block: Block) -> None:
    """Read a number of each cache line, in order, which lets the processor fetch the others.

    Products of integers read some columns of a few rows at a time, which no processor foresees: it took a fifth of a
    small net's time. For floats it gained nothing.
    """
    block.reshape(-1)[:: max(1, _LINE // block.itemsize)].argmax()


def _as_array(x: ArrayLike, what: str) -> NDArray[Any]:
    if isinstance(x, np.ndarray):
        return x
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older numpy only warns of rows of unequal length
            return np.asarray(x)
    except (ValueError, TypeError, Warning) as error:
        raise InputError(f"{what}: expected an array of numbers, got {type(x).__name__} ({error})") from None


def output(rows: Rows, row_shape: tuple[int, ...], out: Floats | None) -> Floats:
    """An array for the results of `rows`: (n, *row_shape), the caller's if there is one.

    Raises:
        InputError: an `out` that does not fit.
    """
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
