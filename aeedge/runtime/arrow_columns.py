"""Columns of Arrow as samples: numbers, lists and tensors of any layout as arrays, where possible without a copy.

pyarrow is not imported here: `pa` is the module, with `pa.compute`, `array` one of its arrays, `kind` one of its types.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.runtime.batch import BLOCK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERYTHING = slice(None)


class Field(NamedTuple):
    """A column that holds samples, or some values of each.

    Attributes:
        name: of the column.
        dims: shape of what a row of it holds, () for a number; None for lists that are as long as the first.
        take: which of these values, flattened, are meant: a slice or a list.
        into: where they stand in a flattened sample.
    """

    name: str
    dims: tuple[int, ...] | None
    take: Any
    into: Any


class Column(NamedTuple):
    """What a column holds.

    Attributes:
        values: (n, *dims) numbers of any dtype; a view of the column's memory where its layout allows.
        nulls: which of them are null, and say nothing; None where none is.
        wrong: (n,) for each row the length of a list that is not as long as it should be, -1 where there is none; None
            where there is none in all rows.
    """

    values: NDArray[Any]
    nulls: NDArray[np.bool_] | None = None
    wrong: NDArray[np.int64] | None = None

    def shaped(self, *shape: int) -> Column:
        """The same values in another shape, (m, *dims)."""
        return Column(self.values.reshape(shape), None if self.nulls is None else self.nulls.reshape(shape), self.wrong)


def sizes(pa: Any, kind: Any) -> tuple[list[int | None], Any]:
    """Of lists, lists of lists and tensors the length of each level, None where it is open, and the type of values."""
    if isinstance(kind, pa.BaseExtensionType):
        inner, leaf = sizes(pa, kind.storage_type)
        shape = getattr(kind, "shape", None)
        return (inner if shape is None else [shape[i] for i in _order(kind)]), leaf
    if _is(pa, kind, "fixed_size_list", "list", "large_list", "list_view", "large_list_view"):
        inner, leaf = sizes(pa, kind.value_type)
        return [kind.list_size if _is(pa, kind, "fixed_size_list") else None, *inner], leaf
    return [], kind


def is_number(pa: Any, kind: Any) -> bool:
    """Whether values of a type can be read as numbers: also truth values, decimals, and columns of nulls."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_number(pa, kind.storage_type)
    if _is(pa, kind, "dictionary", "run_end_encoded"):
        return is_number(pa, kind.value_type)
    return _is(pa, kind, "integer", "floating", "boolean", "decimal", "null")


def read(pa: Any, array: Any, field: Field) -> Column:
    """The values of a column."""
    shape: tuple[int, ...] | None = None
    order: Sequence[int] = ()
    while isinstance(array, pa.ExtensionArray):
        if getattr(array.type, "shape", None) is not None:
            shape, order = tuple(array.type.shape), _order(array.type)
        array = array.storage
    if shape is None:
        return _unpacked(pa, array, (_length(pa, array, field.take),) if field.dims is None else field.dims)
    rows, axes = len(array), [0, *(1 + i for i in order)]
    values, nulls, wrong = _unpacked(pa, array, (math.prod(shape),)).shaped(rows, *shape)
    return Column(values.transpose(axes), None if nulls is None else nulls.transpose(axes), wrong)


