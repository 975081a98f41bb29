"""Which columns of a table are features: an index, identifiers, timestamps, text and labels are not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import printable
from aeedge.files.dialect import MISSING, THOUSANDS, number
from aeedge.files.times import EPOCHS
from aeedge_export.data.times import in_time_order

_LEAST_ROWS = 10  # to see that a column counts
_MOST_CLASSES = 20
_DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AP]M)?", re.IGNORECASE
)
_NUMBER_LIKE = re.compile(r"[$€£]?\s*[+-]?\d[\d,' ]*([.,]\d+)?\s*[%$€£]?")
_VALUE_OF_A_LIST = re.compile(r"\[\d+\]$")
_INDEX_NAME = re.compile(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__|level_\d+")
_ID_NAME = re.compile(
    r"(.*[_ .-])?(id|ids|uid|uuid|index|idx|key|no|nr|number|row|serial|sample|pk)|row.?names?|(?-i:.*[a-z]I[Dd])",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(
    r"(.*[_ .-])?(time|timestamp|datetime|date|ts|t|epoch|unix|clock|utc|seconds?|ms|ns)|(time|timestamp|date).*",
    re.IGNORECASE,
)
_LABEL_NAME = re.compile(
    r"(.*[_ .-])?((is|has)[_ .-]?)?"
    r"(labels?|class|classes|targets?|y|outcome|anomaly|anomalies|anomalous|abnormal|novelty|outliers?|faults?|faulty|"
    r"ground[_ ]?truth|attacks?|malicious|intrusion|failures?|failed|defects?|defective|diagnosis|species|"
    r"machine[_ ]?status|change[_ .-]?points?)"
    r"([_ .-]?(types?|class|labels?|flag|names?|cat|category|kind|code|state|true))?",
    re.IGNORECASE,
)


def kind_of_cells(cells: Sequence[str], decimal: str) -> str:
    """ "number", "time", "text", or "empty" for a column of a text file, from its first cells."""
    known = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING]
    if not known:
        return "empty"
    if all(map(_DATE.fullmatch, known)):
        return "time"
    numbers = sum(number(cell, decimal) is not None or _is_like_a_number(cell) for cell in known)
    if 2 * numbers >= len(known):
        return "number"
    return "text"


def kind_of_values(values: Sequence[Any]) -> str:
    """ "number", "time", "text", "nested" or "empty" for a column of JSON lines, from its first values."""
    known = [value for value in values if value is not None]
    if any(isinstance(value, (list, tuple)) for value in known):
        return "nested"
    texts = [value for value in known if isinstance(value, str)]
    return kind_of_cells(texts, ".") if 2 * len(texts) > len(known) else "number" if known else "empty"


def _is_like_a_number(cell: str) -> bool:
    """Whether a cell was meant as a number, with separators of thousands or a unit; refused later, with its line."""
    return bool(_NUMBER_LIKE.fullmatch(cell) or THOUSANDS.fullmatch(cell))


def why_not_by_kind(name: str, kind: str, example: str = "") -> str | None:
    """Why a column is no feature, from its name and kind; None if it may be one."""
    if _INDEX_NAME.fullmatch(name):
        return "an index" if name else "no name, as an index has it"
    return {
        "index": "an index",
        "time": "timestamps",
        "empty": "no values",
        "nested": "arrays or objects",
        "text": f"text{f' such as {example!r}' if example else ''}",
    }.get(kind)


def why_not_by_values(name: str, values: NDArray[np.float32]) -> str | None:
    """Why a column of numbers is no feature, from its name and values (n,); None if it may be one.

    Only what is nearly certain: numbers that count up by one, and names that say what the values confirm.
    """
    named = any(kind.fullmatch(name) for kind in (_ID_NAME, _TIME_NAME, _LABEL_NAME))
    if len(values) < _LEAST_ROWS or not (named or values[1] - values[0] == 1):
        return None  # soon, for there may be many columns
    known = values[np.isfinite(values)].astype(np.float64)
    if len(known) < _LEAST_ROWS:
        return None
    whole = bool((known == np.trunc(known)).all())
    steps = np.diff(known)
    if whole and bool((steps == 1).all()):
        return "counts up"
    distinct = len(np.unique(known))
    if _ID_NAME.fullmatch(name) and whole and distinct == len(known):
        return "an identifier: a different whole number in each row"
    if _ID_NAME.fullmatch(name) and whole and distinct == 1:
        return "an identifier: the same in all rows"
    if _TIME_NAME.fullmatch(name) and (_mostly_rises(steps) or _is_epoch(known)):
        return "timestamps"
    if _LABEL_NAME.fullmatch(name) and whole and distinct <= _most_classes(len(known)):
        return f"looks like a label: {distinct} classes (for the report: --labels; to train on one of them: --select)"
    return None


def label_notes(names: Sequence[str], X: NDArray[Any]) -> list[str]:
    """A sentence for each column of rows (n, d) that is to be trained on, but has the name and values of a label."""
    found = []
    for i in (i for i, name in enumerate(names) if _LABEL_NAME.fullmatch(name)):
        values = np.unique(X[:, i])
        whole = bool((values == np.trunc(values)).all())
        if len(values) == 2 or (whole and 2 < len(values) <= _most_classes(len(X))):
            found.append(
                f"column '{printable(names[i])}' looks like a label ({len(values)} values), and is trained on as an "
                "input; leave it out, unless a device will know it"
            )
    return found


def note_by_values(name: str, values: NDArray[np.float32]) -> str | None:
    """What to mention of a column that stays: it only rises, as clocks and counters do."""
    if len(values) < 2 * _LEAST_ROWS or values[1] <= values[0] or not (np.diff(values.astype(np.float64)) > 0).all():
        return None
    return f"column '{printable(name)}' only rises, as a clock or a counter does"


def rises_evenly(values: Sequence[float | None]) -> bool:
    """Whether numbers rise in nearly equal steps, as the times of samples do; not by one, as an index does."""
    if len(values) < _LEAST_ROWS or any(value is None for value in values):
        return False
    steps = np.diff(np.array(values, np.float64))
    step = float(np.median(steps))
    return step > 0 and step != 1 and bool((np.abs(steps - step) <= 0.2 * step).mean() > 0.9)


def _most_classes(rows: int) -> int:
    return min(_MOST_CLASSES, rows // 5)


def _is_epoch(values: NDArray[np.float64]) -> bool:
    return len(values) > 0 and any(low <= values.min() and values.max() <= high for low, high, _ in EPOCHS)


def time_columns(names: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns that may tell the time of each row: dates and times, otherwise numbers of such a name."""
    dates = tuple(
        name
        for name, kind in zip(names, kinds)
        if kind == "time" or (kind == "text" and _TIME_NAME.fullmatch(name))  # dates as text, in Parquet
    )
    return dates or tuple(
        name
        for name, kind in zip(names, kinds)
        if kind == "number" and _TIME_NAME.fullmatch(name) and not _VALUE_OF_A_LIST.search(name)
    )


