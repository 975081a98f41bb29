"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def pairs(rows: Sequence[tuple[str, str]], line: int | None = None) -> str:
    """Names and values in two columns; values that do not fit a line of `line` characters go on below themselves."""
    width = max(len(name) for name, _ in rows)
    if line is not None:
        rows = [(name, _folded(value, width + 2, line)) for name, value in rows]
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _folded(value: str, indent: int, line: int) -> str:
    """Break between words alone: commands and paths may be copied as they stand."""
    from textwrap import wrap

    parts = wrap(value, line - indent, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(parts)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a rule under its head: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("─" * w for w in widths), *map(line, rows)])


def human_bytes(count: int) -> str:
    """A size in B, kB or MB (powers of 1000) with three digits or so."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.{0 if count >= 100 * factor else 1}f} {unit}"
    return f"{count} B"
