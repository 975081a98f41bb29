"""Rows in files that together are larger than memory: looked at as one array, read in parts."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, absent, printable, shortened
from aeedge.files import npy
from aeedge.files.parquet import ParquetTable
from aeedge.files.rows import row_files
from aeedge.files.source import Source, reading
from aeedge_export.data.columns import why_not_by_kind, why_not_by_values

SUFFIXES = {".npy": "npy", ".parquet": "parquet", ".pq": "parquet"}
"""Kinds of files that can be shards."""

_READ_BYTES = 2**24  # read in one go
_GAP_BYTES = 2**16  # between wanted rows that is read as well: sooner than a second read
_CACHE_BYTES, _MOST_GROUP_BYTES = 2**28, 2**30  # of decoded row groups
_JUDGED_ROWS, _JUDGED_VALUES = 2**16, 2**22  # of the first shard, to see which columns are features


class LazyRows:
    """Rows (n, *shape) that come into memory when they are asked for: by index, slice, mask or array of indices.

    Attributes:
        shape, dtype: as of an array.
        edges: where parts begin that are read as a whole; None where any rows can be read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    edges: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __array__(self, *args: Any, **options: Any) -> NDArray[Any]:
        raise InputError(
            f"expected rows in memory, got {self.shape[0]:,} that are streamed from files, which this does not take; "
            "pass some of them, such as shards[:10_000]"
        )

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Rows as an array of their own: one, or (m, *shape).

        Raises:
            IndexError: no such row, or more than one index.
            InputError: a file that has changed, or is damaged.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._between(start, max(start, stop)) if step == 1 else self._at(np.arange(start, stop, step))
        if isinstance(rows, tuple):
            raise IndexError("expected an index of rows alone, got a tuple; index the rows that come out")
        found = np.asarray(rows)
        if found.dtype == np.bool_ and found.shape != (len(self),):
            raise IndexError(f"expected a mask of {len(self)} rows, got shape {found.shape}")
        found = np.flatnonzero(found) if found.dtype == np.bool_ else found
        if (found.size and found.dtype.kind not in "iu") or found.ndim > 1:
            raise IndexError(f"expected row numbers, got an array of shape {found.shape} and dtype {found.dtype}")
        if found.size and (found.min() < -len(self) or found.max() >= len(self)):
            raise IndexError(f"expected row numbers below {len(self)}, got {found.min()} to {found.max()}")
        at = np.where(found < 0, found + len(self), found).astype(np.int64)
        return self._at(at) if at.ndim else self._at(at[np.newaxis])[0]

    def _at(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of any indices."""
        if bool((rows[1:] >= rows[:-1]).all()):
            return self._gathered(rows)
        order = np.argsort(rows, kind="stable")
        found = self._gathered(rows[order])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return found[back]

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        """Consecutive rows."""
        raise NotImplementedError

    def _gathered(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of sorted indices."""
        raise NotImplementedError


class Shards(LazyRows):
    """Rows of .npy or .parquet files as one array (n, *shape) that never is in memory as a whole.

    `Autoencoder.fit` streams them: chunks of rows in an order that depends on the seed and the epoch (`StreamedRows`).
    Files are opened, read without being mapped into memory, and closed again. The rows of a table are float32.

    Args:
        paths: a folder, or files and folders: shards of one kind; those of a folder in the order of their names.
        columns: names of the columns to take, of tables; empty for all that are features, as the first shard says.
        drop: not these.

    Attributes:
        features: names of the columns, None without.
        files: names of the files.
        nbytes: size of all rows in memory.
        notes: what was found and left out, in sentences.

    Raises:
        InputError: no files, files of other kinds, damaged ones, or ones whose rows or columns differ from the first.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        columns: Sequence[str] = (),
        drop: Sequence[str] = (),
    ) -> None:
        some = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if not some:
            raise InputError("expected files or a folder of shards, got none")
        self.files = tuple(os.fspath(file) for file in row_files(some))
        kinds = {kind_of(file) for file in self.files}
        if len(kinds) > 1 or None in kinds:
            odd = next((file for file in self.files if kind_of(file) is None), self.files[-1])
            raise InputError(
                f"{some[0]}: expected shards of one kind, .npy or .parquet, got "
                f"{shortened(dict.fromkeys((self.files[0], odd)))}; move the "
                "others away, or name the files"
            )
        if kinds == {"npy"}:
            if columns or drop:
                raise InputError(f"{self.files[0]}: columns can be chosen by name in tables only (.parquet)")
            found: Sequence[_NpyShard | _ParquetShard] = [_NpyShard(file) for file in self.files]
            self.features: tuple[str, ...] | None = None
            self.notes: tuple[str, ...] = ()
            first = found[0]
            for one in found[1:]:
                if one.row != first.row or one.dtype != first.dtype:
                    raise InputError(
                        f"{one.name}: expected rows of shape {first.row} and dtype {first.dtype} as in {first.name}, "
                        f"got {one.row} and {one.dtype}; convert it, or leave it out"
                    )
        else:
            table, groups = _Columns.of(self.files[0], columns, drop), _Groups()
            found = [_ParquetShard(file, table, groups) for file in self.files]
            self.features, self.notes = table.features, table.notes
        empty = [one.name for one in found if not one.count]
        if len(empty) == len(found):
            raise InputError(f"{found[0].name}: expected rows, but {'it is' if len(found) == 1 else 'all are'} empty")
        if empty:
            self.notes = (*self.notes, f"without rows, and passed over: {shortened(empty)}")
        self._shards = [one for one in found if one.count]
        self._starts = np.cumsum([0, *(one.count for one in self._shards)])
        self.shape = (int(self._starts[-1]), *found[0].row)
        self.dtype = found[0].dtype
        if len(self) < 2:
            raise InputError(f"{self._shards[0].name}: expected two or more rows to train on, got 1")
        parts = [one.edges for one in self._shards]
        if all(part is not None for part in parts):
            self.edges = np.concatenate([start + np.asarray(part) for start, part in zip(self._starts, parts)])
        self._held: tuple[NDArray[np.int64], NDArray[Any]] | None = None

    @property
    def nbytes(self) -> int:
        """Size of all rows in memory."""
        return self.size * self.dtype.itemsize

    def place(self, row: int) -> str:
        """Where a row is, for messages."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"row {row - int(self._starts[shard])} (counted from 0) of {self._shards[shard].name}"

    def describe(self) -> str:
        """What they are, in a few words."""
        count, row = len(self._shards), "×".join(map(str, self.shape[1:]))
        shards = f"{count:,} shard{'' if count == 1 else 's'}"
        return f"{shards}, {len(self):,} rows × {row} {self.dtype}, {_readable(self.nbytes)}, streamed"

    def hold(self, rows: NDArray[np.integer]) -> None:
        """Keep some rows in memory, in the place of those of the last call, where reading single rows is slow.

        Row groups of Parquet are decoded as a whole: rows that are wanted more than once are gathered in one pass.
        """
        self._held = None
        if self.edges is not None:
            wanted = np.unique(rows).astype(np.int64)
            self._held = wanted, self._gathered(wanted)

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for shard, first, last in self._shards_of(start, stop):
            begin = int(self._starts[shard])
            found[first - start : last - start] = self._shards[shard].read(first - begin, last - begin)
        return found

    def _gathered(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        missing = np.ones(len(rows), np.bool_)
        if self._held is not None and len(rows):
            known, held = self._held
            at = np.searchsorted(known, rows).clip(max=len(known) - 1)
            missing = known[at] != rows
            found[~missing] = held[at[~missing]]
        places = np.flatnonzero(missing)
        if not len(places):
            return found
        rows = rows[places]
        for shard, first, last in self._shards_of(int(rows[0]), int(rows[-1]) + 1):
            low, high = np.searchsorted(rows, (first, last))
            if low < high:
                begin = int(self._starts[shard])
                _fill(found, places[low:high], rows[low:high] - begin, self._shards[shard])
        return found

    def _shards_of(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Shards that hold the rows from `start` to `stop`, each with its part of them."""
        if stop <= start:
            return []
        first, last = np.searchsorted(self._starts, (start, stop - 1), side="right") - 1
        starts = self._starts.tolist()
        return [(i, max(start, starts[i]), min(stop, starts[i + 1])) for i in range(first, last + 1)]


class Mapped(LazyRows):
    """What a function makes of rows, when they are asked for: (n, *shape) to (n, *row) float32."""

    def __init__(self, X: LazyRows, function: Callable[[NDArray[Any]], NDArray[np.float32]], row: tuple[int, ...]):
        self._X, self._function = X, function
        self.shape, self.dtype, self.edges = (len(X), *row), np.dtype(np.float32), X.edges
        self.place = getattr(X, "place", lambda index: f"row {index}")

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        return self._function(self._X[start:stop])

    def _gathered(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self._function(self._X[rows])


def kind_of(file: str | os.PathLike[str]) -> str | None:
    """The kind of shard that a file is by its name, None where it cannot be one."""
    return SUFFIXES.get(os.path.splitext(os.fspath(file))[1].lower())


def _readable(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def _fill(
    found: NDArray[Any], places: NDArray[np.intp], rows: NDArray[np.int64], shard: _NpyShard | _ParquetShard
) -> None:
    """Put rows of a shard, of sorted indices, to their places: near ones in one read, and the gaps between them."""
    row_bytes = max(1, math.prod(shard.row) * shard.dtype.itemsize)
    apart = np.diff(rows) > max(1, _GAP_BYTES // row_bytes)
    block = rows // max(1, _READ_BYTES // row_bytes)
    ends = np.flatnonzero(apart | (np.diff(block) > 0)) + 1
    for low, high in zip([0, *ends.tolist()], [*ends.tolist(), len(rows)]):
        first = int(rows[low])
        part = shard.read(first, int(rows[high - 1]) + 1)
        found[places[low:high]] = part[rows[low:high] - first]


class _Stamp(NamedTuple):
    """What tells that a file has been written again."""

    size: int
    changed: int

    @classmethod
    def of(cls, file: str) -> _Stamp:
        with reading(file):
            found = os.stat(file)
        return cls(found.st_size, found.st_mtime_ns)

    def check(self, file: str) -> None:
        if _Stamp.of(file) != self:
            raise InputError(
                f"{file}: has changed since it was first read; train on files that stay as they are, from the start"
            )


class _NpyShard:
    """Rows of one .npy file: `count` of shape `row`, read from the file when they are asked for."""

    edges = None

    def __init__(self, file: str) -> None:
        self.name, self._stamp = file, _Stamp.of(file)
        with reading(file), open(file, "rb") as stream:
            header = npy.Header.read(stream, file)
            self._offset = stream.tell()
        if header.fortran and len(header.shape) > 1:
            raise InputError(f"{file}: is in column order; save it with numpy.ascontiguousarray first")
        if len(header.shape) < 2:
            raise InputError(f"{file}: expected rows of shape (n, ...), got an array of shape {header.shape}")
        self.count, self.row = header.shape[0], header.shape[1:]
        self._stored, self.dtype = header.dtype, header.dtype.newbyteorder("=")
        self._row_bytes = math.prod(self.row) * self.dtype.itemsize
        held = (self._stamp.size - self._offset) // self._row_bytes
        if held < self.count:
            raise InputError(f"{file}: truncated, expected {self.count:,} rows, got {held:,}; copy it again")

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Consecutive rows."""
        found = np.empty((stop - start, *self.row), self._stored)
        self._stamp.check(self.name)
        with reading(self.name), open(self.name, "rb", buffering=0) as stream:
            stream.seek(self._offset + start * self._row_bytes)
            rest: Any = memoryview(found.data).cast("B")
            while len(rest):
                read = stream.readinto(rest)
                if not read:
                    self._stamp.check(self.name)
                    raise InputError(f"{self.name}: truncated while it was read; copy it again")
                rest = rest[read:]
        return found.astype(self.dtype, copy=False)


class _Columns(NamedTuple):
    """Which columns of Parquet files are rows.

    Attributes:
        source: name of the file that they were found in.
        names: of the columns, lists expanded.
        features: the same, None where they are the values of one tensor.
        row: shape of a row.
        notes: what was found and left out, in sentences.
    """

    source: str
    names: tuple[str, ...]
    features: tuple[str, ...] | None
    row: tuple[int, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, file: str, columns: Sequence[str], drop: Sequence[str]) -> _Columns:
        """The features of a file, found as for tables in memory, but from its first rows.

        Raises:
            InputError: a column that is not there, or none that is a feature.
        """
        table = ParquetTable(Source(file))
        known, left_out = {*table.names, *table.lists}, dict[str, str]()
        for name in (*columns, *drop):
            if name not in known:
                raise InputError(f"{file}: {absent(name, table.names)}")
        dropped = {each for name in drop for each in table.lists.get(name, (name,))}
        names = [each for name in columns for each in table.lists.get(name, (name,)) if each not in dropped]
        if not columns:
            for name, kind in zip(table.names, table.kinds):
                kind = "index" if name in table.index else kind
                reason = "--drop" if name in dropped else why_not_by_kind(name, kind)
                if reason:
                    left_out[name] = reason
                else:
                    names.append(name)
            names = _by_values(table, names, left_out)
        if not names:
            raise InputError(f"{file}: no column is left of {shortened(table.names)}")
        tensor = next(
            (shape for name, shape in table.tensors.items() if list(table.lists.get(name, ())) == names), None
        )
        found = [f"inputs ({len(names)}): {shortened(names)}"]
        if left_out:
            found.append(
                f"left out: {shortened([f'{printable(n) or repr(n)} ({why})' for n, why in left_out.items()])}"
            )
        if "timestamps" in left_out.values():
            found.append("whether times rise was not looked at; if they do from file to file, give --time-ordered")
        features = None if tensor else tuple(names)
        return cls(file, tuple(names), features, tensor or (len(names),), tuple(found))


def _by_values(table: ParquetTable, names: list[str], left_out: dict[str, str]) -> list[str]:
    """The columns whose first rows do not say that they are no features."""
    order = [table.names.index(name) for name in names]
    blocks, count, most = [], 0, min(_JUDGED_ROWS, _JUDGED_VALUES // max(1, len(names)))
    for block, _ in table.blocks(order, missing=True):
        blocks.append(block.astype(np.float32))
        count += len(block)
        if count >= most:
            break
    rows = np.concatenate([np.empty((0, len(names)), np.float32), *blocks])
    why = {name: why_not_by_values(name, rows[:, i]) for i, name in enumerate(names)}
    kept = [name for name in names if not why[name]]
    if not kept:
        return names
    left_out.update({name: reason for name, reason in why.items() if reason})
    return kept


class _ParquetShard:
    """Rows of one Parquet file, (count, *row) float32, whose row groups are decoded as a whole."""

    dtype = np.dtype(np.float32)

    def __init__(self, file: str, wanted: _Columns, groups: _Groups) -> None:
        self.name, self._stamp, self._wanted, self.row = file, _Stamp.of(file), wanted, wanted.row
        self._groups = groups
        table = ParquetTable(Source(file))
        kinds = dict(zip(table.names, table.kinds))
        for name in wanted.names:
            if kinds.get(name) != "number":
                got = f"a column of {kinds[name]}" if name in kinds else shortened(table.names)
                if not table.count and name not in kinds:
                    continue  # lists have no length without rows
                raise InputError(
                    f"{file}: expected a column '{printable(name)}' of numbers as in {wanted.source}, got {got}; "
                    "leave the column or the file out"
                )
        self.count = table.count
        self._ends = np.cumsum([0, *table.groups])
        self.edges = self._ends[:-1]
        largest = max(table.groups, default=0)
        if largest * self._row_bytes > _MOST_GROUP_BYTES:
            raise InputError(
                f"{file}: expected row groups of at most {_readable(_MOST_GROUP_BYTES)}, which are decoded as a whole, "
                f"got one of {largest:,} rows × {len(wanted.names)}, {_readable(largest * self._row_bytes)}; write it "
                f"with smaller ones (row_group_size={max(1, 2**25 // self._row_bytes)})"
            )

    @property
    def _row_bytes(self) -> int:
        return 4 * len(self._wanted.names)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Consecutive rows."""
        first, last = np.searchsorted(self._ends, (start, stop - 1), side="right") - 1
        parts = []
        for group in range(int(first), int(last) + 1):
            begin, end = int(self._ends[group]), int(self._ends[group + 1])
            parts.append(self._group(group)[max(start, begin) - begin : min(stop, end) - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _group(self, number: int) -> NDArray[np.float32]:
        """The rows of a row group, decoded, or kept from before."""
        self._stamp.check(self.name)
        size = int(self._ends[number + 1] - self._ends[number]) * self._row_bytes
        return self._groups.get((self.name, number), size, partial(self._decoded, number))

    def _decoded(self, number: int) -> NDArray[np.float32]:
        table = ParquetTable(Source(self.name))
        places = {name: i for i, name in enumerate(table.names)}
        return table.group(number, [places[name] for name in self._wanted.names]).reshape(-1, *self.row)


class _Groups:
    """Row groups that were decoded last, at most 256 MB or one of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()  # rows are read ahead on a thread

    def get(self, key: tuple[str, int], size: int, decoded: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """A row group that was kept, or one of so many bytes that is `decoded` now."""
        with self._lock:
            if key not in self._kept:
                while self._kept and size + sum(part.nbytes for part in self._kept.values()) > _CACHE_BYTES:
                    self._kept.popitem(last=False)
                self._kept[key] = decoded()
            self._kept.move_to_end(key)
            return self._kept[key]
