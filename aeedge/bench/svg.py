"""Small charts as SVG: a histogram with percentiles, lines, ratios. Colours and fonts come from the page's style.

A chart is 400 units wide and its text 13 units high, so that it can be read where a phone shows it 360 pixels wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM = 400, 240, 70, 392, 192
_ABOVE = 44  # height of what is above a plot: names of percentiles
_CHARACTER = 7.4  # width of a character of 13 units, on average
_FEW = 6.0  # a logarithmic axis whose ends differ by less has evenly spaced ticks


class Axis(NamedTuple):
    """Where values are drawn.

    Attributes:
        at: coordinate of a value.
        ticks: round values between the ends.
    """

    at: Callable[[float], float]
    ticks: list[float]


class Line(NamedTuple):
    """Points joined by a line, with the CSS class that colours them."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def bars(
    edges: Sequence[float], counts: Sequence[int], marks: Sequence[tuple[str, float, str]], titles: tuple[str, str]
) -> str:
    """A histogram with logarithmic edges; square-root heights keep small counts visible.

    Args:
        edges: of the bins, ascending, above 0; one more than counts.
        counts: at least one above 0.
        marks: names, values and written values of percentiles, ascending; drawn as lines, their labels do not overlap.
        titles: of both axes, the horizontal one first, with its unit.
    """
    x = log_axis(edges[0], edges[-1], _LEFT, _RIGHT)
    y = _root_axis(max(counts))
    shapes = [
        f'<rect class="bar" x="{x.at(a):.1f}" y="{y.at(c):.1f}" width="{max(x.at(b) - x.at(a) - 0.5, 0.5):.1f}" '
        f'height="{_BOTTOM - y.at(c):.1f}"><title>{a:.4g} to {b:.4g}: {c:,}</title></rect>'
        for a, b, c in zip(edges, edges[1:], counts)
        if c
    ]
    return _chart([*shapes, *_percentiles(x, marks)], x, y, titles)


def lines(drawn: Sequence[Line], titles: tuple[str, str], *, log: bool = False, from_zero: bool = True) -> str:
    """Lines over time, or with `log` on two logarithmic axes. The vertical axis begins at 0 unless values differ a lot.

    Args:
        drawn: at least one line with one point or more; with `log` one whose values are above 0.
        titles: of both axes, the horizontal one first, with their units.
        log: both axes logarithmic.
        from_zero: False for a quantity whose changes matter, as a temperature; the axis spans 5 % of it or more.
    """
    if log:  # a clock that was set back gives times that no logarithm has
        drawn = [line._replace(points=[point for point in line.points if min(point) > 0]) for line in drawn]
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x = (log_axis if log else axis)(min(xs), max(xs), _LEFT + 4, _RIGHT - 4)
    low, high = min(ys), max(ys)
    wide = log or (from_zero and 0 < 10 * low < high)
    if not wide:
        low = min(low, 0.0) if from_zero else min(low, high * 0.95)
    ticks = (_round_decades if wide else _round_steps)(low, high)
    y = Axis((log_axis if wide else axis)(ticks[0], ticks[-1], _BOTTOM, _ABOVE - 14).at, ticks)
    shapes = [shape for line in drawn for shape in _line(line, x, y)]
    return _chart([*shapes, *(_legend(drawn) if len(drawn) > 1 else ())], x, y, titles)


