"""How a text file of rows is written, and its cells and records in that dialect.

A dialect is found by `sniffing`, recorded in the bundle, and used by training and device alike.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from aeedge.errors import InputError
from aeedge.record import Record

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "white space"}
HEADERS = ("none", "row", "comment")
_DECIMALS, _QUOTES = (".", ","), ('"', "'")
MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "."))
"""Cells that stand for a missing value, in lower case."""

_TRUTH = {"true": 1.0, "false": 0.0}
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d*)?")
JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b]")
SEPARATOR_LINE = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.IGNORECASE)  # Excel's first line


class Dialect(Record):
    """How a text file of rows is written.

    `delimiter`: one character; a blank stands for runs of white space. `decimal`: "." or ",". `header`: "none", "row"
    (names in the first row) or "comment" (names in the comment above the first row). `units`: whether the row after the
    names holds units.
    """

    delimiter: str = ","
    decimal: str = "."
    header: str = "none"
    units: bool = False
    quote: str = '"'
    comment: str = "#"
    encoding: str = "utf-8-sig"

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> Dialect | None:
        """A dialect from a manifest; None where it is missing or none that this version knows."""
        allowed = {"delimiter": DELIMITERS, "decimal": _DECIMALS, "header": HEADERS, "quote": _QUOTES, "comment": "#"}
        if given is None or any(given.get(name) not in tuple(values) for name, values in allowed.items()):
            return None
        return cls(**{name: given[name] for name in allowed}, units=given.get("units") is True)

    def describe(self) -> str:
        """The dialect for people, such as "comma, header"."""
        parts = [DELIMITERS[self.delimiter]]
        parts += ["decimal comma"] if self.decimal == "," else []
        parts += [{"none": "no header", "row": "header", "comment": "header in a comment"}[self.header]]
        parts += ["a row of units"] if self.units else []
        parts += [f"quoted by {self.quote}"] if self.quote != '"' else []
        parts += [self.encoding] if self.encoding != "utf-8-sig" else []
        return ", ".join(parts)


class Cell(str):
    """The text of a cell: a number, if it is written as one, where text of other files is text."""

    __slots__ = ()


def number(cell: str, decimal: str = ".") -> float | None:
    """The number in a cell, NaN where the value is missing, None where it is something else."""
    cell = cell.strip()
    if decimal == ",":
        cell = "x" if "." in cell and cell.lower() not in MISSING else cell.replace(",", ".")
    if "_" not in cell and cell.isascii():
        try:
            return float(cell)
        except ValueError:
            pass
    return float("nan") if cell.lower() in MISSING else _TRUTH.get(cell.lower())


def records(lines: Iterable[str], dialect: Dialect, name: str, above: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text file, each with the number of its first line (from 1); blank lines and comments are skipped.

    Args:
        lines: of the file.
        dialect: how it is written.
        name: for messages.
        above: number of lines before the given ones.

    Raises:
        InputError: quotes that do not match.
    """
    reader = csv.reader(
        _prepared(lines, dialect, above),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        skipinitialspace=dialect.delimiter != " ",
        strict=True,
    )
    while True:
        line = above + reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                limit = csv.field_size_limit()
                raise InputError(
                    f"{name}, line {line}: expected cells of at most {limit} characters, got a longer one; "
                    "is a quote not closed?"
                ) from None
            raise InputError(
                f"{name}, line {line}: expected cells whose quotes match, got something else ({error}); correct it"
            ) from None
        if row and not (len(row) == 1 and row[0].isspace()):
            yield line, row


def _prepared(lines: Iterable[str], dialect: Dialect, above: int) -> Iterator[str]:
    """Lines for csv.reader: comments blanked, runs of white space shortened where they delimit."""
    quote, comment, white = dialect.quote, dialect.comment, dialect.delimiter == " "
    quoted = False  # within a cell that spans lines, nothing is a comment
    for index, line in enumerate(lines, above):
        if not quoted and (line.lstrip().startswith(comment) or (not index and SEPARATOR_LINE.fullmatch(line))):
            yield "\n"
            continue
        if line.count(quote) % 2:
            quoted = not quoted
        yield " ".join(line.split()) + "\n" if white and not quoted else line


def decode_head(head: bytes, name: str) -> tuple[str, str]:
    """The text of a file's first bytes, and its encoding.

    Raises:
        InputError: binary data.
    """
    encodings = ["utf-16"] if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = codecs.getincrementaldecoder(encoding)().decode(head)  # the last character may be cut
            if not _CONTROL.search(text):
                return text, encoding
    raise InputError(f"{name}: expected text (UTF-8), got binary data; is it a file of another kind?")
