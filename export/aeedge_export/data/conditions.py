"""Rows of a labelled file that are wanted: "anomaly == 0 and 'Volume Flow' > 3", without eval."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError, printable
from aeedge.files.dialect import MISSING, number
from aeedge.files.times import moment

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(r"\s*(?:(==|!=|<=|>=|<|>)|\"([^\"]*)\"|'([^']*)'|`([^`]*)`|([^\s\"'`<>=!]+))")
_EXPECTED = """expected comparisons such as "anomaly == 0 and 'pump state' != off" """.strip()


class Comparison(NamedTuple):
    """A column, an operator (==, !=, <, <=, >, >=) and a value, as they were written."""

    column: str
    operator: str
    value: str

    def matches(self, cells: Sequence[Any], decimal: str, where: str) -> NDArray[np.bool_]:
        """Which cells of the column match, (n,). Numbers compare as numbers, dates by time, all else as text.

        Args:
            cells: text of the column, or its values; what is missing never matches.
            decimal: the decimal mark of text.
            where: the column, for messages.

        Raises:
            InputError: cells that have no order.
        """
        known: dict[str, bool] = {}
        for text in (texts := ["" if cell is None else str(cell).strip() for cell in cells]):
            if text not in known:
                known[text] = self._matches(text, decimal, where)
        return np.array([known[text] for text in texts], np.bool_)

    def _matches(self, text: str, decimal: str, where: str) -> bool:
        compare = _OPERATORS[self.operator]
        if text.lower() in MISSING:
            return False
        wanted, found = _number(self.value, decimal), number(text, decimal)
        if wanted is not None and found is not None:
            return compare(found, wanted)
        if self.operator in ("==", "!="):
            return compare(text, self.value)
        at, limit = moment(text), moment(self.value)
        if at is None or limit is None:
            raise InputError(
                f"{where}: expected numbers, or dates such as 2026-01-31, to compare by {self.operator}, got "
                f"'{printable(self.value if limit is None and wanted is None else text)}'"
            )
        return compare(at, limit)


def _number(value: str, decimal: str) -> float | None:
    """With a decimal point, or the mark of the file."""
    found = number(value)
    return number(value, decimal) if found is None else found


def parse_condition(text: str) -> tuple[Comparison, ...]:
    """Comparisons that are joined by "and".

    Raises:
        InputError: anything else.
    """
    tokens, at = [], 0
    while text[at:].strip():
        token = _TOKEN.match(text, at)
        if token is None:
            raise InputError(f"select: {_EXPECTED}, got {text!r}: {_why_not(text[at:])}")
        tokens.append((token[1] or next((part for part in token.groups()[1:] if part is not None)), token.lastindex))
        at = token.end()
    found = []
    for start in range(0, max(len(tokens), 1), 4):
        part = tokens[start : start + 4]
        kinds = [kind for _, kind in part]
        joined = len(part) == 3 or (
            len(part) == 4 and (part[3][0].lower(), part[3][1]) == ("and", 5) and len(tokens) > start + 4
        )
        if not joined or kinds[1] != 1 or 1 in (kinds[0], kinds[2]):
            raise InputError(f"select: {_EXPECTED}, got {text!r}; put names and values with blanks in quotes")
        comparison = Comparison(*(word for word, _ in part[:3]))
        value = number(comparison.value)
        if comparison.value.lower() in MISSING or (value is not None and math.isnan(value)):
            raise InputError(
                f"select: expected a value to compare '{printable(comparison.column)}' with, got "
                f"{comparison.value!r}, which stands for a missing one, and those never match"
            )
        found.append(comparison)
    return tuple(found)


def _why_not(rest: str) -> str:
    return "equal is ==" if rest.strip().startswith("=") else "a quote is not closed, or a sign is none of these"


def matching(
    condition: Sequence[Comparison], columns: Mapping[str, Sequence[Any]], decimal: str, where: str
) -> NDArray[np.bool_]:
    """Which rows match all comparisons, (n,); `columns` has the cells of each column."""
    masks = [
        one.matches(columns[one.column], decimal, f"{where}, column '{printable(one.column)}'") for one in condition
    ]
    found: NDArray[np.bool_] = np.logical_and.reduce(masks)
    return found
