"""An inline SVG with two axes; colours are the page's CSS variables, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

from markupsafe import Markup, escape

from aeedge_export.reporting.axes import Axis, Box, text_width
from aeedge_export.reporting.wording import number

Shown = Callable[[float], str]


class Measure(Protocol):
    """What an axis shows."""

    @property
    def label(self) -> str:
        """Its name, with the unit."""

    @property
    def shown(self) -> Shown:
        """A value in words."""


class Plain(NamedTuple):
    """A measure by its name and the form of its values."""

    label: str
    shown: Shown = number


@dataclass
class Figure:
    """An SVG image that grows: axes first, then what is drawn on them.

    Attributes:
        width: of the image in pixels.
        plot: height of what is between the axes.
        size: of the text in pixels.
    """

    width: int
    plot: float
    size: float = 12.0
    parts: list[str] = field(default_factory=list)
    height: float = 0.0

    def axes(
        self,
        x: Measure,
        y: Measure,
        across: Callable[[float, float], Axis],
        up: Callable[[float, float], Axis],
        *,
        x_ticks: Sequence[float] | None = None,
        y_ticks: int = 7,
        whole: bool = False,
        right: float = 14.0,
    ) -> None:
        """Both axes with round ticks and their names.

        Args:
            x, y: names, and how values are shown.
            across, up: the axis from one pixel to another.
            x_ticks: values to choose from; None for round ones.
            y_ticks: at most.
            whole: whether x has whole numbers alone.
            right: pixels that stay free beside the plot.
        """
        top = 2.5 * self.size
        self.y = up(top + self.plot, top)
        ticks = [(value, y.shown(value)) for value in self.y.ticks(y_ticks)]
        left = 18 + max((text_width(text, self.size) for _, text in ticks), default=0.0)
        self.frame = Box(left, top, self.width - right, top + self.plot)
        self.x = across(left, self.frame.right)
        for value, text in ticks:
            at = self.y.at(value)
            self.stroke(left, at, self.frame.right, at, "var(--line)")
            self.write(left - 7, at + self.size / 3, text, anchor="end")
        for value, text in self._spaced(x, x_ticks, whole):
            at = self.x.at(value)
            self.stroke(at, top, at, self.frame.bottom + 4, "var(--line)")
            self.write(at, self.frame.bottom + 1.5 * self.size, text, anchor="middle")
        self.stroke(left, self.frame.bottom, self.frame.right, self.frame.bottom, "var(--soft)")
        self.write(10, 1.6 * self.size, y.label, ink="var(--ink)")
        self.write(self.frame.right, self.frame.bottom + 3 * self.size, x.label, anchor="end", ink="var(--ink)")
        self.height = self.frame.bottom + 3 * self.size + 14

    def _spaced(self, x: Measure, ticks: Sequence[float] | None, whole: bool) -> list[tuple[float, str]]:
        """As many ticks of the horizontal axis as fit, in words."""
        for most in range(9, 0, -1):
            values = self.x.ticks(most) if ticks is None else ticks[:: -(-len(ticks) // most)]
            texts = [(value, x.shown(value)) for value in values if not whole or value == round(value)]
            sized = [(value, text, self.x.at(value), text_width(text, self.size) / 2) for value, text in texts]
            inside = [one for one in sized if one[2] - one[3] >= 0 and one[2] + one[3] < self.width]
            if all(one[2] + one[3] + 8 < other[2] - other[3] for one, other in pairwise(inside)):
                break
        return [(value, text) for value, text, _, _ in inside]

    def stroke(
        self, x: float, y: float, to_x: float, to_y: float, ink: str, *, dash: str = "", width: float = 1
    ) -> None:
        """A straight line between two places."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{ink}" '
            f'stroke-width="{width}"{dashes}/>'
        )

    def curve(self, places: Sequence[tuple[float, float]], ink: str, *, dash: str = "", width: float = 1.8) -> None:
        """A line through places."""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="{width}" '
            f'stroke-linejoin="round"{dashes}/>'
        )

    def bar(self, left: float, right: float, top: float, ink: str, title: str) -> None:
        """A bar that stands on the horizontal axis; `title` shows where a mouse rests."""
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.5):.1f}" '
            f'height="{self.frame.bottom - top:.1f}" fill="{ink}"><title>{escape(title)}</title></rect>'
        )

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        ink: str = "var(--soft)",
        weight: str | None = None,
    ) -> None:
        """A text from, around or before a place; its outline keeps it readable on lines."""
        bold = f' font-weight="{weight}"' if weight else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}"{bold} stroke="var(--card)" '
            f'stroke-width="3" paint-order="stroke" stroke-linejoin="round">{escape(text)}</text>'
        )

    def drawn(self, label: str) -> Markup:
        """The image, which `label` describes; its texts are escaped where they are inserted."""
        return Markup(
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height:.0f}" role="img" aria-label="{escape(label)}" '
            f'font-family="system-ui, sans-serif" font-size="{self.size:g}">{"".join(self.parts)}</svg>'
        )