def find_time(
    columns: Mapping[str, Sequence[Any]], decimal: str, starts: Sequence[int] = (0,)
) -> tuple[str | None, bool]:
    """The column that tells the time of each row, None without, and whether it rises from row to row.

    Args:
        columns: cells of `time_columns`, by name. A date and a time of day may rise together.
        decimal: the decimal mark of text.
        starts: where each file begins: times since a start begin again there.
    """
    dated = []
    for name, cells in columns.items():
        if len(cells) < _LEAST_ROWS:
            return None, False
        numbers = _numbers(cells, decimal)
        moments = cells if numbers is None else numbers
        parts = [moments[start:stop] for start, stop in zip(starts, [*starts[1:], len(moments)])]
        since_start = numbers is not None and not _is_epoch(_known(numbers))
        if since_start and not all(_mostly_rises(np.diff(_known(part))) for part in parts):
            continue  # a number that is called like a time
        dated.append(name)
        if all(len(part) < 2 or in_time_order(part) for part in (parts if since_start else [moments])):
            return name, True
    if len(dated) > 1 and in_time_order([" ".join(map(str, cells)) for cells in zip(*(columns[n] for n in dated))]):
        return " ".join(dated), True
    return (dated[0] if dated else None), False


def _known(numbers: Sequence[Any]) -> NDArray[np.float64]:
    values = np.array(numbers, np.float64)
    return values[~np.isnan(values)]


def _mostly_rises(steps: NDArray[np.float64]) -> bool:
    """Whether nearly all steps are up: clocks are set back, and files follow each other."""
    return int((~(steps > 0)).sum()) <= max(1, len(steps) // 100)


def _numbers(cells: Sequence[Any], decimal: str) -> list[float] | None:
    """Cells as numbers, NaN where one is missing; None where they are dates."""
    found = []
    for cell in cells:
        value = number(cell, decimal) if isinstance(cell, str) else math.nan if cell is None else cell
        if not isinstance(value, (int, float)):
            return None
        found.append(float(value))
    return found
