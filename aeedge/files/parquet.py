"""Tables in Parquet: the only file of the device package that imports pyarrow, an extra (aeedge[arrow])."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable
from aeedge.files.source import Source, reading

_BLOCK_BYTES = 2**22


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("Parquet needs pyarrow, which is not installed; pip install 'aeedge[arrow]'") from None
    return pa


class ParquetTable:
    """The columns of a Parquet file; a column of lists of one length counts as so many columns, "v[0]", "v[1]", …

    Attributes:
        names: of all columns, lists expanded.
        kinds: of each, "number", "time" or "text".
        count: number of rows.
        index: names of columns that were a frame's index.

    Raises:
        InputError: pyarrow is missing, or the file is damaged or has two columns of one name.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._pa = source, _pyarrow()
        with self._reading():
            self._file = self._pa.parquet.ParquetFile(source.path or source.open_seekable())
            schema = self._file.schema_arrow
            self.count: int = self._file.metadata.num_rows
            self._columns = [(field.name, *self._kind(field)) for field in schema]
            index = (schema.pandas_metadata or {}).get("index_columns", ())
            self.index = frozenset(name for name in index if isinstance(name, str))
        if not self._columns:
            raise InputError(f"{source.name}: expected columns of numbers, but it has none")
        twice = [name for name, count in Counter(schema.names).items() if count > 1]
        if twice:
            raise InputError(
                f"{source.name}: expected each column name once, got '{printable(twice[0])}' twice; rename one"
            )
        self._sizes = {name: size for name, _, size in self._columns}
        self._places = [(name, i) for name, _, size in self._columns for i in range(size or 1)]
        self.names = tuple(
            f"{name}[{i}]" if size else name for name, _, size in self._columns for i in range(size or 1)
        )
        self.kinds = tuple(kind for _, kind, size in self._columns for _ in range(size or 1))

    def _kind(self, field: Any) -> tuple[str, int]:
        """What a column holds, and the length of its lists, 0 where it has none."""
        types, kind, size = self._pa.types, field.type, 0
        if types.is_fixed_size_list(kind):
            kind, size = kind.value_type, kind.list_size
        elif types.is_list(kind) or types.is_large_list(kind):
            first: list[Any] = next((v for v in self._first(field.name) if v is not None), [])
            kind, size = kind.value_type, len(first)
            if not size:
                return "text", 0
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
            return "number", size
        return "time" if types.is_temporal(kind) else "text", size

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self._source.name, self._pa.ArrowException, AttributeError, expected="a Parquet file")

    def _first(self, name: str) -> list[Any]:
        batch = next(self._file.iter_batches(batch_size=16, columns=[name]), None)
        return [] if batch is None else batch.column(0).to_pylist()

    def text(self, name: str) -> list[Any]:
        """All values of a column, as Python objects."""
        with self._reading():
            file = self._source.path or self._source.open_seekable()
            found: list[Any] = self._pa.parquet.read_table(file, columns=[name]).column(0).to_pylist()
        return found

    def blocks(self, order: Sequence[int], *, missing: bool) -> Iterator[NDArray[np.float64]]:
        """Rows of numbers (m, k) of the columns `order`, in bounded memory.

        Args:
            order: positions in `names`.
            missing: whether nulls and NaN become NaN; otherwise they are an InputError.

        Raises:
            InputError: a column that holds no numbers, lists of unequal length, a missing value.
        """
        for i in order:
            if self.kinds[i] != "number":
                where = f"{self._source.name}, column '{printable(self.names[i])}'"
                raise InputError(f"{where}: expected numbers, got {self.kinds[i]}; leave it out")
        wanted = list(dict.fromkeys(self._places[i][0] for i in order))
        first, step = 0, max(1, _BLOCK_BYTES // (8 * len(self.names)))
        with self._reading():
            batches = self._file.iter_batches(batch_size=step, columns=wanted)
        while True:
            with self._reading():
                batch = next(batches, None)
                if batch is None:
                    return
                arrays = {
                    name: self._numbers(batch.column(batch.schema.get_field_index(name)), name, first)
                    for name in wanted
                }
            block = np.stack([arrays[name][:, j] for name, j in (self._places[i] for i in order)], axis=1)
            fits = np.abs(block) <= np.finfo(np.float32).max  # False for NaN
            if not missing and not fits.all():
                row, column = (int(v) for v in np.argwhere(~fits)[0])
                name = printable(self.names[order[column]])
                got = "nothing (a missing value)" if np.isnan(block[row, column]) else block[row, column]
                raise InputError(
                    f"{self._source.name}, row {first + row} (counted from 0), column '{name}': "
                    f"expected a number, got {got}; fill it in, or leave the row out"
                )
            first += len(block)
            yield block

    def _numbers(self, column: Any, name: str, first: int) -> NDArray[np.float64]:
        """A column as (m, p): p values of a list, otherwise one."""
        pa = self._pa
        size, rows = self._sizes[name], len(column)
        if size:
            if column.null_count or not pa.types.is_fixed_size_list(column.type):
                lengths = [None if v is None else len(v) for v in column.to_pylist()]
                wrong = next((i for i, length in enumerate(lengths) if length != size), None)
                if wrong is not None:
                    where = f"{self._source.name}, row {first + wrong} (counted from 0), column '{printable(name)}'"
                    raise InputError(
                        f"{where}: expected {size} values as in the first row, got {lengths[wrong] or 'none'}"
                    )
            column = column.flatten()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return values.reshape(rows, max(size, 1))
