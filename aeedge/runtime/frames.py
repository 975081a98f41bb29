"""Frames as arrays: columns by name, from anything that has column names.

pandas DataFrames and Series, polars DataFrames and LazyFrames, pyarrow Tables and RecordBatches, structured numpy
arrays, dicts of numbers or columns, and what has `__arrow_c_stream__`, `__dataframe__` or `columns` and x[name]. They
are known by their attributes: none of these packages is imported. What is masked in a masked array is missing as well.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LISTS = (list, tuple, np.ndarray)
_VALUE_OF = re.compile(r"(.*)\[(\d+)\]", re.DOTALL)  # the name of a vector's value
_MISSING = {"NoneType", "NAType", "NaTType"}  # types of nothing: Python's, pandas'
# What packages raise for that which numpy cannot read; not what a signal handler is likely to raise.
UNREADABLE = (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError, BufferError, Warning)
_SHOWN = 20  # names in a message
_ADVICE = "rename the columns, or pass an array of the values in the model's order"


def as_rows(x: Any, what: str, features: Sequence[str] | None = None, first: int = 0) -> Any:
    """Values of a frame as an array (n, p), or (p,) of a Series or a dict of numbers; anything else as it is.

    With `features` columns are taken by name, in that order, and others are ignored; else all are taken in order. A
    column of lists of one length is a vector: its values are named `name[0]`, `name[1]`, … Nothing (null, NA, None)
    becomes NaN.

    Args:
        x: the frame.
        what: how messages name it.
        features: names of the values of a sample.
        first: number of the first row, for messages.

    Raises:
        InputError: a name that is missing or there twice, a column that is not numbers, lists of unequal length.
    """
    found = frame_columns(x)
    return _unmasked(x) if found is None else _stacked(*found, what, features, first)[0]


def named_rows(x: Any, what: str) -> tuple[Any, tuple[str, ...] | None]:
    """`as_rows` of all columns, and their names; None where there are none, or they just count from 0.

    Raises:
        InputError: as `as_rows`.
    """
    found = frame_columns(x)
    if found is None:
        return _unmasked(x), None
    labels = found[0]
    rows, names = _stacked(*found, what, None, 0)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{what}: expected each column name once, got {_listed(twice)} twice; rename one")
    return rows, None if labels == list(range(len(labels))) else tuple(names)


def frame_columns(x: Any) -> tuple[list[Any], Callable[[int], Any], bool] | None:
    """Labels of a frame's columns, a function from a position to a column, and whether it may be a single sample.

    None where it is no frame.
    """
    if isinstance(x, (np.ndarray, np.void)):
        fields = list(x.dtype.names or ())
        return (fields, lambda i: x[fields[i]], x.ndim == 0) if fields else None
    if isinstance(x, Mapping) and not hasattr(x, "shape"):  # a sparse matrix of scipy is a dict, too
        keys = list(x)
        return keys, lambda i: x[keys[i]], True
    if callable(getattr(x, "collect", None)) and hasattr(x, "collect_schema"):
        x = x.collect()  # polars' LazyFrame
    if hasattr(x, "column_names") and callable(getattr(x, "column", None)):  # pyarrow
        return list(x.column_names), x.column, False
    if hasattr(x, "iloc"):  # pandas
        if hasattr(x, "columns"):
            return list(x.columns), lambda i: x.iloc[:, i], False
        values = np.asarray(x)
        return list(x.index), lambda i: values[i], True
    if hasattr(x, "columns") and callable(getattr(x, "to_series", None)):  # polars
        return list(x.columns), x.to_series, False
    return _columns_of_others(x)


def _columns_of_others(x: Any) -> tuple[list[Any], Callable[[int], Any], bool] | None:
    """`frame_columns` by what packages share; the first two see all columns in one order of rows, also of a query."""
    if hasattr(x, "__arrow_c_stream__") or hasattr(x, "__dataframe__"):
        from aeedge.runtime.interchange import from_arrow, from_interchange

        read = from_arrow if hasattr(x, "__arrow_c_stream__") else from_interchange
        with suppress(*UNREADABLE):  # no table, such as a column alone
            found = read(x)
            return [name for name, _ in found], lambda i: found[i][1], False
    names = getattr(x, "columns", None)
    if names is None or callable(names) or not hasattr(x, "__getitem__"):
        return None
    labels = list(names)
    return labels, lambda i: x[labels[i]], False


def _stacked(
    labels: list[Any],
    column: Callable[[int], Any],
    single: bool,
    what: str,
    features: Sequence[str] | None,
    first: int,
) -> tuple[NDArray[Any], list[str]]:
    """Values of a frame, (n, p) or (p,), and their names."""
    names = [str(label) for label in labels]
    places = [(i, None) for i in range(len(names))] if features is None else named_places(names, features, what)
    read = {i: _numbers(column(i), f"{what}: column {names[i]!r}", first) for i in dict(places)}
    values: list[NDArray[Any]] = []
    found: list[str] = []
    for i, position in places:
        block, where = read[i], f"{what}: column {names[i]!r}"
        if block.ndim == 2 and features is None:
            values.extend(block.T)
            found.extend(f"{names[i]}[{j}]" for j in range(block.shape[1]))
            continue
        if position is None and block.ndim == 2:
            raise InputError(f"{where}: expected a number in each row, got a list")
        if position is not None:
            if block.ndim != 2 and not (single and block.ndim == 1):
                raise InputError(f"{where}: expected a list in each row, got a number")
            if position >= block.shape[-1]:
                raise InputError(f"{where}: expected lists of {position + 1} or more values, got {block.shape[-1]}")
        values.append(block if position is None else block[..., position])
        found.append(names[i])
    if not values:
        raise InputError(f"{what}: expected columns of numbers, got none")
    other = next((name for v, name in zip(values, found) if v.shape != values[0].shape), None)
    if other is not None:
        raise InputError(f"{what}: expected columns of one length, but {found[0]!r} and {other!r} differ")
    return np.stack(values, axis=values[0].ndim), found


def vector_name(feature: str) -> str:
    """The column that a feature is in: "v" for "v[3]", a value of vectors; else the feature itself."""
    found = _VALUE_OF.fullmatch(feature)
    return found[1] if found else feature


def named_places(
    names: Sequence[str], features: Sequence[str], what: str, advice: str = _ADVICE
) -> list[tuple[int, int | None]]:
    """For each feature its column, and where it stands in that column's vectors; None where those are numbers.

    Raises:
        InputError: a column that is missing or there twice.
    """
    at, count = {name: i for i, name in enumerate(names)}, Counter(names)
    places: list[tuple[int, int | None]] = []
    missing = []
    for feature in features:
        vector = None if feature in at else _VALUE_OF.fullmatch(feature)
        name, position = (vector[1], int(vector[2])) if vector else (feature, None)
        if name not in at:
            missing.append(feature)
        elif count[name] > 1:
            raise InputError(f"{what}: expected one column {name!r}, got {count[name]}; rename or drop the others")
        else:
            places.append((at[name], position))
    if missing and not places:
        counted = list(names) == [str(i) for i in range(len(names))]
        got = f"{len(names)} columns without names" if counted else _listed(names)
        raise InputError(
            f"{what}: expected columns named {_listed(features)}, got {got}, none of the model's features; {advice}"
        )
    if missing:
        raise InputError(f"{what}: expected a column {_listed(missing)}, got {_listed(names)}; {advice}")
    return places


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(repr(name)) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _numbers(column: Any, where: str, first: int) -> NDArray[Any]:
    """Values of a column: numbers (n,), vectors (n, p), or one number ()."""
    kind = str(getattr(column, "type", getattr(column, "dtype", type(column).__name__)))  # as its package names it
    if kind == "category" or kind.startswith("dictionary"):  # numpy would see the categories, which may be numbers
        raise InputError(f"{where}: expected numbers, got categories ({kind}); encode them as numbers, or drop it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # older numpy only warns of rows of unequal length
            values = np.asarray(_unmasked(column))
        if values.dtype.kind == "O":
            values = _converted(values, where, kind, first)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{where}: expected numbers or lists of one length, got {kind} ({error})") from None
    if values.dtype.kind not in "fiub" or values.ndim > 2 or kind.startswith("Struct"):
        got = f"lists of lists ({kind})" if values.ndim > 2 else kind
        example = f", for example {values.flat[0]!s:.40}" if values.size and values.ndim < 2 else ""
        raise InputError(f"{where}: expected numbers, got {got}{example}; convert the column, or drop it")
    return values


def _unmasked(x: Any) -> Any:
    """A masked array of numpy, or a list of such, with NaN where it is masked; anything else as it is."""
    if isinstance(x, (list, tuple)) and _holds_masks(x):
        x = np.ma.array(x)
    if not isinstance(x, np.ma.MaskedArray) or not np.any(x.mask):
        return x
    return np.ma.filled(x.astype(np.result_type(x.dtype, np.float32)), np.nan)


def _holds_masks(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return len(x) > 0 and not isinstance(x[0], Real) and any(map(_holds_masks, x))
    return isinstance(x, np.ma.MaskedArray)


def _converted(values: NDArray[Any], where: str, kind: str, first: int) -> NDArray[Any]:
    """Python objects as numbers or vectors."""
    items = [_plain(item) for item in values.ravel()]
    if values.ndim == 1 and any(isinstance(item, _LISTS) for item in items):
        return _vectors(items, where, first)
    for row, item in enumerate(items, first):
        if not isinstance(item, (Real, np.bool_)):
            raise InputError(
                f"{where}: expected numbers, got {str(item)[:40]!r} in row {row} ({kind}); convert the column, or "
                "drop it"
            )
    found = np.array(items).reshape(values.shape)
    return found if found.dtype.kind in "fiub" else found.astype(np.float64)  # integers beyond 64 bits


def _vectors(items: Sequence[Any], where: str, first: int) -> NDArray[Any]:
    """Lists as an array (n, p); NaN where there is none."""
    length = next(len(item) for item in items if isinstance(item, _LISTS))
    rows = []
    for row, item in enumerate(items, first):
        vector = np.full(length, np.nan) if _is_nan(item) else _numbers(item, f"{where}, row {row}", 0)
        if vector.shape != (length,):
            got = {0: "a number", 1: f"{vector.size}"}.get(vector.ndim, "lists")
            raise InputError(f"{where}: expected lists of {length} values, as in the first row, got {got} in row {row}")
        rows.append(vector)
    return np.stack(rows)


def _is_nan(item: Any) -> bool:
    return isinstance(item, float) and item != item


def _plain(item: Any) -> Any:
    """NaN for nothing, a float for a Decimal, an array for a list of another package."""
    if type(item).__name__ in _MISSING:
        return np.nan
    if isinstance(item, Decimal):
        return float(item)
    return np.asarray(item) if hasattr(item, "__array__") and not isinstance(item, np.generic) else item