def ratios(found: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """A dot and an interval for each ratio, around a line at 1.

    Args:
        found: name, estimate, low and high end of each.
        title: of the horizontal axis.
    """
    ends = [value for _, *values in found for value in values]
    reach = max(max(ends), 1 / min(ends), 1.05) ** 1.15
    x = log_axis(1 / reach, reach, 12, _RIGHT - 4)
    bottom = 44.0 * len(found) + 8
    parts = [
        f'<line class="grid" x1="{x.at(tick):.1f}" x2="{x.at(tick):.1f}" y1="8" y2="{bottom:.0f}"/>'
        + _text(x.at(tick), bottom + 18, f"{tick:g}", "middle")
        for tick in x.ticks
    ]
    parts.append(f'<line class="mark" x1="{x.at(1):.1f}" x2="{x.at(1):.1f}" y1="8" y2="{bottom:.0f}"/>')
    for row, (name, estimate, low, high) in enumerate(found):
        at = 44.0 * row + 38
        parts.append(_text(12, at - 14, f"{name}: {estimate:.3f}", "start", "name"))
        parts.append(f'<line class="line c1" x1="{x.at(low):.1f}" x2="{x.at(high):.1f}" y1="{at}" y2="{at}"/>')
        parts.append(f'<circle class="dot c1" cx="{x.at(estimate):.1f}" cy="{at}" r="5"/>')
    parts.append(_text(_WIDTH / 2, bottom + 38, title, "middle"))
    return _frame(parts, title, round(bottom + 46))


def axis(low: float, high: float, start: float, end: float) -> Axis:
    """A linear axis."""
    span = (high - low) or 1.0
    return Axis(lambda value: start + (value - low) / span * (end - start), round_values(low, high))


def log_axis(low: float, high: float, start: float, end: float) -> Axis:
    """A logarithmic axis; its ticks are 1, 2 or 5 times powers of ten, of narrow ones evenly spaced round values."""
    a, span = math.log(low), (math.log(high) - math.log(low)) or 1.0
    return Axis(lambda value: start + (math.log(value) - a) / span * (end - start), _log_ticks(low, high))


def round_values(low: float, high: float) -> list[float]:
    """Round values between two others, or the first of them where there is none."""
    slack = 1e-9 * (high - low)
    return [tick for tick in _round_steps(low, high) if low - slack <= tick <= high + slack] or [low]


def spread(centres: Sequence[float], widths: Sequence[float], low: float, high: float) -> list[float]:
    """Centres of labels that do not overlap and stay between two ends, in their order, near to where they belong."""
    found, free = list(centres), low
    for i, width in enumerate(widths):
        found[i] = max(found[i], free + width / 2)
        free = found[i] + width / 2
    free = high
    for i in reversed(range(len(found))):
        found[i] = min(found[i], free - widths[i] / 2)
        free = found[i] - widths[i] / 2
    return found


def label(value: float, most: float = math.inf) -> str:
    """About three digits; k for thousands and M for millions where `most`, the largest value beside it, has six."""
    if most >= 1e5:
        for unit, factor in ((" M", 1e6), (" k", 1e3)):
            if value >= factor:
                return label(float(f"{value / factor:.3g}"), 0) + unit
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _log_ticks(low: float, high: float) -> list[float]:
    """Round values between two others."""
    if high < _FEW * low:
        return round_values(low, high)
    return [tick for tick in _round_decades(low, high, 7) if low * 0.9999 <= tick <= high * 1.0001]


def _round_steps(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, the first not above `low` and the last not below `high`."""
    power = math.floor(math.log10((high - low) or abs(high) or 1.0)) - 1
    for step in (float(f"{factor}e{power + k}") for k in (0, 1, 2) for factor in (1, 2, 5)):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [float(f"{k * step:.12g}") for k in range(first, max(last, first + 1) + 1)]


def _round_decades(low: float, high: float, most: int = 6) -> list[float]:
    """Values 1, 2 or 5 times powers of ten, the first not above `low` and the last not below `high`."""
    powers = range(math.floor(math.log10(low)) - 3, math.ceil(math.log10(high)) + 4)
    for factors, step in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        values = [float(f"{f}e{k}") for k in powers if k % step == 0 for f in factors]
        first = max(i for i, value in enumerate(values) if value <= low * 1.0001)
        last = max(min(i for i, value in enumerate(values) if value >= high * 0.9999), first + 1)
        if last - first < most:
            break
    return values[first : last + 1]


def _whole(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a value of at least 1."""
    return max(factor * 10.0**power for power in range(20) for factor in (1, 2, 5) if factor * 10.0**power <= value)


def _root_axis(largest: int) -> Axis:
    """Square roots of counts; its ticks are whole numbers."""
    scale = (_BOTTOM - _ABOVE) / math.sqrt(largest)
    ticks = {_whole(max(largest * share, 1)) for share in (0.06, 0.35, 1.0)}
    return Axis(lambda count: _BOTTOM - scale * math.sqrt(count), [0.0, *sorted(ticks)])


def _percentiles(x: Axis, marks: Sequence[tuple[str, float, str]]) -> list[str]:
    """Lines at percentiles; their names are spread above, joined to them."""
    widths = [_CHARACTER * max(len(name), len(shown)) + 8 for name, _, shown in marks]
    places = [min(max(x.at(value), _LEFT), _RIGHT) for _, value, _ in marks]
    centres = spread(places, widths, 4, _WIDTH - 4)
    parts = []
    for (name, _, shown), place, centre in zip(marks, places, centres):
        path = f"M{centre:.1f},31L{place:.1f},{_ABOVE - 2}V{_BOTTOM}"
        parts.append(f'<path class="mark" d="{path}"/>')
        parts.append(_text(centre, 12, name, "middle", "name") + _text(centre, 27, shown, "middle", "name"))
    return parts


def _line(line: Line, x: Axis, y: Axis) -> list[str]:
    at = [(x.at(a), y.at(b), a, b) for a, b in line.points]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in at)
    dots = [
        f'<circle class="dot {line.style}" cx="{px:.1f}" cy="{py:.1f}" r="2"><title>{escape(line.name)}, {a:,.4g}: '
        f"{b:,.4g}</title></circle>"
        for px, py, a, b in at
    ]
    return [f'<polyline class="line {line.style}" points="{path}"/>', *dots]


def _legend(drawn: Sequence[Line]) -> list[str]:
    parts, at = [], float(_LEFT)
    for line in drawn:
        parts.append(f'<line class="line {line.style}" x1="{at:.0f}" x2="{at + 18:.0f}" y1="12" y2="12"/>')
        parts.append(_text(at + 24, 16, line.name, "start", "name"))
        at += 24 + _CHARACTER * len(line.name) + 18
    return parts


def _chart(shapes: Sequence[str], x: Axis, y: Axis, titles: tuple[str, str]) -> str:
    """Gridlines and ticks, then shapes, then the titles of the axes."""
    across, along = titles
    grid = [
        f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y.at(tick):.1f}" y2="{y.at(tick):.1f}"/>'
        + _text(_LEFT - 6, y.at(tick) + 4.5, label(tick, y.ticks[-1]), "end")
        for tick in y.ticks
    ]
    ticks = []
    for tick in x.ticks:
        shown = label(tick, x.ticks[-1])
        half = _CHARACTER * len(shown) / 2
        at = min(max(x.at(tick), half), _WIDTH - half)
        ticks.append(
            f'<line class="tick" x1="{x.at(tick):.1f}" x2="{x.at(tick):.1f}" y1="{_BOTTOM}" y2="{_BOTTOM + 4}"/>'
            + _text(at, _BOTTOM + 18, shown, "middle")
        )
    base = f'<line class="tick" x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>'
    middle = (_LEFT + _RIGHT) / 2
    named = [
        _text(middle, _BOTTOM + 39, across, "middle"),
        f'<text class="axis" transform="translate(13,{(_BOTTOM + 30) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(along)}</text>",
    ]
    return _frame([*grid, *shapes, base, *ticks, *named], f"{along}, by {across}")


def _frame(parts: Sequence[str], about: str, height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(about)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "axis") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
