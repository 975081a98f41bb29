"""Text files of rows, read record by record: only the columns that are needed are taken for numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable
from aeedge.files.dialect import DECIMAL_COMMA, THOUSANDS, number, records
from aeedge.files.sniffing import Head
from aeedge.files.source import DAMAGE, Source, unreadable

BLOCK_BYTES = 2**22
_SHOWN = 40  # characters of a cell in a message


class Advice:
    """What a message about a cell recommends: functions of the column's name.

    `text`: for a cell that is no number; `missing`: for one without a value.
    """

    text: Callable[[str], str] = staticmethod(lambda name: "correct it")
    missing: Callable[[str], str] = staticmethod(lambda name: "fill it in, or leave the row out")


class TextTable:
    """A text file of rows whose head is understood.

    Args:
        source: the file.
        head: from `sniffing.detect` or `sniffing.fits`.
        advice: for messages.

    Attributes:
        names: of the columns, None without.
        width: number of columns.
        count: number of rows, which is not known.
        notes: what was guessed that is not obvious.
    """

    def __init__(self, source: Source, head: Head, advice: type[Advice] = Advice) -> None:
        self._source, self.head, self._advice = source, head, advice
        self.names, self.width, self.count = head.names, head.width, None
        self.notes = list(head.notes)

    def describe(self) -> str:
        """How the file is written, for people."""
        return self.head.dialect.describe()

    def blocks(
        self,
        order: Sequence[int] | None = None,
        *,
        missing: bool,
        infinite: bool | None = None,
        text: Sequence[int] = (),
    ) -> Iterator[tuple[NDArray[np.float64], list[list[str]]]]:
        """Rows of numbers (m, k) in bounded memory, and the text of some columns, a list of m for each.

        Args:
            order: the k columns to take, all by default.
            missing: whether cells without a value become NaN; otherwise they are an InputError.
            infinite: whether infinity and what is beyond float32 is taken; None for as `missing`.
            text: columns to return as they are.

        Raises:
            InputError: a cell that is no number, a row of another width; line and column are named.
        """
        width, take = self.head.width, (missing, missing if infinite is None else infinite)
        order = list(range(width)) if order is None else list(order)
        step = max(1, BLOCK_BYTES // (8 * max(width, 1)))
        dialect = self.head.dialect
        with io.TextIOWrapper(self._source.open(), dialect.encoding, newline="") as stream:
            lines = _decoded(stream, self._source.name)
            line = self._skip_head(lines)
            while True:
                chunk = list(islice(lines, step))
                block = self._regular(chunk, order, take)
                if block is None or (text and len(block) != len(chunk)):  # from here on with care
                    lines = chain(chunk, lines)
                    break
                line += len(chunk)
                yield block, self._text(chunk, text)
            found = records(lines, dialect, self._source.name, line)
            while part := list(islice(found, step)):
                rows = [row if len(row) == width else self._of_width(row, line) for line, row in part]
                numbers = self._numbers(rows, [line for line, _ in part], order, take)
                yield numbers, [[row[i].strip() for row in rows] for i in text]

    def lines(self) -> Iterator[int]:
        """The number of each row's line, counted from 1."""
        with io.TextIOWrapper(self._source.open(), self.head.dialect.encoding, newline="") as stream:
            lines = _decoded(stream, self._source.name)
            line = self._skip_head(lines)
            for number, _ in records(lines, self.head.dialect, self._source.name, line):
                yield number

    def _skip_head(self, lines: Iterator[str]) -> int:
        """Consume the lines above the first row; returns their number."""
        above = self.head.first_line - 1
        for _ in islice(lines, above):
            pass
        return above

    def _regular(self, lines: list[str], order: list[int], take: tuple[bool, bool]) -> NDArray[np.float64] | None:
        """Lines without quotes, comments or faults, by numpy's fast reader; None for all others."""
        dialect, text = self.head.dialect, "".join(lines)
        white, subset = dialect.delimiter == " ", order != list(range(self.head.width))
        if not text.strip() or any(mark in text for mark in (dialect.quote, dialect.comment, "_")):
            return None
        if dialect.decimal == ",":
            if "." in text:
                return None
            lines = [line.replace(",", ".") for line in lines]
        if subset and (white or {line.count(dialect.delimiter) for line in lines} != {self.head.width - 1}):
            return None
        try:
            block = np.loadtxt(
                lines,
                delimiter=None if white else dialect.delimiter,
                comments=None,
                usecols=order if subset else None,
                ndmin=2,
            )
        except ValueError:
            return None
        fits = block.shape[1] == len(order) and taken(block, *take).all()
        return block if fits else None

    def _text(self, lines: list[str], columns: Sequence[int]) -> list[list[str]]:
        """Columns of lines that `_regular` took."""
        delimiter = None if self.head.dialect.delimiter == " " else self.head.dialect.delimiter
        rows = [line.split(delimiter) for line in lines] if columns else []
        return [[row[i].strip() for row in rows] for i in columns]

    def _of_width(self, row: list[str], line: int) -> list[str]:
        if len(row) == self.head.width + 1 and not row[-1].strip():
            return row[:-1]
        raise InputError(f"{self._source.name}, line {line}: expected {self.head.width} cells, got {len(row)}")

    def _numbers(
        self, rows: list[list[str]], lines: list[int], order: Sequence[int], take: tuple[bool, bool]
    ) -> NDArray[np.float64]:
        """Cell by cell: missing values, truth values, and the place of a fault."""
        cells = [row[i] for row in rows for i in order]
        found = [number(cell, self.head.dialect.decimal) for cell in cells]
        if None in found:
            at = found.index(None)
            raise self._fault(cells[at], lines, at, order, is_missing=False)
        values = np.array(found, np.float64)
        right = taken(values, *take)
        if not right.all():
            at = int(np.argmin(right))
            raise self._fault(cells[at], lines, at, order, is_missing=bool(np.isnan(values[at])))
        return values.reshape(len(rows), len(order))

    def _fault(self, cell: str, lines: Sequence[int], at: int, order: Sequence[int], *, is_missing: bool) -> InputError:
        row, column = divmod(at, len(order))
        names = self.head.names
        place = order[column]
        name = names[place] if names and names[place] else f"x{place}"
        where = f"{self._source.name}, line {lines[row]}, column {place + 1}" + (
            f" ('{printable(name)}')" if names else ""
        )
        cell = cell.strip()
        shown = repr(cell if len(cell) <= _SHOWN else cell[:_SHOWN] + "…") if cell else "nothing"
        if is_missing:
            return InputError(
                f"{where}: expected a number, got {shown} (a missing value); {self._advice.missing(name)}"
            )
        hint = ""
        if self.head.dialect.decimal == "." and DECIMAL_COMMA.fullmatch(cell) and not THOUSANDS.fullmatch(cell):
            hint = " with a decimal comma (--decimal ,)"
        elif THOUSANDS.fullmatch(cell):
            hint = " with separators of thousands, which are not read"
        kind = "a number" if number(cell, self.head.dialect.decimal) is None else "a finite number that fits float32"
        return InputError(f"{where}: expected {kind}, got {shown}{hint}; {self._advice.text(name)}")


def fits_float32(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are finite and fit float32, as models compute; False for NaN."""
    return np.asarray(np.abs(values) <= np.finfo(np.float32).max)


def taken(values: NDArray[np.float64], missing: bool, infinite: bool) -> NDArray[np.bool_]:
    """Which values are taken: those that fit float32, NaN where it is `missing`, all others where `infinite`."""
    nan = np.isnan(values)
    return np.where(nan, missing, infinite | fits_float32(values))


def _decoded(stream: io.TextIOWrapper, name: str) -> Iterator[str]:
    """The lines of a text file.

    Raises:
        InputError: bytes that are not of its encoding, or a damaged file.
    """
    count = 0
    try:
        for line in stream:
            count += 1
            yield line
    except UnicodeError:
        raise InputError(
            f"{name}, after line {count}: expected text in {stream.encoding}, got other bytes; save it as UTF-8"
        ) from None
    except DAMAGE as error:
        raise unreadable(f"{name}, after line {count}", error) from None
