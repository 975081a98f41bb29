"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from aeedge.errors import printable


def pairs(rows: Sequence[tuple[str, str]], line: int | None = None) -> str:
    """Names and values in two columns; with `line`, values are wrapped to lines of that many characters."""
    rows = [(printable(name, None), printable(value, None)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    if line is not None:
        rows = [(name, _wrapped(value, width + 2, line)) for name, value in rows]
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _wrapped(value: str, indent: int, line: int) -> str:
    """Break between words alone, so that commands and paths can be copied."""
    from textwrap import wrap

    parts = wrap(value, line - indent, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(parts)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a rule under its head: the first column left-aligned, the others right-aligned."""
    head, rows = [printable(cell, None) for cell in head], [[printable(cell, None) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("─" * w for w in widths), *map(line, rows)])


def human_bytes(count: int) -> str:
    """A size in B, kB or MB (powers of 1000) with about three digits."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.{0 if count >= 100 * factor else 1}f} {unit}"
    return f"{count} B"


def human_duration(seconds: float) -> str:
    """A time in two units: "4.2 s", "2 min 10 s", "3 h 20 min", "2.5 days"."""
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes >= 48 * 60:
        return f"{minutes / 1440:.1f} days"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def percent_of(error: float, tolerance: float) -> str:
    """An error as a share of its tolerance, which is above 0 where there is an error: "0.51 %"."""
    return f"{100 * error / tolerance if error else 0:.2g} %"
