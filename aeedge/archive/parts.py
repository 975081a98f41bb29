"""The parts that an archive is cut into: some row groups of one file each, or a whole recording."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote

from aeedge.archive.storage import File, Place, UnreachableError, accessing
from aeedge.errors import InputError, of_system, printable

PART_ROWS = 2**20
"""Rows that a part has at most, where row groups are not larger: seconds to minutes of work."""
_SERVER = re.compile(r"AWS Error|google::cloud|curl|[Tt]imed? ?out|[Cc]onnection")  # damage is told without these
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_READERS = 16  # of footers beside each other: on an object store each is a round trip


class Part(NamedTuple):
    """A piece of work.

    Attributes:
        number: from 0, in the order of files and rows.
        place: the file.
        groups: numbers of its row groups; empty for all of it.
        first_row: number of the first row in the file.
        rows: how many there are.
        version: of the file, when the archive was listed; another one after it was changed.
    """

    number: int
    place: Place
    groups: tuple[int, ...]
    first_row: int
    rows: int
    version: str = ""

    @property
    def name(self) -> str:
        """For people: the file, and the rows where it is not all of it."""
        if not self.groups:
            return self.place.name
        return f"{self.place.name}, rows {self.first_row:,} to {self.first_row + self.rows - 1:,}"


class UnreadableError(InputError):
    """A part that cannot be read, today or tomorrow; not a network that fails."""


class Unreadable(NamedTuple):
    """A file that is no Parquet, or damaged, and why."""

    place: Place
    reason: str


class Plan(NamedTuple):
    """What there is to do.

    Attributes:
        parts: all of them.
        unreadable: files that have none, because their footers cannot be read.
        empty: how many files have no rows.
        columns: of the first file, as a pyarrow.Schema; None where no file can be read.
    """

    parts: list[Part]
    unreadable: list[Unreadable]
    empty: int
    columns: Any

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)


def plan(files: Sequence[File], check: Callable[[Any], object], *, whole: bool = False) -> Plan:
    """Read the footers of files, and cut them into parts.

    Args:
        files: of the archive.
        check: called with each schema that differs from those before; an InputError refuses it.
        whole: whether a file is one part, as a recording is.

    Raises:
        InputError: a schema that `check` refuses, with the names of that file and of one with a schema that it took; a
            file that cannot be reached.
    """
    parts: list[Part] = []
    unreadable: list[Unreadable] = []
    seen: list[tuple[Any, str]] = []
    empty = 0
    with ThreadPoolExecutor(_READERS) as pool, _cancelled(pool):
        for file, found in zip(files, pool.map(_footer, files)):
            if isinstance(found, str):
                unreadable.append(Unreadable(file.place, found))
                continue
            schema, groups = found
            if not any(schema.equals(other) for other, _ in seen):
                try:
                    check(schema)
                except InputError as error:
                    unlike = f" (the columns of {seen[0][1]} are as expected)" if seen else ""
                    raise InputError(f"{file.name}: {str(error).removeprefix('batch: ')}{unlike}") from None
                seen.append((schema, file.name))
            empty += not sum(groups)
            parts += _cut(file, groups, len(parts), whole)
    return Plan(parts, unreadable, empty, seen[0][0] if seen else None)


@contextmanager
def _cancelled(pool: ThreadPoolExecutor) -> Iterator[None]:
    """After an error, do not wait for what has not begun."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _cut(file: File, groups: Sequence[int], number: int, whole: bool) -> list[Part]:
    """Row groups of these numbers of rows, together as long as they are not too many."""
    if whole or sum(groups) <= PART_ROWS:
        return [Part(number, file.place, (), 0, sum(groups), file.version)] if sum(groups) else []
    found: list[Part] = []
    chosen: list[int] = []
    first = rows = 0
    for group, count in enumerate(groups):
        if rows and rows + count > PART_ROWS:
            found.append(Part(number + len(found), file.place, tuple(chosen), first, rows, file.version))
            chosen, first, rows = [], first + rows, 0
        chosen.append(group)
        rows += count
    last = Part(number + len(found), file.place, tuple(chosen), first, rows, file.version)
    return [*found, last] if rows else found


def _footer(file: File) -> tuple[Any, list[int]] | str:
    """The schema, and the numbers of rows of the row groups; why not, where it is damaged."""
    try:
        with opened(file.place) as found:
            groups = [found.metadata.row_group(i).num_rows for i in range(found.metadata.num_row_groups)]
            return with_folders(found.schema_arrow, file.place), groups
    except UnreadableError as error:
        return str(error).removeprefix(f"{file.name}: cannot be read (").removesuffix(")")


@contextmanager
def opened(place: Place, version: str = "") -> Iterator[Any]:
    """A file as a pyarrow.parquet.ParquetFile; `version`: the one that is expected.

    Raises:
        UnreadableError: it is no Parquet, or damaged.
        InputError: it was changed or removed, or cannot be reached.
    """
    import pyarrow.parquet as pq

    try:
        with accessing(place):
            stream = place.filesystem.open_input_file(place.path)
    except FileNotFoundError:
        raise InputError(f"{place.name}: is not there any more") from None
    with stream:
        if version and stream.size() != int(version.split()[0]):
            raise changed(place)
        with damage(place.name):
            file = pq.ParquetFile(stream, pre_buffer=True)  # columns in a few requests, not one by one
        yield file


def folder_values(place: Place, names: Sequence[str]) -> dict[str, str | None]:
    """What the names of a file's folders say, NAME=VALUE as Hive and Spark write them; not of columns `names`."""
    pairs = [folder.partition("=") for folder in place.path.split("/")[:-1] if not folder.startswith("=")]
    found = {unquote(name): unquote(value) for name, equals, value in pairs if equals}
    return {name: None if value == _HIVE_NULL else value for name, value in found.items() if name not in names}


def with_folders(schema: Any, place: Place) -> Any:
    """The schema of a file, and of what its folders say, as text."""
    import pyarrow as pa

    for name in folder_values(place, schema.names):
        schema = schema.append(pa.field(name, pa.string()))
    return schema


@contextmanager
def damage(name: str) -> Iterator[None]:
    """What a reader of Parquet raises, for a file or a part of this name.

    Raises:
        UnreadableError: it is damaged.
        UnreachableError: the system or a server failed.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        failed = isinstance(error, OSError) and (of_system(error) or _SERVER.search(str(error)))
        kind = UnreachableError if failed else UnreadableError
        why = printable(" ".join(str(error).split()).rstrip("."), 200)
        raise kind(f"{name}: cannot be read ({why})") from None


def changed(place: Place) -> InputError:
    """What is raised for a file that is not as it was."""
    return InputError(f"{place.name}: was changed since the run began; run again, which reads it anew")
