"""Finds out how a text file of rows is written: delimiter, decimal mark, quotes, header, units.

Everything is found in the first hundred records.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, pairwise
from math import isfinite, isnan

from aeedge.errors import InputError, printable, shortened
from aeedge.files.dialect import (
    DECIMAL_COMMA,
    DELIMITERS,
    MISSING,
    SEPARATOR_LINE,
    THOUSANDS,
    Dialect,
    decode_head,
    number,
    records,
)
from aeedge.record import Record

_SAMPLE, _SAMPLE_CELLS, _SAMPLE_COLUMNS = 100, 100_000, 1000  # records that are looked at; fewer of wide tables
_SINGLE_QUOTED = re.compile(r"(^|[,;\t|])'[^'\n]*'([,;\t|]|\s*$)", re.MULTILINE)
_FAR, _MOST, _HALF = 3.0, 0.8, 0.5
_YEARS = (1900, 2100)
_STEPS, _MANY = 5, 8  # numbers in a first row that rise in equal steps, or at all, hardly by chance


class DialectOptions(Record):
    """What is known about a dialect; None where it is to be found out. `names`: of some columns."""

    header: bool | None = None
    delimiter: str | None = None
    decimal: str | None = None
    names: tuple[str, ...] | None = None


class Head(Record):
    """The first lines of a text file, understood.

    `width`: number of columns. `names`, `units`: of all columns, None without. `records`: the first rows of data, with
    the numbers of their lines. `first_line`: number of the line after the names and units. `notes`: what was guessed
    that is not obvious.
    """

    dialect: Dialect
    width: int
    names: tuple[str, ...] | None
    units: tuple[str, ...] | None
    records: tuple[tuple[int, list[str]], ...]
    first_line: int = 1
    notes: tuple[str, ...] = ()


def detect(head: bytes, is_whole: bool, name: str, options: DialectOptions | None = None) -> Head:
    """Find the dialect of a text file.

    Args:
        head: its first bytes.
        is_whole: whether that is all of it.
        name: for messages.
        options: what is known already.

    Raises:
        InputError: binary data, no rows, a name that stands twice in the header.
    """
    options = options or DialectOptions()
    lines, encoding = _lines(head, is_whole, name)
    quote = "'" if _SINGLE_QUOTED.search("".join(lines)) and '"' not in "".join(lines) else '"'
    dialect = _layout(lines, Dialect(quote=quote, encoding=encoding), name, options)
    rows = _first(lines, dialect, name)
    if not rows:
        raise InputError(f"{name}: expected rows of numbers, but it has none")
    header, notes = _header(lines, rows, dialect, options)
    dialect = dialect._replace(header=header)
    units = (
        header == "row"
        and len(rows) > 2
        and _are_units(rows[1][1], [row[:_SAMPLE_COLUMNS] for _, row in rows[2:]], dialect)
    )
    return _head(lines, rows, dialect._replace(units=units), name)._replace(notes=notes)


def fits(head: bytes, is_whole: bool, name: str, recorded: Dialect, columns: Sequence[str] | int) -> Head | None:
    """The head of a file, if it is written in a recorded dialect; otherwise None.

    Args:
        head, is_whole, name: as for `detect`.
        recorded: the dialect.
        columns: names that its header must have, or how many columns it must have where it has no header.
    """
    try:
        lines, encoding = _lines(head, is_whole, name)
        dialect = recorded._replace(encoding=encoding)
        found = _head(lines, _first(lines, dialect, name), dialect, name)
    except InputError:
        return None
    if not isinstance(columns, int):
        return found if found.names and set(columns) <= set(found.names) else None
    if found.width != columns or not found.records:
        return None
    (_, first), *rest = found.records
    return None if _has_names(first, _numeric_columns([row for _, row in rest], dialect), dialect) else found


def _lines(head: bytes, is_whole: bool, name: str) -> tuple[list[str], str]:
    """The whole lines of the head, and its encoding."""
    text, encoding = decode_head(head, name)
    lines = list(io.StringIO(text, newline=""))
    return (lines if is_whole or len(lines) < 2 else lines[:-1]), encoding


def _first(lines: list[str], dialect: Dialect, name: str) -> list[tuple[int, list[str]]]:
    found, cells = [], 0
    with suppress(InputError):  # met again when the file is read
        for line, row in islice(records(lines, dialect, name), _SAMPLE):
            found.append((line, row))
            cells += len(row)
            if cells > _SAMPLE_CELLS and len(found) > 10:
                break
    return found


# --- the delimiter


def _layout(lines: list[str], plain: Dialect, name: str, options: DialectOptions) -> Dialect:
    """The delimiter and decimal mark under which the rows have one width and most cells are numbers."""
    separator = SEPARATOR_LINE.fullmatch(lines[0]) if lines else None
    fixed = options.delimiter or (separator[1] if separator else None)
    best, most = plain._replace(delimiter=fixed or ",", decimal=options.decimal or "."), 0.0
    for delimiter in (fixed,) if fixed else DELIMITERS:
        rows = [row for _, row in _first(lines, plain._replace(delimiter=delimiter), name)]
        for decimal in (options.decimal,) if options.decimal else (".", ","):
            score = _score(rows, delimiter, decimal)
            if score > most:
                best, most = plain._replace(delimiter=delimiter, decimal=decimal), score
    return best


def _score(rows: list[list[str]], delimiter: str, decimal: str) -> float:
    """How well rows fit a layout, 0 to 3: one width, numbers, more than one column."""
    if not rows:
        return 0.0
    width, same = _width(rows, delimiter, decimal)
    body = [row for row in rows[1:] if len(row) == width] or rows[:1]
    cells = [cell.strip() for row in body for cell in row[:_SAMPLE_COLUMNS]]
    numbers = sum(number(cell, decimal) is not None for cell in cells) / max(1, len(cells))
    commas = [cell for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    if decimal == "," and (not commas or (delimiter == "," and all(map(THOUSANDS.fullmatch, commas)))):
        return 0.0
    return same + numbers + (same if width > 1 else 0.0)


def _width(rows: list[list[str]], delimiter: str, decimal: str) -> tuple[int, float]:
    """Number of columns, and how well the rows agree on it, 0 to 1."""
    first, below = len(rows[0]), rows[1:]
    if not below:
        return first, 1.0
    width, count = Counter(map(len, below)).most_common(1)[0]
    body = [row for row in below if len(row) == width]
    at_end = first + 1 == width and not any(row[-1].strip() for row in body)  # a delimiter at the end of each row
    without = first == width + 1 and not rows[0][-1].strip()  # or of the header alone
    row_names = first + 1 == width and delimiter in "\t "  # as R writes them, under no name
    if first == width or at_end or without or row_names:
        name = rows[0][0]
        in_name = width == 1 and any(other in name for other in ",;\t|") and number(name, decimal) is None
        return first if at_end else width, 0.0 if in_name else count / len(below)
    most = Counter([first, *map(len, below)])  # the first of those that are equally frequent
    return most.most_common(1)[0][0], 0.3 * count / len(below)


# --- the header


def _header(
    lines: list[str], rows: list[tuple[int, list[str]]], dialect: Dialect, options: DialectOptions
) -> tuple[str, tuple[str, ...]]:
    """Where the names are, and a note if that is not obvious."""
    first, body = rows[0][1][:_SAMPLE_COLUMNS], [row[:_SAMPLE_COLUMNS] for _, row in rows[1:]]
    if options.header is not None:
        return ("row" if options.header else "none"), ()
    numeric = _numeric_columns(body, dialect)
    texts = [cell.strip() for cell in first]
    if options.names and set(options.names) <= {cell.strip() for cell in rows[0][1]}:
        return "row", ()
    if _has_names(texts, numeric, dialect) or (
        not numeric and all(number(cell, dialect.decimal) is None for cell in texts if cell)
    ):
        return "row", ()
    if any(
        _is_name(cell, [row[i] for row in body if i < len(row)]) for i, cell in enumerate(texts) if i not in numeric
    ):
        return "row", ()
    if _commented_names(lines, rows[0][0], len(rows[0][1]), dialect):
        return "comment", ()
    shown = ", ".join(map(printable, texts[:4])) + (", …" if len(texts) > 4 else "")
    has_text = any(number(cell, dialect.decimal) is None for cell in texts)
    why = None if has_text else _why_names(texts, body, numeric, dialect)
    if why:
        return "row", (f"the first line ({shown}) was taken for the names of the columns: {why}; if not: --no-header",)
    if has_text:
        return "none", (f"the first line ({shown}) was taken for a row, so columns have no names; if not: --header",)
    return "none", ()


def _has_names(first: list[str], numeric: list[int], dialect: Dialect) -> bool:
    """Whether there is text in the first row over a column of numbers."""
    return any(i < len(first) and number(first[i], dialect.decimal) is None for i in numeric)


def _is_name(cell: str, below: list[str]) -> bool:
    """Whether a cell above a column of text is its name: it is not among classes that repeat, or has no digit."""
    if not cell or cell in below or number(cell) is not None:
        return False
    return len(set(below)) <= _HALF * len(below) or all(any(c.isdigit() for c in text) for text in below) > any(
        c.isdigit() for c in cell
    )


def _numeric_columns(body: list[list[str]], dialect: Dialect) -> list[int]:
    """Columns whose cells are numbers, or missing, in most of the rows, and not missing in all."""
    found = []
    for i in range(max(map(len, body), default=0)):
        values = [number(row[i], dialect.decimal) for row in body if i < len(row)]
        known = [value for value in values if value is not None]
        if len(known) > _HALF * len(values) and not all(map(isnan, known)):
            found.append(i)
    return found


def _why_names(texts: list[str], body: list[list[str]], numeric: list[int], dialect: Dialect) -> str | None:
    """Why a first row of numbers holds names (wavelengths, years, a count), or None where it is a row like the others.

    Names are distinct, and one of: they count from 0 or 1; they are whole and the rows are fractions; they are far from
    the rows; they rise or fall, in equal steps or many of them, and no row does.
    """
    numeric = [i for i in numeric if i < len(texts) and texts[i]]  # pandas' index has no name
    names = [number(texts[i], dialect.decimal) for i in numeric]
    values = [[number(row[i], dialect.decimal) if i < len(row) else None for i in numeric] for row in body]
    columns = [[v for v in column if v is not None and isfinite(v)] for column in zip(*values)]
    if len(names) < 2 or not all(columns) or any(v is None or not isfinite(v) for v in names):
        return None
    first = [float(v) for v in names if v is not None]
    if len(set(first)) < len(first):
        return None
    cells = [v for column in columns for v in column]
    ordered = _is_monotone(first)
    rows = [[v for v in row if v is not None] for row in values]
    rows_ordered = sum(map(_is_monotone, rows)) / len(rows)
    fractions = sum(v != int(v) for v in cells) / len(cells)
    whole = all(re.fullmatch(r"[+-]?\d+", text) for text in (texts[i] for i in numeric))
    counts = first in (list(range(len(first))), list(range(1, len(first) + 1)))
    goes_on = values[0] == [v + len(first) for v in first]  # numpy.arange, a row at a time
    low, high = min(cells), max(cells)
    far = sum(_is_far(v, column, low, high) for v, column in zip(first, columns)) / len(first)
    among = whole and fractions == 0 and low >= 0 and high <= len(first)  # ranks, flags: a row may look like a count
    if counts and not among and not goes_on and (len(first) > 2 or fractions >= _HALF):
        return "it counts up"
    if whole and fractions >= _HALF and len(first) > 2 and ((ordered and rows_ordered <= _HALF) or far >= _MOST):
        return "whole numbers over fractions"
    if far >= _MOST and len(first) > 2 and ordered and rows_ordered <= _HALF:
        return "its numbers are far from those below"
    years = whole and all(_YEARS[0] <= v <= _YEARS[1] for v in first)
    if years and len(first) > 2 and _has_equal_steps(first) and not any(map(_has_equal_steps, rows)):
        return "years"
    if len(first) >= _STEPS and _has_equal_steps(first) and not any(map(_has_equal_steps, rows)):
        return "it rises or falls in equal steps"
    if len(first) >= _MANY and whole and ordered and rows_ordered == 0 and len(rows) > 2:
        return "it only rises or falls, unlike any row"
    return None


def _is_monotone(values: Sequence[float]) -> bool:
    pairs = list(pairwise(values))
    return len(values) > 1 and (all(a < b for a, b in pairs) or all(a > b for a, b in pairs))


def _has_equal_steps(values: Sequence[float]) -> bool:
    steps = [b - a for a, b in pairwise(values)]
    return len(steps) > 1 and steps[0] != 0 and max(steps) - min(steps) <= 1e-6 * abs(steps[0])


def _is_far(value: float, column: list[float], low: float, high: float) -> bool:
    """Whether a value is far outside the range of its column, or, where that is a point, of all columns."""
    least, most = min(column), max(column)
    least, most = (low, high) if least == most else (least, most)
    margin = _FAR * (most - least)
    return value < least - margin or value > most + margin


def _commented_names(lines: list[str], line: int, width: int, dialect: Dialect) -> list[str] | None:
    """Names in the comment just above the first row, as numpy.savetxt writes them; None where there are none."""
    above = lines[line - 2].lstrip() if line > 1 else ""
    if not above.startswith(dialect.comment):
        return None
    text = above.lstrip(dialect.comment + " \t")
    cells = next((row for _, row in records([text], dialect._replace(comment="\0"), "")), [])
    right = len(cells) == width and all(cell.strip() and number(cell, dialect.decimal) is None for cell in cells)
    return [cell.strip() for cell in cells] if right and width > 1 else None


def _are_units(second: list[str], body: list[list[str]], dialect: Dialect) -> bool:
    """Whether the row under the names holds units: text or nothing over every column of numbers."""
    over = [second[i].strip() for i in _numeric_columns(body, dialect) if i < len(second)]
    texts = [cell for cell in over if cell.lower() not in MISSING]
    is_text = all(cell == "1" or number(cell, dialect.decimal) is None for cell in texts)
    return bool(texts) and is_text and any(cell != "1" for cell in texts)


def _head(lines: list[str], rows: list[tuple[int, list[str]]], dialect: Dialect, name: str) -> Head:
    """Width, names, units and the rows of data, for a dialect."""
    width, _ = _width([row for _, row in rows], dialect.delimiter, dialect.decimal) if rows else (0, 0.0)
    names: list[str] | None = None
    units: list[str] | None = None
    if dialect.header == "row" and rows:
        names, rows = [cell.strip() for cell in rows[0][1]], rows[1:]
    elif dialect.header == "comment" and rows:
        names = _commented_names(lines, rows[0][0], len(rows[0][1]), dialect)
    if dialect.units and rows:
        units, rows = [cell.strip() for cell in rows[0][1]], rows[1:]
    if names is not None:
        if len(names) == width + 1 and not names[-1]:
            names.pop()
        elif len(names) == width - 1:
            names.insert(0, "")
        if len(names) != width and rows:
            above = f"{name}: expected names of {width} columns above the rows, got {len(names)}"
            raise InputError(f"{above} ({shortened(names, 3)}); remove the lines above the table, or correct them")
        _check_names(names, name)
    if units is not None:
        units = (units + [""] * width)[:width]
    first_line = rows[0][0] if rows else len(lines) + 1
    return Head(
        dialect,
        width,
        None if names is None else tuple(names),
        None if units is None else tuple(units),
        tuple(rows),
        first_line,
    )


def _check_names(names: Sequence[str], name: str) -> None:
    twice = next((each for each, count in Counter(names).items() if each and count > 1), None)
    if twice is not None:
        raise InputError(
            f"{name}: expected each column name once, got '{printable(twice)}' twice in the header; rename one"
        )
