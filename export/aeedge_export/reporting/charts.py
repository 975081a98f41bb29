"""Small charts as inline SVG; colours are the page's CSS variables, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 240, 62, 12, 14, 34
_INKS = ("var(--a)", "var(--b)")


def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    mark: float | None = None,
    log: bool = True,
    label: str,
) -> Markup:
    """Up to two curves over `x`; `mark` puts a dot on the last curve there."""
    values = np.array([list(curve) for curve in curves.values()], np.float64)
    log = log and bool((values > 0).all())
    drawn = np.log10(values) if log else values
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    high = high if high > low else low + 1
    first, last = min(x), max(x)

    def place(at: float, value: float) -> tuple[float, float]:
        across = (at - first) / max(last - first, 1e-12)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = []
    for step in range(4):
        value = low + (high - low) * step / 3
        _, y = place(first, value)
        shown = 10**value if log else value
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown:.4g}</text>')
    for index, (name, curve) in enumerate(zip(curves, drawn)):
        points = " ".join("{:.1f},{:.1f}".format(*place(at, value)) for at, value in zip(x, curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_INKS[index]}" stroke-width="1.8"/>')
        left = _LEFT + 12 + 110 * index
        parts.append(f'<rect x="{left}" y="{_HEIGHT - 13}" width="14" height="4" fill="{_INKS[index]}"/>')
        parts.append(f'<text x="{left + 19}" y="{_HEIGHT - 7}">{escape(name)}</text>')
    if mark is not None and mark in x:
        across, y = place(mark, float(drawn[-1][list(x).index(mark)]))
        parts.append(f'<circle cx="{across:.1f}" cy="{y:.1f}" r="4" fill="{_INKS[len(drawn) - 1]}"/>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 20}">{first:g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 20}" text-anchor="end">{last:g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 7}" text-anchor="end">{escape(label)}</text>')
    return _svg(_HEIGHT, parts)


def histogram(edges: Sequence[float], counts: Sequence[int], *, mark: float | None, label: str) -> Markup:
    """Upright bars over a logarithmic axis, and a line at `mark`."""
    low, high = np.log10(edges[0]), np.log10(edges[-1])
    if mark is not None and mark > 0:
        low, high = min(low, np.log10(mark)), max(high, np.log10(mark))
    margin = 0.04 * max(high - low, 1e-6)
    low, high = low - margin, high + margin
    bottom, most = _HEIGHT - _BOTTOM, max(counts)

    def across(value: float) -> float:
        return float(_LEFT + (np.log10(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT))

    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}" stroke="var(--line)"/>']
    for left, right, count in zip(edges, edges[1:], counts):
        tall = (bottom - _TOP - 14) * count / most
        wide = max(across(right) - across(left) - 0.5, 0.5)
        parts.append(
            f'<rect x="{across(left):.1f}" y="{bottom - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" '
            f'fill="var(--a)"><title>{left:.3g} to {right:.3g}: {count}</title></rect>'
        )
    parts.append(f'<text x="{_LEFT - 6}" y="{_TOP + 18}" text-anchor="end">{most}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{bottom + 4}" text-anchor="end">0</text>')
    for value in _ticks(low, high):
        x = across(value)
        anchor = "end" if x > _WIDTH - 40 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="{anchor}">{value:.3g}</text>')
    if mark is not None and mark > 0:
        x = across(mark)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}" stroke="var(--b)" stroke-width="1.8"/>'
        )
        side, anchor = (-5, "end") if x > _WIDTH / 2 else (5, "start")
        parts.append(f'<text x="{x + side:.1f}" y="{_TOP + 10}" text-anchor="{anchor}">threshold {mark:.4g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(label)}</text>')
    return _svg(_HEIGHT, parts)


def _ticks(low: float, high: float) -> list[float]:
    """Round values between 10**low and 10**high, at most six."""
    steps = [m * 10.0**e for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in (1, 2, 5)]
    inside = [value for value in steps if 10**low <= value <= 10**high]
    powers = [value for value in inside if np.isclose(np.log10(value) % 1, 0)]
    found = powers if len(powers) >= 3 else inside
    return found[:: -(-len(found) // 6)] if found else []


def bars(names: Sequence[str], values: Sequence[float], *, upright: bool = False) -> Markup:
    """One bar for each name: horizontal with names beside them, or upright and narrow."""
    most = max([*values, 1e-300])
    parts = []
    if upright:
        step = (_WIDTH - 40) / max(len(values), 1)
        for i, (name, value) in enumerate(zip(names, values)):
            tall = 110 * value / most
            x = 20 + i * step
            parts.append(
                f'<rect x="{x:.1f}" y="{124 - tall:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}" fill="var(--a)">'
                f"<title>{escape(name)}: {value:.4g}</title></rect>"
            )
        parts.append(f'<text x="20" y="142">{escape(names[0])}</text>')
        parts.append(
            f'<text x="{_WIDTH - 20}" y="142" text-anchor="end">{escape(names[-1])}; largest {most:.3g}</text>'
        )
        return _svg(150, parts)
    for i, (name, value) in enumerate(zip(names, values)):
        y, wide = 8 + 18 * i, 400 * value / most
        short = name if len(name) <= 14 else name[:13] + "…"
        parts.append(f'<text x="150" y="{y + 11}" text-anchor="end">{escape(short)}</text>')
        parts.append(f'<rect x="158" y="{y + 1}" width="{wide:.1f}" height="12" fill="var(--a)"/>')
        parts.append(f'<text x="{164 + wide:.1f}" y="{y + 11}">{value:.3g}</text>')
    return _svg(16 + 18 * len(values), parts)


def scatter(points: NDArray[Any], labels: NDArray[Any] | None) -> Markup:
    """Points (n, 2), coloured by label if there are at most 20 of them."""
    low, high = points.min(axis=0), points.max(axis=0)
    size = 420
    at = (points - low) / np.maximum(high - low, 1e-12) * np.array([_WIDTH - 150, size - 30]) + 15
    kinds = [] if labels is None else sorted(set(labels.tolist()), key=str)
    if len(kinds) > 20:
        kinds = []
    colours = {kind: f"hsl({360 * i / len(kinds):.0f} 65% {(45, 60)[i % 2]}%)" for i, kind in enumerate(kinds)}
    parts = []
    for i, (x, y) in enumerate(at):
        ink = colours[labels[i].item()] if kinds and labels is not None else "var(--a)"
        parts.append(f'<circle cx="{x:.1f}" cy="{size - y:.1f}" r="3" fill="{ink}" fill-opacity="0.8"/>')
    for i, kind in enumerate(kinds):
        parts.append(f'<circle cx="{_WIDTH - 100}" cy="{20 + 19 * i}" r="5" fill="{colours[kind]}"/>')
        parts.append(f'<text x="{_WIDTH - 88}" y="{24 + 19 * i}">{escape(str(kind)[:14])}</text>')
    return _svg(size, parts)


def _svg(height: float, parts: Sequence[str]) -> Markup:
    """The parts, whose text is escaped where it is inserted, as one image."""
    return Markup(f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>')