def stacked(
    fields: Sequence[Field], columns: Sequence[Column], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[NDArray[Any] | None, NDArray[np.bool_] | None]:
    """Samples (n, *shape) that a model of this dtype takes, and which have values that integers cannot miss, (n,).

    One column of whole samples without nulls is taken where it is. Nulls are NaN in a float model. For a model of
    integers None and None where a number does not fit, and where nothing is missing None for the rows.
    """
    (field, column), rows, size = (fields[0], columns[0]), len(columns[0].values), math.prod(shape)
    is_whole = len(fields) == 1 and field.take == field.into and column.values[:1].size == size and column.nulls is None
    if is_whole and (dtype == np.float32 or column.values.dtype.kind in "iu"):
        return column.values.reshape(rows, *shape), None
    samples, lost = np.empty((rows, size), dtype), np.zeros(rows, np.bool_)
    flat, step = [each.shaped(rows, -1) for each in columns], max(1, BLOCK_BYTES // (4 * size))
    for part in (slice(start, start + step) for start in range(0, rows, step)):  # a block of samples stays in cache
        for field, column in zip(fields, flat):
            values = column.values[part, field.take]
            nulls = None if column.nulls is None else column.nulls[part, field.take]
            if dtype != np.float32:
                nulls, unfit = misfits(values, nulls, dtype)
                if unfit.any():
                    return None, None
                lost[part] |= nulls.any(axis=1)
            with np.errstate(all="ignore"):
                nothing = np.nan if dtype == np.float32 else 0
                samples[part, field.into] = values if nulls is None else np.where(nulls, nothing, values)
    return samples.reshape(rows, *shape), lost if lost.any() else None


def misfits(
    values: NDArray[Any], nulls: NDArray[np.bool_] | None, dtype: np.dtype[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which numbers are missing, null or NaN, and which others a model's dtype cannot hold, or are infinite."""
    missing = np.isnan(values) if nulls is None else nulls | np.isnan(values)
    with np.errstate(all="ignore"):
        if dtype == np.float32:
            return missing, np.isinf(values.astype(np.float32)) & ~missing
        limits = np.iinfo(dtype)
        fits = (values >= limits.min) & (values <= limits.max) & (values == np.trunc(values))
    return missing, ~(fits | missing)


def _order(kind: Any) -> Sequence[int]:
    """In which order the axes of a tensor in memory are those of the tensor."""
    return getattr(kind, "permutation", None) or range(len(kind.shape))


def _is(pa: Any, kind: Any, *names: str) -> bool:
    """Whether a type is one of these; older versions of pyarrow do not know all."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def _unpacked(pa: Any, array: Any, dims: tuple[int, ...]) -> Column:
    """The values of lists of lists of these lengths; of nothing everything is null."""
    if not dims:
        return _numbers(pa, array)
    rows = len(array)
    inner, wrong = _children(pa, array, dims[0])
    values, nulls, found = _unpacked(pa, inner, dims[1:])
    if found is not None:
        deeper = found.reshape(rows, dims[0]).max(axis=1)
        wrong = deeper if wrong is None else np.where(wrong >= 0, wrong, deeper)
    return Column(values, nulls, wrong).shaped(rows, *dims)


def _children(pa: Any, array: Any, size: int) -> tuple[Any, NDArray[np.int64] | None]:
    """What lists of one length hold, one after the other, nulls for lists that are null or wrong; which are wrong."""
    rows = len(array)
    if not array.null_count and _is(pa, array.type, "fixed_size_list") and array.type.list_size == size:
        return array.values.slice(array.offset * size, rows * size), None
    starts, lengths = _extents(pa, array)
    valid = np.ones(rows, np.bool_) if not array.null_count else np.asarray(array.is_valid())
    fits = valid & (lengths == size)
    if fits.all() and (np.diff(starts) == size).all():
        return array.values.slice(int(starts[0]) if rows else 0, rows * size), None
    at = np.asarray(starts, np.int64)[:, np.newaxis] + np.arange(size)
    places = pa.array(at.reshape(-1), mask=np.repeat(~fits, size))
    wrong = valid & ~fits
    return array.values.take(places), np.where(wrong, lengths, -1) if wrong.any() else None


def _extents(pa: Any, array: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where each list begins in the values, and its length."""
    rows = len(array)
    if _is(pa, array.type, "fixed_size_list"):
        size = array.type.list_size
        return (array.offset + np.arange(rows)) * size, np.full(rows, size)
    offsets = np.asarray(array.offsets)
    return (offsets, np.asarray(array.sizes)) if hasattr(array, "sizes") else (offsets[:-1], np.diff(offsets))


def _length(pa: Any, array: Any, take: Sequence[int]) -> int:
    """The length of the first list, or what is needed at least."""
    lengths = _extents(pa, array)[1][np.asarray(array.is_valid())]
    return max(int(lengths[0]) if len(lengths) else 0, max(take) + 1)


def _numbers(pa: Any, array: Any) -> Column:
    """Numbers (n,), and which are null."""
    if isinstance(array, pa.ExtensionArray):
        return _numbers(pa, array.storage)
    kind = array.type
    if _is(pa, kind, "run_end_encoded"):
        return _numbers(pa, pa.compute.run_end_decode(array))
    if _is(pa, kind, "dictionary"):
        return _numbers(pa, array.dictionary_decode())
    if _is(pa, kind, "null"):
        return Column(np.zeros(len(array), np.float32), np.ones(len(array), np.bool_))
    if _is(pa, kind, "decimal"):
        array = array.cast(pa.float64(), safe=False)
    if _is(pa, kind, "boolean"):
        array = array.cast(pa.uint8())
    if not array.null_count:
        return Column(array.to_numpy())
    values = pa.Array.from_buffers(array.type, len(array), [None, array.buffers()[1]], offset=array.offset)
    return Column(values.to_numpy(), np.asarray(array.is_null()))
