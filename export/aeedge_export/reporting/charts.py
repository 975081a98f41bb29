"""The charts of a report: curves, histogram, upright bars and scatter plot, all of one size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from markupsafe import Markup
from numpy.typing import NDArray

from aeedge_export.reporting.axes import Axis, text_width
from aeedge_export.reporting.figure import Figure, Measure, Plain
from aeedge_export.reporting.palette import SERIES, series
from aeedge_export.reporting.wording import number, percent

_WIDTH, _PLOT, _TEXT = 400, 190.0, 13.0  # pixels: of a phone's screen, so that text stays readable there
_LARGE_RATIO = 4.0  # between the largest and the smallest loss: an axis is logarithmic from here on
_DASHES = ("", "7 4", "2 3", "9 3 2 3")  # of curves beyond the number of colours
_SHAPES = 4  # of marks
MOST_CLASSES = _SHAPES * SERIES
"""Classes that can be told apart in a scatter plot."""

Curve = tuple[Sequence[float], Sequence[float]]


def lines(
    curves: Mapping[str, Curve],
    x: Measure,
    y: Measure,
    about: str,
    *,
    marks: Mapping[str, float] | None = None,
    strong: str | None = None,
    named: bool = True,
    whole: bool = False,
    log: bool = False,
) -> Markup:
    """Curves on shared axes.

    Args:
        curves: by name; where a value is not finite there is a gap.
        x, y: what the axes show.
        about: the chart in words.
        marks: places on the curves with a dot, by name.
        strong: the name of a curve that is drawn thicker.
        named: whether names stand beside the ends of the curves.
        whole: whether x has whole numbers alone.
        log: whether the vertical axis may be logarithmic, where values differ by a factor.
    """
    chart = Figure(_WIDTH, max(_PLOT, 1.25 * _TEXT * len(curves)) if named else _PLOT, _TEXT)
    across = [at for xs, _ in curves.values() for at in xs]
    low, high = min(across), max(across)
    high = high if high > low else low + 1
    right = 12 + max(text_width(name, _TEXT) * 1.1 for name in curves) if named else 14
    values = [value for _, ys in curves.values() for value in ys if math.isfinite(value)] or [0.0]
    log = log and min(values) > 0 and max(values) > _LARGE_RATIO * min(values)
    up, y = partial(Axis.around, values, log=log), Plain(f"{y.label}, log scale", y.shown) if log else y
    chart.axes(x, y, partial(Axis, low, high), up, y_ticks=6, whole=whole, right=right)
    ends = {}
    for i, (name, (xs, ys)) in enumerate(curves.items()):
        wide = 3.0 if name == strong else 1.8
        places = [(chart.x.at(at), chart.y.at(value), math.isfinite(value)) for at, value in zip(xs, ys)]
        if len(places) == 1 and places[0][2]:  # one epoch, or solved in closed form: a level
            places = [(edge, places[0][1], True) for edge in (chart.frame.left, chart.frame.right)]
        for part in _stretches(places):
            chart.curve(part, series(i), dash=_DASHES[i // SERIES % len(_DASHES)], width=wide)
            ends[name] = part[-1]
        for at, value in zip(xs, ys):
            if marks is not None and marks.get(name) == at and math.isfinite(value):
                chart.parts.append(mark(0, chart.x.at(at), chart.y.at(value), 4.5, series(i)))
    if named:
        _name_ends(chart, {name: ends[name] for name in curves if name in ends}, list(curves), strong)
    return chart.drawn(about)


def _stretches(places: Sequence[tuple[float, float, bool]]) -> list[list[tuple[float, float]]]:
    """Stretches of finite values; one alone becomes a short line."""
    found: list[list[tuple[float, float]]] = [[]]
    for across, along, finite in places:
        if finite:
            found[-1].append((across, along))
        elif found[-1]:
            found.append([])
    return [part if len(part) > 1 else [part[0], (part[0][0] + 1, part[0][1])] for part in found if part]


def _name_ends(
    chart: Figure, ends: Mapping[str, tuple[float, float]], order: Sequence[str], strong: str | None
) -> None:
    """Names on the right, each as near to the end of its curve as the others let it; a thin line where it is away."""
    tall = 1.2 * _TEXT
    names = sorted(ends, key=lambda name: ends[name][1])
    places = [ends[name][1] for name in names]
    for _ in range(len(places)):  # pushed apart from above, then up from the lower edge
        for i, (one, other) in enumerate(pairwise(places)):
            places[i + 1] = max(other, one + tall)
    for i in reversed(range(len(places))):
        below = chart.frame.bottom if i == len(places) - 1 else places[i + 1] - tall
        places[i] = min(places[i], below)
    for name, at in zip(names, places):
        ink, (x, y) = series(order.index(name)), ends[name]
        if abs(at - y) > 4 or x < chart.frame.right - 4:
            chart.stroke(x + 2, y, chart.frame.right + 5, at, ink, width=0.8, dash="1 2")
        weight = "bold" if name == strong else None
        chart.write(chart.frame.right + 7, at + _TEXT / 3, name, ink=ink, weight=weight)


def histogram(edges: Sequence[float], counts: Sequence[int], *, limit: float | None, x: Measure, y: Measure) -> Markup:
    """Upright bars over a logarithmic axis, and a line at `limit`, which is named."""
    chart = Figure(_WIDTH, _PLOT, _TEXT)
    limit = limit if limit is not None and limit > 0 else None
    values = [*edges] if limit is None else [*edges, limit]
    chart.axes(x, y, partial(Axis.around, values, log=True), partial(Axis, 0, 1.15 * max(*counts, 1)), y_ticks=5)
    for left, right, count in zip(edges, edges[1:], counts):
        if count:
            title = f"{number(left, 3)} to {number(right, 3)}: {count:,}"
            chart.bar(chart.x.at(left) + 0.5, chart.x.at(right), chart.y.at(count), series(0), title)
    if limit is not None:
        at = chart.x.at(limit)
        chart.stroke(at, chart.frame.top, at, chart.frame.bottom, series(1), width=2)
        text = f"threshold {number(limit, 4)}"
        fits = at - text_width(text, _TEXT) - 6 > chart.frame.left
        side, anchor = (-5, "end") if fits and at > _WIDTH / 2 else (5, "start")
        chart.write(at + side, chart.frame.top + _TEXT, text, anchor=anchor, ink=series(1))
    about = f"{y.label} by {x.label}" + ("" if limit is None else f", threshold {number(limit, 4)}")
    return chart.drawn(about)


def columns(values: Sequence[float], dull: Sequence[bool], x: Measure, y: Measure) -> Markup:
    """A bar for each value, numbered from 0; those of `dull` in another colour, with a height that is seen."""
    chart = Figure(_WIDTH, _PLOT, _TEXT)
    most = max([value for value in values if math.isfinite(value)], default=0.0) or 1.0
    across = partial(Axis, -0.6, len(values) - 0.4)
    chart.axes(x, y, across, partial(Axis, 0, 1.05 * most), y_ticks=5, whole=True)
    for i, value in enumerate(values):
        value = value if math.isfinite(value) else 0.0
        top = min(chart.y.at(value), chart.frame.bottom - (3 if dull[i] else 1))
        title = f"{x.label} {i}: {number(value, 4)}"
        chart.bar(chart.x.at(i - 0.4), chart.x.at(i + 0.4), top, series(1 if dull[i] else 0), title)
    return chart.drawn(f"{y.label} by {x.label}, from {number(min(values), 3)} to {number(most, 3)}")


def rates(false_alarms: Sequence[float], detected: Sequence[float], at: tuple[float, float] | None) -> Markup:
    """The detection rate by false-alarm rate, and the threshold's place on it."""
    x = Plain("false-alarm rate", percent)
    y = Plain("detection rate", percent)
    chart = Figure(_WIDTH, _PLOT, _TEXT)
    chart.axes(x, y, partial(Axis, 0, 1), partial(Axis, 0, 1), y_ticks=6, right=30)
    chart.curve(
        [(chart.x.at(one), chart.y.at(other)) for one, other in zip(false_alarms, detected)], series(0), width=2
    )
    if at is not None:
        left, top = chart.x.at(at[0]), chart.y.at(at[1])
        chart.parts.append(mark(0, left, top, 5, series(1)))
        below = top + 1.5 * _TEXT if top < chart.frame.bottom - 2 * _TEXT else top - 0.8 * _TEXT
        anchor, side = ("start", 8) if left < _WIDTH * 0.6 else ("end", -8)
        chart.write(left + side, below, "threshold", anchor=anchor, ink=series(1))
    return chart.drawn("detection rate by false-alarm rate")


