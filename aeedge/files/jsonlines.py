"""JSON lines: on each line an object, whose keys are the columns, or an array of numbers, a row without names."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable, shortened
from aeedge.files.delimited import BLOCK_BYTES, Advice, taken
from aeedge.files.source import DAMAGE, Source, unreadable

_HEAD_ROWS = 100
_SHOWN = 40  # characters of a value in a message
_ABSENT = object()
_decode = json.JSONDecoder(object_pairs_hook=tuple).decode  # an object as its pairs: a key twice is seen
_LINES = 'write one object such as {"a": 1.5, "b": 2} on each line, or one array of numbers'


class JsonTable:
    """The rows of a file of JSON lines. Keys may come in any order; blank lines are passed over.

    Args:
        source: the file.
        advice: for messages.

    Attributes:
        names: the keys of the first hundred objects, as they appear; None where rows are arrays.
        width: number of columns.
        count: number of rows, which is not known.
        records: the first rows, an object as a dict.
        notes: what was left out; complete once all rows are read.

    Raises:
        InputError: no rows, or a first line that is neither an object nor an array.
    """

    def __init__(self, source: Source, advice: type[Advice] = Advice) -> None:
        self._source, self._advice = source, advice
        self.names: tuple[str, ...] | None = None
        self.width, self.count = 0, None
        self.notes: list[str] = []
        self.records: list[Any] = []
        if not source.is_whole and b"\n" not in source.head:
            raise InputError(
                f"{source.name}: expected JSON lines, but the first one has more than {len(source.head):,} bytes; "
                f"{_LINES}"
            )
        head = source.head if source.is_whole else source.head[: source.head.rindex(b"\n")]
        found = self._rows(io.BytesIO(head))
        first = next(found, None)
        if first is None:
            raise InputError(f"{source.name}: expected rows of numbers, but it has none")
        self.records.append(first[1])
        with suppress(InputError):  # met again when the file is read
            self.records += [row for _, row in islice(found, _HEAD_ROWS - 1)]
        if isinstance(first[1], dict):
            self.names = tuple(dict.fromkeys(name for row in self.records for name in row))
        self.width = len(first[1] if self.names is None else self.names)

    def describe(self) -> str:
        """How the file is written, for people."""
        return "JSON lines, " + ("arrays" if self.names is None else "objects")

    def blocks(
        self,
        order: Sequence[int] | None = None,
        *,
        missing: bool,
        infinite: bool | None = None,
        text: Sequence[int] = (),
    ) -> Iterator[tuple[NDArray[np.float64], list[list[Any]]]]:
        """Rows of numbers (m, k) in bounded memory, and the values of other columns, a list of m for each.

        Args:
            order: the k columns to take, all by default.
            missing: whether null, NaN and keys that are not there become NaN; otherwise they are an InputError.
            infinite: whether infinity and what is beyond float32 is taken; None for as `missing`.
            text: columns to return as they are, None where a key is not there.

        Raises:
            InputError: a line that is no JSON, a value that is no number, objects among arrays; line and key are named.
        """
        order = list(range(self.width)) if order is None else list(order)
        step = max(1, BLOCK_BYTES // (8 * max(self.width, 1)))
        keys: Sequence[Any] = range(self.width) if self.names is None else self.names
        with self._source.open() as stream:
            found = self._rows(stream)
            while part := list(islice(found, step)):
                numbers = self._numbers(
                    part, [keys[i] for i in order], missing, missing if infinite is None else infinite
                )
                yield numbers, [self._others(part, keys[i]) for i in text]

    def lines(self) -> Iterator[int]:
        """The number of each row's line, counted from 1."""
        with self._source.open() as stream:
            for line, _ in self._rows(stream):
                yield line

    def _rows(self, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
        """Each row, a dict or a list, with the number of its line."""
        known = set(self.names or ())
        first: Any = self.records[0] if self.records else None
        with stream:
            for line, content in enumerate(self._lines(stream), 1):
                if not content.strip():
                    continue
                row = self._parsed(content, line)
                first = row if first is None else first
                where = f"{self._source.name}, line {line}"
                if type(row) is not type(first):
                    raise InputError(f"{where}: expected {_kind(first)}, as in the first row, got {_kind(row)}")
                if isinstance(row, list) and len(row) != len(first):
                    raise InputError(f"{where}: expected {len(first)} values, as in the first row, got {len(row)}")
                if isinstance(row, dict) and self.names is not None and not row.keys() <= known:
                    new = [name for name in row if name not in known]
                    known.update(new)
                    self.notes.append(f"keys that the first rows lack were left out: {shortened(new)} (line {line})")
                yield line, row

    def _lines(self, stream: IO[bytes]) -> Iterator[str]:
        """The lines of a file, each decoded by itself, so that a fault has its line."""
        for line in count(1):
            try:
                data = stream.readline()
            except DAMAGE as error:
                raise unreadable(f"{self._source.name}, after line {line - 1}", error) from None
            if not data:
                return
            try:
                yield data.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError:
                raise InputError(
                    f"{self._source.name}, line {line}: expected JSON in UTF-8, got other bytes; save it as UTF-8"
                ) from None

    def _parsed(self, content: str, line: int) -> dict[str, Any] | list[Any]:
        where = f"{self._source.name}, line {line}"
        try:
            found = _decode(content)
        except json.JSONDecodeError as error:
            cut = "" if content.endswith(("\n", "\r")) else "; is the file cut off?"
            why = f"{error.msg}, character {min(error.pos, len(content.rstrip())) + 1}"
            raise InputError(
                f"{where}: expected a JSON object or array, but it cannot be read ({why}){cut or '; ' + _LINES}"
            ) from None
        except (ValueError, RecursionError) as error:  # thousands of digits, thousands of brackets
            what = "values in values" if isinstance(error, RecursionError) else "a whole number of thousands of digits"
            raise InputError(f"{where}: expected numbers that fit float32, got {what}; correct it") from None
        if isinstance(found, tuple):
            row = dict(found)
            if len(row) != len(found):
                names = [name for name, _ in found]
                twice = next(name for name in names if names.count(name) > 1)
                raise InputError(f"{where}: expected each key once, got '{printable(twice)}' twice; rename one")
            if row:
                return row
        elif isinstance(found, list) and found:
            return found
        raise InputError(f"{where}: expected an object or an array of numbers, got {_kind(found)}; {_LINES}")

    def _numbers(
        self, part: list[tuple[int, Any]], keys: list[Any], missing: bool, infinite: bool
    ) -> NDArray[np.float64]:
        values = [value_of(row, key, _ABSENT) for _, row in part for key in keys]
        if not set(map(type, values)) <= {int, float}:
            for at, value in enumerate(values):
                is_missing = value is None or value is _ABSENT
                if type(value) not in (int, float) and not (missing and is_missing):
                    raise self._fault(value, part[at // len(keys)][0], keys[at % len(keys)])
            values = [np.nan if value is None or value is _ABSENT else value for value in values]
        try:
            found = np.array(values, np.float64)
        except OverflowError:  # a whole number of hundreds of digits
            found = np.array([_as_float(value) for value in values])
        right = taken(found, missing, infinite)
        if not right.all():
            at = int(np.argmin(right))
            raise self._fault(values[at], part[at // len(keys)][0], keys[at % len(keys)])
        return found.reshape(len(part), len(keys))

    def _others(self, part: list[tuple[int, Any]], key: Any) -> list[Any]:
        values = [value_of(row, key) for _, row in part]
        for (line, _), value in zip(part, values):
            if isinstance(value, (tuple, list)):
                where = f"{self._source.name}, line {line}, key '{printable(str(key))}'"
                raise InputError(f"{where}: expected text or a number, got {_kind(value)}; leave the column out")
        return values

    def _fault(self, value: Any, line: int, key: Any) -> InputError:
        is_name = isinstance(key, str)
        where = f"{self._source.name}, line {line}, " + (f"key '{printable(key)}'" if is_name else f"value {key + 1}")
        name = key if is_name else f"x{key}"
        if value is _ABSENT:
            return InputError(f"{where}: expected a number, but the key is not there; {self._advice.missing(name)}")
        if value is None or value != value:
            got = "null" if value is None else "NaN"
            return InputError(f"{where}: expected a number, got {got} (a missing value); {self._advice.missing(name)}")
        kind = "a finite number that fits float32" if type(value) in (int, float) else "a number"
        return InputError(f"{where}: expected {kind}, got {_kind(value)}; {self._advice.text(name)}")


def value_of(row: Any, key: Any, default: Any = None) -> Any:
    """The value of a column in a row: of a dict by its key, of a list by its place."""
    return row.get(key, default) if isinstance(row, dict) else row[key]


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _kind(value: Any) -> str:
    """A value in a sentence."""
    if isinstance(value, (dict, tuple)):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    text = json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return f"the text {text}" if isinstance(value, str) else text
