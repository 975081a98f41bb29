"""Tables in Parquet: the only file of the device package that imports pyarrow, an extra (aeedge[arrow])."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable
from aeedge.files.delimited import taken
from aeedge.files.dialect import JSON_NUMBER, Cell
from aeedge.files.source import DAMAGE, Source, reading

_BLOCK_BYTES = 2**22
_BUFFER_BYTES = 2**16  # of each column that is read; without, a column of a row group is read as a whole
_GROUP_BLOCK = 2**22  # values of a row group that are decoded at a time
_GROUP_ROWS = 2**16  # of a row group that is written
_TYPES = {"<f4": "float32", "<f8": "float64", "<i8": "int64", "|u1": "uint8", "|b1": "bool_"} | {
    "number": "float32",
    "text": "string",
}


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError("Parquet needs pyarrow, which is not installed; pip install 'aeedge[arrow]'") from None
    return pa


class ParquetTable:
    """The columns of a Parquet file; a column of lists of one length counts as so many columns, "v[0]", "v[1]", …

    Attributes:
        names: of all columns, lists expanded.
        kinds: of each, "number", "time" or "text".
        width: number of columns, lists expanded.
        count: number of rows.
        groups: number of rows in each row group.
        index: names of columns that were a frame's index.
        lists: names of the columns of lists, with the names of their values.
        tensors: shapes of the lists that are tensors, by name of the column.
        notes: of what was guessed, nothing here.

    Raises:
        InputError: pyarrow is missing, or the file is damaged or has two columns of one name.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._pa = source, _pyarrow()
        with self._reading():
            file = source.path or source.open_seekable()
            self._file = self._pa.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES)
            schema = self._file.schema_arrow
            metadata = self._file.metadata
            self.count: int = metadata.num_rows
            self.groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            self._columns = [(field.name, *self._kind(field)) for field in schema]
            shapes = {field.name: getattr(field.type, "shape", None) for field in schema}
            self.tensors = {name: tuple(shape) for name, shape in shapes.items() if shape}
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
        self.lists = {name: tuple(f"{name}[{i}]" for i in range(size)) for name, _, size in self._columns if size}
        self.width, self.notes = len(self.names), list[str]()
        self.kinds = tuple(kind for _, kind, size in self._columns for _ in range(size or 1))

    def describe(self) -> str:
        """How the file is written, for people."""
        return "Parquet"

    def _kind(self, field: Any) -> tuple[str, int]:
        """What a column holds, and the length of its lists, 0 where it has none."""
        types, kind, size = self._pa.types, getattr(field.type, "storage_type", field.type), 0  # of a tensor: lists
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

    def blocks(
        self,
        order: Sequence[int],
        *,
        missing: bool,
        infinite: bool | None = None,
        text: Sequence[int] = (),
        groups: Sequence[int] | None = None,
    ) -> Iterator[tuple[NDArray[np.float64], list[list[Any]]]]:
        """Rows of numbers (m, k) of the columns `order`, in bounded memory, and the values of others, m for each.

        Args:
            order: positions in `names`.
            missing: whether nulls and NaN become NaN; otherwise they are an InputError.
            infinite: whether infinity and what is beyond float32 is taken; None for as `missing`.
            text: columns to return as Python objects.
            groups: numbers of the row groups to read, consecutive ones; None for all.

        Raises:
            InputError: a column that holds no numbers, lists of unequal length, a missing value.
        """
        for i in order:
            if self.kinds[i] != "number":
                where = f"{self._source.name}, column '{printable(self.names[i])}'"
                raise InputError(f"{where}: expected numbers, got {self.kinds[i]}; leave it out")
        features = {self._places[i][0] for i in order}
        wanted = list(dict.fromkeys(self._places[i][0] for i in (*order, *text)))
        first, step = sum(self.groups[: groups[0]]) if groups else 0, max(1, _BLOCK_BYTES // (8 * len(self.names)))
        with self._reading():
            batches = self._file.iter_batches(batch_size=step, columns=wanted, row_groups=groups)
        while True:
            with self._reading():
                batch = next(batches, None)
                if batch is None:
                    return
                found = {name: batch.column(batch.schema.get_field_index(name)) for name in wanted}
                arrays = {name: self._numbers(found[name], name, first) for name in features}
                others = [self._objects(found[self._places[i][0]], i) for i in text]
            block = np.empty((batch.num_rows, len(order)))
            for place, (name, j) in enumerate(self._places[i] for i in order):
                block[:, place] = arrays[name][:, j]
            fits = taken(block, missing, missing if infinite is None else infinite)
            if not fits.all():
                row, column = (int(v) for v in np.argwhere(~fits)[0])
                name = printable(self.names[order[column]])
                got = "nothing (a missing value)" if np.isnan(block[row, column]) else block[row, column]
                raise InputError(
                    f"{self._source.name}, row {first + row} (counted from 0), column '{name}': "
                    f"expected a number, got {got}; fill it in, or leave the row out"
                )
            first += len(block)
            yield block, others

    def group(self, number: int, order: Sequence[int]) -> NDArray[np.float32]:
        """The rows (m, k) of a row group, of the columns `order`: what `blocks` gives, at once.

        Raises:
            InputError: as `blocks`.
        """
        places: dict[str, list[tuple[int, int]]] = {}
        for place, i in enumerate(order):
            places.setdefault(self._places[i][0], []).append((place, self._places[i][1]))
        first, step, done = sum(self.groups[:number]), max(1, _GROUP_BLOCK // len(self.names)), 0
        found = np.empty((self.groups[number], len(order)), np.float32)
        finite = True
        with self._reading(), np.errstate(over="ignore"):
            for batch in self._file.iter_batches(batch_size=step, columns=list(places), row_groups=[number]):
                block = found[done : done + batch.num_rows]
                for name, wanted in places.items():
                    column = batch.column(batch.schema.get_field_index(name))
                    values = self._numbers(column, name, first + done, exact=False)
                    into, out_of = (np.array(part) for part in zip(*wanted))
                    if len(into) == values.shape[1] and (np.diff([into, out_of]) == 1).all():  # a list as a whole
                        block[:, into[0] : into[-1] + 1] = values
                    else:
                        block[:, into] = values[:, out_of]
                finite = finite and bool(np.isfinite(block).all())
                done += len(block)
        if not finite:
            list(self.blocks(order, missing=False, groups=[number]))  # tells where
        return found

    def _objects(self, column: Any, i: int) -> list[Any]:
        """A column as Python objects, nanoseconds as text; of lists the value that `names[i]` names."""
        pa = self._pa
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            try:
                column = column.cast(pa.timestamp("us", column.type.tz))
            except pa.ArrowInvalid:
                column = column.cast(pa.string())
        (name, j), values = self._places[i], column.to_pylist()
        return values if not self._sizes[name] else [None if v is None else v[j] for v in values]

    def _numbers(self, column: Any, name: str, first: int, *, exact: bool = True) -> NDArray[Any]:
        """A column as (m, p): p values of a list, otherwise one. They are float64; float32 as it is unless `exact`."""
        pa = self._pa
        size, rows = self._sizes[name], len(column)
        column = getattr(column, "storage", column)
        if size:
            if column.null_count or not pa.types.is_fixed_size_list(column.type):
                lengths = self._lengths(column)
                wrong = next(iter(np.flatnonzero(lengths != size).tolist()), None)
                if wrong is not None:
                    where = f"{self._source.name}, row {first + wrong} (counted from 0), column '{printable(name)}'"
                    raise InputError(
                        f"{where}: expected {size} values as in the first row, got {max(0, lengths[wrong]) or 'none'}"
                    )
            column = column.flatten()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if exact or not pa.types.is_float32(column.type):
            column = column.cast(pa.float64(), safe=False)
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values.reshape(rows, max(size, 1))

    def _lengths(self, column: Any) -> NDArray[np.int64]:
        """Lengths of lists (m,), -1 of none."""
        lengths = self._pa.compute.list_value_length(column).cast(self._pa.int64())
        found: NDArray[np.int64] = lengths.fill_null(-1).to_numpy(zero_copy_only=False)
        return found


class ParquetRows:
    """A Parquet file that is written row group by row group.

    Args:
        stream: the file.
        names: of the columns.
        kinds: of each, as in `writing.Layout`; the type of "any" is that of its first values.

    Raises:
        InputError: pyarrow is missing.
    """

    def __init__(self, stream: IO[bytes], names: Sequence[str], kinds: Sequence[str]) -> None:
        self._pa, self._stream, self._names = _pyarrow(), stream, names
        self._types = [getattr(self._pa, _TYPES[kind])() if kind in _TYPES else None for kind in kinds]
        self._waiting: list[Any] = []
        self._writer: Any = None

    def write(self, columns: Sequence[Any]) -> None:
        """Append values of each column; they wait until they fill a row group."""
        arrays = [self._array(i, values) for i, values in enumerate(columns)]
        self._waiting.append(self._pa.table(arrays, names=list(self._names)))
        if sum(table.num_rows for table in self._waiting) >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write the last row group, and the footer."""
        self._flush()
        self._writer.close()

    def discard(self) -> None:
        """Let go of the stream; pyarrow would write to it when the writer is collected."""
        if self._writer is not None:
            with suppress(*DAMAGE, self._pa.ArrowException):
                self._writer.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = self._pa.concat_tables(self._waiting)
        if self._writer is None:
            self._writer = self._pa.parquet.ParquetWriter(self._stream, table.schema)
        self._writer.write_table(table)
        self._waiting.clear()

    def _array(self, i: int, values: Any) -> Any:
        """Values of a column in its type, which the first ones decide where it is open."""
        pa = self._pa
        try:
            if self._types[i] is None:
                self._types[i] = self._type(values)
            if isinstance(values, list) and any(isinstance(value, Cell) for value in values):
                values = [value if value else None for value in values]
                if not pa.types.is_string(self._types[i]):
                    values = pa.array(values, pa.string()).cast(self._types[i])
            return pa.array(values, self._types[i])
        except (*DAMAGE, pa.ArrowException) as error:
            why = printable(" ".join(str(error).split()), 200)
            raise InputError(
                f"column '{printable(self._names[i])}': expected {self._types[i] or 'values of one type'} in all rows, "
                f"as Parquet needs it, got others ({why}); write .csv or .jsonl"
            ) from None

    def _type(self, values: list[Any]) -> Any:
        """int64, float64 or text for cells of a text file; what pyarrow makes of other values."""
        pa, cells = self._pa, [value for value in values if value is not None and value != ""]
        if not cells or not all(isinstance(value, Cell) for value in cells):
            found = pa.array(values).type
            return pa.string() if pa.types.is_null(found) else found
        if not all(map(JSON_NUMBER.fullmatch, cells)):
            return pa.string()
        with suppress(pa.ArrowException):
            pa.array(cells, pa.string()).cast(pa.int64())
            return pa.int64()
        return pa.float64()