def scatter(
    points: NDArray[Any], classes: NDArray[Any] | None, x: Measure, y: Measure, about: str
) -> tuple[Markup, list[tuple[Markup, str]]]:
    """Points (n, 2), with a colour and a shape for each class; and the legend: a mark and a name for each.

    The legend is empty without classes, and with more than MOST_CLASSES of them.
    """
    names = [] if classes is None else sorted(set(classes.tolist()), key=_order)
    if len(names) > MOST_CLASSES or classes is None:
        names = []
    index = {name: i for i, name in enumerate(names)}
    low, high = points.min(axis=0), points.max(axis=0)
    chart = Figure(_WIDTH, 300.0, _TEXT)
    across, up = ([float(low[i]), float(high[i])] for i in (0, 1))
    chart.axes(x, y, partial(Axis.around, across), partial(Axis.around, up), y_ticks=6)
    for i, (left, top) in enumerate(points.tolist()):
        kind = index[classes[i].item()] if names and classes is not None else 0
        chart.parts.append(mark(_shape(kind), chart.x.at(left), chart.y.at(top), 3.6, series(kind)))
    legend = [(_key(i), str(name) or "without label") for i, name in enumerate(names)]
    return chart.drawn(about), legend


def _order(name: Any) -> tuple[bool, float, str]:
    """Numbers by value, then texts."""
    numeric = isinstance(name, (int, float)) and not isinstance(name, bool)
    return not numeric, float(name) if numeric else 0.0, str(name)


def _shape(kind: int) -> int:
    """No two of MOST_CLASSES share both shape and colour."""
    return (kind + kind // SERIES) % _SHAPES


def _key(kind: int) -> Markup:
    """The mark of a class, for a legend."""
    drawn = mark(_shape(kind), 7, 7, 5, series(kind))
    return Markup(f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{drawn}</svg>')


def mark(shape: int, x: float, y: float, r: float, ink: str) -> str:
    """Circle, square, triangle or diamond, with an edge in the card's colour that keeps neighbours apart."""
    style = f'fill="{ink}" stroke="var(--card)" stroke-width="0.8"'
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {style}/>'
    if shape == 1:
        side = 1.8 * r
        return f'<rect x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:g}" height="{side:g}" {style}/>'
    d = 1.25 * r
    corners = ((0, -d), (d, 0.8 * d), (-d, 0.8 * d)) if shape == 2 else ((0, -d), (d, 0), (0, d), (-d, 0))
    points = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in corners)
    return f'<polygon points="{points}" {style}/>'
