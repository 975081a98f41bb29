"""Lines of cells with a delimiter to samples, each as it comes."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Any

from aeedge.errors import InputError, absent, printable, shortened
from aeedge.files.dialect import DELIMITERS, SEPARATOR_LINE, Dialect, number
from aeedge.signals.lines import Fields, LineError, LineParser, shown, time_of

_DEFAULT_NAME = re.compile(r"(?:x|ch|channel[ _]?)?\d+")  # of channels without a name


class CsvParser(LineParser):
    """Cells with a delimiter to samples.

    Columns are found by the bundle's names where the first line has them, and by their order otherwise, the time, if
    there is one column more, in the first or where `fields.time` says. Delimiter and decimal mark are those of the
    bundle's files where the first lines fit them, and found out otherwise. Cells without a value are NaN.
    """

    def __init__(self, fields: Fields, name: str) -> None:
        super().__init__(fields, name)
        recorded, options = fields.dialect or Dialect(), fields.options
        self._delimiters = [options.delimiter] if options.delimiter else [recorded.delimiter, *DELIMITERS]
        self._decimals = [options.decimal] if options.decimal else list(dict.fromkeys([recorded.decimal, ".", ","]))
        self._quote = recorded.quote
        # A row of numbers may look like names that are numbers
        are_numbers = all(name.isdecimal() for name in fields.channels)
        self._row_first = are_numbers and recorded.header == "none" and not options.header
        self._delimiter, self._decimal = "", ""
        self._columns: list[int] = []
        self._time: list[int] = []
        self._width, self._under_header = 0, False
        self._header: list[str] | None = None

    def _wanted(self) -> str:
        names = self.fields.channels
        return f"{len(names)} number{'s' * (len(names) > 1)} ({shortened(names, 4)})"

    def row(self, line: bytes, number: int) -> tuple[Any, Any] | None:
        """As `_row`, of a line that another parser has read and counted."""
        self._line = number
        found = self._row(line)
        self._is_right = self._is_right or found is not None
        return found

    def _row(self, line: bytes) -> tuple[Any, Any] | None:
        text = line.decode("utf-8-sig", "replace").strip()
        if not text or (self._line == 1 and SEPARATOR_LINE.fullmatch(text)):
            return None
        if text[0] == "#":
            if not self._columns:
                self._is_header(text.lstrip("# \t"))
            return None
        if self._line == 1 and line.startswith((b"RIFF", b"\x93NUMPY", b"PAR1")):
            raise InputError(
                f"{self.name}: expected a live signal as text or raw numbers, got a recording with a header (WAV, npy "
                "or Parquet); 'aeedge score' reads such files"
            )
        if b"\0" in line and not self._is_right:
            raise InputError(
                f"{self.name}: expected text, got binary data; of raw samples say how they are written, such as "
                "format='s16le'"
            )
        if not self._columns:
            may_have_names = self.fields.options.header is not False
            if may_have_names and ((not self._row_first and self._is_header(text)) or self._is_foreign_header(text)):
                self._under_header = True
                return None
            self._find_layout(text)
        return self._values(self._cells(text, self._delimiter))

    def _cells(self, text: str, delimiter: str) -> list[str]:
        if delimiter == " ":
            return text.split()
        if self._quote not in text:
            return [cell.strip() for cell in text.split(delimiter)]
        reader = csv.reader([text], delimiter=delimiter, quotechar=self._quote, skipinitialspace=True)
        try:
            return [cell.strip() for cell in next(reader, [])]
        except csv.Error as error:
            raise LineError(f"expected cells whose quotes match, got something else ({error})") from None

    def _is_header(self, text: str) -> bool:
        """Whether a line names all channels; columns are those of these names from then on."""
        names, time = self.fields.channels, self.fields.time
        for delimiter in self._delimiters:
            cells = self._cells(text, delimiter)
            if set(names) <= set(cells):
                twice = next((name for name in names if cells.count(name) > 1), None)
                if twice is not None:
                    raise InputError(f"{self.name}: expected each column once, got '{printable(twice)}' twice")
                self._time = time_of(cells, time)
                if not self._time and self.fields.time_given and time is not None:
                    if not time.isdecimal() or int(time) >= len(cells):
                        raise InputError(f"{self.name}: {absent(time, cells, why=' with the time')}")
                    self._time = [int(time)]
                self._delimiter, self._header, self._width = delimiter, cells, len(cells)
                self._columns = [cells.index(name) for name in names]
                return True
        return False

    def _is_foreign_header(self, text: str) -> bool:
        """Whether a line has names of other columns; taken by their order where the bundle has none but numbers.

        Raises:
            InputError: some of the channels are not among the columns.
        """
        names = self.fields.channels
        for delimiter in self._delimiters:
            if delimiter == " " != self._delimiters[0]:  # words
                continue
            cells = self._cells(text, delimiter)
            known = set(cells) & set(names)
            is_text = all(number(cell, mark) is None for cell in cells for mark in self._decimals)
            if (known and is_text) or self.fields.options.header is True:
                lacking = shortened([name for name in names if name not in cells])
                raise InputError(
                    f"{self.name}, line {self._line}: expected the columns {shortened(names)}, got "
                    f"{shortened(cells)}; {lacking} not among them"
                )
            if is_text and all(map(_DEFAULT_NAME.fullmatch, names)) and self._by_order(cells):
                self._delimiter, self._header = delimiter, cells
                return True
        return False

    def _by_order(self, cells: Sequence[str]) -> bool:
        """Take columns in the order of the channels, with one more for the time, or where they were in training.

        False where there are neither so many.
        """
        fields, width = self.fields, len(cells)
        is_known = width == fields.width != len(fields.channels)
        extra = width - len(fields.channels)
        if not is_known and extra not in ((0, 1) if fields.time is not None else (0,)):
            return False
        at = re.fullmatch(r"x?(\d+)", fields.time or "")
        others = [i for i in range(width) if i not in fields.places] if is_known else list(range(extra))
        if at and int(at[1]) < width and (extra or fields.time_given):
            self._time = [int(at[1])]
        else:
            self._time = others if fields.time is not None and len(others) == 1 else []
        self._columns = list(fields.places) if is_known else [i for i in range(width) if i not in self._time]
        self._width = width
        return len(self._columns) == len(fields.channels)

    def _find_layout(self, text: str) -> None:
        """Delimiter, decimal mark and columns of rows without names, by the first one."""
        for delimiter in self._delimiters:
            cells = self._cells(text, delimiter)
            if (
                len(cells) > 1
                and not cells[-1]
                and len(cells) - 1 in (self.fields.width, len(self.fields.channels) + 1)
            ):
                cells.pop()
            for decimal in self._decimals if self._by_order(cells) else ():
                if self._numbers(cells, decimal):
                    self._delimiter, self._decimal = delimiter, decimal
                    return
        self._columns = []
        raise self._unfit(text)

    def _unfit(self, text: str) -> LineError:
        """What is wrong with a first line that is neither names nor a row."""
        count = len(self.fields.channels)
        for delimiter in self._delimiters:
            cells = self._cells(text, delimiter)
            numbers = sum(number(cell, decimal) is not None for cell in cells for decimal in self._decimals[:1])
            if numbers == len(cells) and (len(cells) > 1 or count > 1):
                hint = "; name the column of the time (--time 0)" if len(cells) == count + 1 else ""
                return LineError(f"expected {self._wanted()}, got {len(cells)}{hint}", wrong_count=True)
        return LineError(f"expected {self._wanted()}, got {shown(text)}")

    def _values(self, cells: list[str]) -> tuple[Any, Any] | None:
        if len(cells) == self._width + 1 and not cells[-1]:
            cells.pop()
        if cells == self._header:  # the sender has started again
            return None
        if len(cells) != self._width:
            raise LineError(f"expected {self._width} cells, got {len(cells)}", wrong_count=True)
        may_be_units, self._under_header = self._under_header, False
        if not self._decimal:
            self._decimal = next((mark for mark in self._decimals if self._numbers(cells, mark)), "")
        if not self._decimal:
            if may_be_units and all(number(cells[i]) is None for i in self._columns):
                return None
            raise self._not_a_number(cells)
        values = self._numbers(cells, self._decimal)
        if values is None:
            raise self._not_a_number(cells)
        if not self._time:
            return [values], None
        return [values], self._seconds(" ".join(cells[i] for i in self._time), self._decimal)

    def _numbers(self, cells: Sequence[str], decimal: str) -> list[float] | None:
        found = [number(cells[i], decimal) for i in self._columns]
        return None if None in found else found  # type: ignore[return-value]

    def _not_a_number(self, cells: Sequence[str]) -> LineError:
        mark = self._decimal or self._decimals[0]
        at = next(place for place, i in enumerate(self._columns) if number(cells[i], mark) is None)
        cell = cells[self._columns[at]]
        return LineError(f"column '{printable(self.fields.channels[at])}': expected a number, got {shown(cell)}")
