"""Small charts as SVG: a histogram, a line over time or over sizes. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 214, 62, 28, 12

Scale = Callable[[float], float]


def bars(edges: Sequence[float], counts: Sequence[int], label: str) -> str:
    """A histogram with logarithmic edges in microseconds; square-root heights keep small counts visible."""
    x = _scale(edges[0], edges[-1], _LEFT, _WIDTH - 8, log=True)
    y = _scale(0, math.sqrt(max(counts)), _HEIGHT - _BOTTOM, _TOP)
    shapes = [
        f'<rect class="bar" x="{x(a):.1f}" y="{y(math.sqrt(c)):.1f}" width="{max(x(b) - x(a) - 0.5, 0.5):.1f}" '
        f'height="{_HEIGHT - _BOTTOM - y(math.sqrt(c)):.1f}"><title>{a:.4g} to {b:.4g} µs: {c:,}</title></rect>'
        for a, b, c in zip(edges, edges[1:], counts)
        if c
    ]
    ticks = sorted({max(_nice(max(counts) * share), 1.0) for share in (0.05, 0.3, 1.0)})
    grid = [_gridline(y(math.sqrt(tick)), _label(tick)) for tick in ticks]
    return _frame([*grid, *shapes, *_axis(x, edges[0], edges[-1])], label)


def line(points: Sequence[tuple[float, float]], label: str, *, log: bool) -> str:
    """A line through points; `log` for logarithmic axes."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x = _scale(min(xs), max(xs), _LEFT + 6, _WIDTH - 12, log=log)
    bottom = min(ys) * 0.8 if log else 0.0
    y = _scale(bottom, max(ys) * 1.15, _HEIGHT - _BOTTOM, _TOP, log=log)
    ticks = _decades(bottom, max(ys) * 1.15) if log else _steps(max(ys) * 1.15)
    grid = [_gridline(y(tick), _label(tick)) for tick in ticks]
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    dots = [
        f'<circle class="dot" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5"><title>{a:,g}: {_label(b)}</title></circle>'
        for a, b in points
    ]
    marks = _axis(x, min(xs), max(xs)) if log else [_tick(x(v), _label(v)) for v in _steps(max(xs)) if v >= min(xs)]
    return _frame([*grid, f'<polyline class="line" points="{path}"/>', *dots, *marks], label)


def _frame(shapes: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'


def _scale(low: float, high: float, start: float, end: float, *, log: bool = False) -> Scale:
    if log:
        low, high = math.log(max(low, 1e-9)), math.log(max(high, 1e-9))
    span = (high - low) or 1.0
    return lambda value: start + ((math.log(max(value, 1e-9)) if log else value) - low) / span * (end - start)


def _axis(x: Scale, low: float, high: float) -> list[str]:
    return [_tick(x(tick), _label(tick)) for tick in _decades(low, high)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between two values; with 2 and 5 times them where there are few."""
    powers = [
        10.0**k for k in range(math.floor(math.log10(max(low, 1e-9))), math.ceil(math.log10(max(high, 1e-9))) + 1)
    ]
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)):
        found = [p * f for p in powers for f in factors if low <= p * f <= high]
        if len(found) >= 3:
            break
    return found[:: max(1, len(found) // 8)] or [low]


def _steps(high: float) -> list[float]:
    step = _nice(high / 3)
    return [step * k for k in range(5) if step * k <= high]


def _nice(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return max(power * factor for factor in (1, 2, 5) if power * factor <= value * 1.000001 or factor == 1)


def _gridline(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _tick(x: float, text: str) -> str:
    anchor = "end" if x > _WIDTH - 30 else "middle"
    return f'<text class="axis" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="{anchor}">{text}</text>'


def _label(value: float) -> str:
    """About three digits, with k for thousands and M for millions."""
    for unit, factor in ((" M", 1e6), (" k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"
