"""SVG pictures for Markdown pages: transparent, readable on white and on black, and on a phone.

Such a picture is embedded by `<img>`, where a browser may follow the system's colours rather than the page's. So each
colour has enough contrast on the ground that it is meant for, and can still be read on the other one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import NamedTuple

WIDTH = 480  # pixels; a phone shows 358 of them
SIZE = 15  # height of the text in pixels
COLOURS = {  # light, dark
    "ink": ("#59636e", "#8b949e"),
    "blue": ("#1468b0", "#4a90d9"),
    "orange": ("#b04a00", "#cf7a35"),
}
_CHARACTER = 0.56 * SIZE  # width on average, a little more than that of common fonts
_LINE = 20
_NAMES, _NUMBERS = 200, 44  # widths of the columns beside a plot of dots
_EDGE = 4


class Row(NamedTuple):
    """One dot.

    Attributes:
        name: beside it.
        value: where it is.
        low, high: ends of its bar.
        strong: drawn in blue and bold.
        hollow: drawn as a ring.
    """

    name: str
    value: float
    low: float
    high: float
    strong: bool = False
    hollow: bool = False


class Picture:
    """An SVG image that grows downwards."""

    def __init__(self) -> None:
        self.y = 0.0
        self._parts: list[str] = []

    def add(self, shape: str) -> None:
        """Append an element."""
        self._parts.append(shape)

    def write(self, x: float, y: float, text: str, anchor: str = "start", style: str = "") -> None:
        """A text whose baseline is at y."""
        self.add(f'<text x="{x:g}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>')

    def paragraph(self, text: str, style: str = "") -> None:
        """Lines of text over the whole width."""
        wide = 1.08 if style == "strong" else 1.0
        for line in wrap(text, int((WIDTH - 2 * _EDGE) / _CHARACTER / wide)):
            self.y += _LINE
            self.write(_EDGE, self.y - 4, line, style=style)
        self.y += 4

    def dots(self, rows: Sequence[Row], axis: str) -> None:
        """A row for each dot on a logarithmic axis, with a line at 1; names at the left, values at the right."""
        left, right = _NAMES + 12.0, WIDTH - _NUMBERS - 12.0
        ticks = octaves(min(row.low for row in rows), max(row.high for row in rows))
        low, span = math.log(ticks[0]), math.log(ticks[-1] / ticks[0])

        def at(value: float) -> float:
            return left + (math.log(value) - low) / span * (right - left)

        top, height = self.y + 6, 24.0
        bottom = top + height * len(rows)
        for tick in ticks:
            line = f'x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
            self.add(f'<line class="{"one" if tick == 1 else "grid"}" {line}/>')
            self.write(round(at(tick), 1), bottom + 18, f"{tick:g}", "middle")
        for i, row in enumerate(rows):
            middle = top + height * (i + 0.5)
            style = "blue" if row.strong else "ink"
            self.write(_NAMES, middle + 5, row.name, "end", "strong" if row.strong else "")
            self.add(
                f'<line class="bar {style}" x1="{at(row.low):.1f}" x2="{at(row.high):.1f}" y1="{middle:.1f}" '
                f'y2="{middle:.1f}"/>'
            )
            self.add(self.dot(at(row.value), middle, style, hollow=row.hollow))
            self.write(WIDTH - _EDGE, middle + 5, f"{row.value:.2f}", "end", "strong" if row.strong else "")
        self.y = bottom + 22
        self.y += _LINE
        self.write(WIDTH / 2, self.y - 4, axis, "middle")
        self.y += 4

    @staticmethod
    def dot(x: float, y: float, style: str, *, hollow: bool) -> str:
        """A dot or a ring."""
        return f'<circle class="{"ring" if hollow else "dot"} {style}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'

    def svg(self, about: str) -> str:
        """The file.

        Args:
            about: what is to be seen, for those who do not see it.
        """
        size = f'width="{WIDTH}" height="{self.y:.0f}" viewBox="0 0 {WIDTH} {self.y:.0f}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(about)}" '
            f'font-family="system-ui, -apple-system, sans-serif" font-size="{SIZE}">{_style()}\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )


def octaves(low: float, high: float) -> list[float]:
    """Powers of 2 around two values and 1; of 4 where there would be more than seven."""
    for step in (1, 2, 3):
        first = math.floor(min(math.log2(low), 0) / step + 1e-9)
        last = math.ceil(max(math.log2(high), 0) / step - 1e-9)
        if last - first < 7:
            break
    return [2.0 ** (step * k) for k in range(first, max(last, first + 1) + 1)]


def _style() -> str:
    modes = [_declarations({name: pair[dark] for name, pair in COLOURS.items()}) for dark in (0, 1)]
    return f"<style>{modes[0]}@media (prefers-color-scheme: dark){{{modes[1]}}}</style>"


def _declarations(colours: dict[str, str]) -> str:
    ink = colours["ink"]
    rules = [f"text{{fill:{ink}}}.strong{{font-weight:bold}}.grid{{stroke:{ink};opacity:.3}}.one{{stroke:{ink}}}"]
    rules += [
        f".dot.{name}{{fill:{colour}}}.ring.{name}{{fill:none;stroke:{colour};stroke-width:2.4}}"
        f".bar.{name}{{stroke:{colour};stroke-width:1.6}}.line.{name}{{stroke:{colour};stroke-width:1.8;fill:none}}"
        for name, colour in colours.items()
    ]
    return "".join(rules)
