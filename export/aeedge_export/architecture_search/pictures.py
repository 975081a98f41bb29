"""Pictures of a search: loss against cost with the front, and loss against the number of latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from aeedge.table import human_bytes
from aeedge_export.architecture_search.budget import human_count, human_time
from aeedge_export.reporting.axes import Axis, Box, Labels, shortened_name, text_width
from aeedge_export.reporting.figure import Figure, Shown
from aeedge_export.reporting.palette import COLOURS

WIDE, NARROW, SMALL = 920, 360, 380  # pixels: of a screen, of a phone, two beside each other
_TEXT, _LINE = 12.0, 17.0  # pixels: size of the text, height of a line
_RADIUS, _PALE_RADIUS, _RING = 5.0, 3.5, 9.0
_LARGE_RATIO = 4.0  # between the largest and the smallest loss: an axis is logarithmic from here on
_FAR = 4.0  # a limit that is so many times beyond all points is named at the edge
_MOST_NAMES = 16  # with more, those that are on the front by other costs have none
_LONGEST = (30, 20, 14)  # characters of a name in a picture, fewer where there is no room
_INKS = {"int8": "var(--c2)"}  # by variant; others have the first colour


class Quantity(NamedTuple):
    """What an axis shows.

    Attributes:
        label: with the unit.
        of: the value of a point; None where it has none.
        shown: a value, for people.
        limit: what is asked for, at most.
        limit_label: beside the line at the limit.
    """

    label: str
    of: Callable[[Mapping[str, Any]], float | None]
    shown: Shown
    limit: float | None = None
    limit_label: str = ""


def loss_of(summary: Mapping[str, Any]) -> Quantity:
    """The loss on the rows of selection: an error as a multiple of the least, where that is above 0."""
    objective, tolerance = summary["objective"], summary["max_error_vs_best"]
    losses = [value for point in summary["points"] if (value := number(point["loss"])) is not None]
    least = min(losses, default=0.0)
    multiples = objective == "error" and least > 0
    unit = least if multiples else 1.0
    limit = None if tolerance is None else least * (1 + tolerance) if objective == "error" else least + tolerance
    labels = {"auc": "1 − ROC AUC", "probe": "rows that the linear probe gets wrong"}
    return Quantity(
        "error, as a multiple of the best" if multiples else labels.get(objective, "error"),
        lambda point: None if (value := number(point["loss"])) is None else value / unit,
        "{:.4g}×".format if multiples else _percent if objective == "probe" else "{:.4g}".format,
        None if limit is None else limit / unit,
        f"{tolerance_shown(summary)} above the best",
    )


def tolerance_shown(summary: Mapping[str, Any]) -> str:
    """How much worse than the best a network may be, for people: a share of an error, or a difference."""
    tolerance = summary["max_error_vs_best"]
    if tolerance is None:
        return ""
    return f"{tolerance:.3g}" if summary["objective"] == "auc" else f"{100 * tolerance:.3g} %"


def time_of(summary: Mapping[str, Any]) -> Quantity:
    """The latency of a call; or the time of a sample in calls of many, where a rate is asked for."""
    budget = summary["budget"]
    if budget["rate"] is not None:
        at, limit = summary["measured"]["rate_at"], 1e6 / budget["rate"]
        label = f"time of a sample in calls of {at:,}, logarithmic"
        asked = f"budget {human_count(budget['rate'])}/s"
        return Quantity(label, lambda point: _inverse(number(point["rate"])), human_time, limit, asked)
    at, limit = summary["measured"]["latency_at"], budget["latency_us"]
    label = f"latency of {'one sample' if at == 1 else f'a call of {at:,} samples'}, logarithmic"
    asked = "" if limit is None else f"budget {human_time(limit)}"
    return Quantity(label, lambda point: number(point["latency_us"]), human_time, limit, asked)


def other_costs(summary: Mapping[str, Any]) -> list[Quantity]:
    """The size of a bundle, memory and multiply-adds: what differs or is limited."""
    kinds: dict[str, tuple[str, Shown]] = {
        "size": ("size of the bundle, logarithmic", lambda value: human_bytes(round(value))),
        "memory": ("memory beside onnxruntime's, logarithmic", lambda value: human_bytes(round(value))),
        "macs": ("multiply-adds of encoding a sample, logarithmic", human_count),
    }
    found = []
    for key, (label, shown) in kinds.items():
        limit = summary["budget"][key]
        values = [value for point in summary["points"] if (value := number(point[key])) is not None and value > 0]
        differs = bool(values) and max(values) > 1.05 * min(values) and key != "macs"
        if values and (limit is not None or differs):
            asked = "" if limit is None else f"budget {shown(limit)}"
            found.append(Quantity(label, lambda point, key=key: number(point[key]), shown, limit, asked))  # type: ignore[misc]
    return found


def front(summary: Mapping[str, Any], cost: Quantity, width: int = WIDE, *, all_names: bool = True) -> Markup:
    """Loss against a cost: every point, those of the front with their names, and what was asked for.

    Args:
        summary: of a search.
        cost: on the horizontal axis.
        width: of the picture in pixels.
        all_names: of the front, or of its points on the line where there are many; otherwise of the best one and PCA.
    """
    loss = loss_of(summary)
    placed = _placed(summary, cost, loss)
    if not placed:
        return Markup("")
    crowd = sum(one.on_front for one in placed) if all_names else 0
    chart = _Chart(width, 320 + 12 * min(max(crowd - 4, 0), 20) if all_names else 250)
    tolerated = [loss.limit] if loss.limit is not None and loss.limit < 3 * max(one.loss for one in placed) else []
    costs, losses = [one.cost for one in placed], [one.loss for one in placed] + tolerated
    if cost.limit is not None and min(costs) / _FAR <= cost.limit <= max(costs) * _FAR:
        costs.append(cost.limit)
    chart.scaled(cost, costs, loss, losses, x_log=True)
    if all_names:
        chart.draw_legend(_legend(placed))
    if cost.limit is not None:
        chart.forbid(cost.limit)
    for limit in tolerated:
        chart.level(limit)
    chart.line(_staircase(placed, chart.x.high, chart.y.high))
    for one in sorted(placed, key=lambda one: (one.on_front, one.kind == "pca", one.best)):
        chart.mark(one)
    named = [one for one in placed if one.best or one.kind == "pca" or (all_names and one.on_front)]
    if len(named) > _MOST_NAMES:
        corners = set(_staircase(placed, 0.0, math.inf))
        named = [one for one in named if one.best or one.kind == "pca" or (one.cost, one.loss) in corners]
    if cost.limit is not None:
        chart.name_limit(cost.limit, cost.limit_label)
    _name(chart, _most_telling_first(named), tolerated, loss.limit_label)
    return chart.drawn(f"{loss.label}, against {cost.label}; {len(placed)} points")


def by_latents(curve: Sequence[Mapping[str, Any]], key: str, smallest: int | None, tolerance: float | None) -> Markup:
    """Error ("error") or accuracy of the linear probe ("probe") against the number of latents."""
    found = [(int(one["latent"]), value) for one in curve if (value := number(one.get(key))) is not None]
    if not found:
        return Markup("")
    found.sort()
    least = min(value for _, value in found)
    multiples = key == "error" and least > 0
    values = [value / least if multiples else value for _, value in found]
    what = Quantity(
        {"probe": "accuracy of the linear probe"}.get(
            key, "error, as a multiple of the least" if multiples else "error"
        ),
        lambda point: point["loss"],
        "{:.4g}×".format if multiples else _percent if key == "probe" else "{:.4g}".format,
        1 + tolerance if multiples and tolerance is not None else None,
        "" if tolerance is None else f"{100 * tolerance:.3g} % above the least",
    )
    latents = [float(latent) for latent, _ in found]
    chart = _Chart(SMALL, 250)
    x = Quantity("latents", lambda point: point["cost"], lambda value: f"{value:g}")
    tolerated = [what.limit] if what.limit is not None and what.limit < 3 * max(values) else []
    chart.scaled(x, latents, what, values + tolerated, x_log=max(latents) >= 8 * min(latents), x_ticks=latents)
    for limit in tolerated:
        chart.level(limit)
    chart.line(list(zip(latents, values)))
    points = [
        _Placed(
            f"{at:g} latents", at, value, "fp32", True, True, at == smallest, f"{at:g} latents: {what.shown(value)}"
        )
        for at, value in zip(latents, values)
    ]
    for one in points:
        chart.mark(one)
    _name(chart, [one for one in points if one.best], tolerated, what.limit_label)
    return chart.drawn(f"{what.label}, against the number of latents")


def sentence(text: str) -> Markup:
    """A picture of a text alone."""
    chart = _Chart(max(WIDE, round(text_width(text, _TEXT)) + 40), 0)
    chart.write(20, 30, text, ink="var(--ink)")
    chart.height = 50
    return chart.drawn(text)


def as_file(picture: Markup) -> str:
    """A picture as an SVG file: with colours of its own, dark where the viewer prefers that, and a background."""
    text = str(picture)
    for name, (light, _) in COLOURS.items():
        text = text.replace(f'="var(--{name})"', f'="{light}"')
    dark = "".join(
        f'[{attribute}="{light}"]{{{attribute}:{dark}}}'
        for light, dark in COLOURS.values()
        for attribute in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>"
    background = f'<rect width="100%" height="100%" rx="6" fill="{COLOURS["card"][0]}"/>'
    head, body = text.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{background}{body}\n'


def number(value: Any) -> float | None:
    """A finite number, or None for what is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _inverse(rate: float | None) -> float | None:
    return 1e6 / rate if rate else None


class _Placed(NamedTuple):
    """A point of a picture."""

    name: str
    cost: float
    loss: float
    kind: str  # fp32, int8, pca
    on_front: bool
    meets: bool
    best: bool
    about: str  # where a mouse rests


def _placed(summary: Mapping[str, Any], cost: Quantity, loss: Quantity) -> list[_Placed]:
    """The points that have both a loss and a cost; PCA beside them."""
    found = []
    points, reference = summary["points"], summary["reference"]
    alone = reference is not None and all(point["name"] != reference["name"] for point in points)
    for point in [*points, reference] if alone else points:
        across, along, name = cost.of(point), loss.of(point), point["name"]
        if across is None or across <= 0 or along is None:
            continue
        is_pca = reference is not None and name == reference["name"]
        flags = point["on_front"] and point is not reference, point["meets"], name == summary["best"]
        about = f"{name}: {loss.shown(along)}, {cost.shown(across)}"
        found.append(
            _Placed(
                f"PCA ({name})" if is_pca else name, across, along, "pca" if is_pca else point["variant"], *flags, about
            )
        )
    return found


def _staircase(points: Iterable[_Placed], right: float, top: float) -> list[tuple[float, float]]:
    """Corners of the least loss that a cost allows, from the top to the right edge."""
    corners: list[tuple[float, float]] = []
    least = top
    for one in sorted(points, key=lambda one: (one.cost, one.loss)):
        if one.loss < least or not corners:
            corners += [(one.cost, least), (one.cost, one.loss)]
            least = one.loss
    return [*corners, (right, least)]


def _most_telling_first(points: Sequence[_Placed]) -> list[_Placed]:
    """The best one, PCA, the corners of the line, and the others from left to right."""
    order = sorted(points, key=lambda one: (one.cost, one.loss))
    corners = set(_staircase(points, 0.0, math.inf))
    return sorted(order, key=lambda one: (not one.best, one.kind != "pca", (one.cost, one.loss) not in corners))


def _name(chart: _Chart, points: Sequence[_Placed], levels: Sequence[float], level_label: str) -> None:
    """Names of points and of horizontal lines: the first point has the choice of places."""
    for one in points[:1]:
        chart.name(one)
    for level in levels:
        chart.name_level(level, level_label)
    for one in points[1:]:
        chart.name(one)


def _legend(points: Sequence[_Placed]) -> list[tuple[_Placed, str]]:
    """Samples of the marks that are in a picture, and what they mean."""
    sample = _Placed("", 0, 0, "fp32", True, True, False, "")
    kinds = [kind for kind in ("fp32", "int8") if any(one.kind == kind for one in points)]
    found = [(sample._replace(kind=kind), kind) for kind in kinds]
    if any(one.best for one in points):
        found.append((sample._replace(kind=next(one.kind for one in points if one.best), best=True), "best"))
    if any(one.kind == "pca" for one in points):
        found.append((sample._replace(kind="pca"), "PCA"))
    if any(not one.on_front and one.kind != "pca" for one in points):
        found.append((sample._replace(on_front=False), "not on the front"))
    if any(one.on_front and not one.meets for one in points):
        found.append((sample._replace(meets=False), "does not meet what was asked for"))
    return found


@dataclass
class _Chart(Figure):
    """A figure with marks, whose names and those of lines are put where nothing else is drawn."""

    def scaled(
        self,
        x: Quantity,
        xs: Sequence[float],
        y: Quantity,
        ys: Sequence[float],
        *,
        x_log: bool,
        x_ticks: Sequence[float] | None = None,
    ) -> None:
        """Both axes, with room around the values."""
        y_log = min(ys) > 0 and max(ys) > _LARGE_RATIO * min(ys)
        across, up = partial(Axis.around, xs, log=x_log), partial(Axis.around, ys, log=y_log)
        self.axes(x, y, across, up, x_ticks=x_ticks)
        self.labels = Labels(self.frame, _TEXT)

    def draw_legend(self, legend: Sequence[tuple[_Placed, str]]) -> None:
        """What the marks mean, below the axes."""
        left, y = self.frame.left + 6, self.frame.bottom + 36 + (_LINE + 6 if legend else 0)
        for sample, text in legend:
            wide = 22 + text_width(text, _TEXT)
            if left + wide > self.width - 10 and left > self.frame.left + 6:
                left, y = self.frame.left + 6, y + _LINE + 3
            self._draw_mark(sample, left, y - 4)
            self.write(left + 14, y, text)
            left += wide + 8
        self.height = y + 14

    def line(self, corners: Sequence[tuple[float, float]]) -> None:
        """A line through places, which labels rather avoid."""
        places = [(self.x.at(x), self.y.at(y)) for x, y in corners]
        self.curve(places, "var(--c1)", width=1.6)
        for (x, y), (to_x, to_y) in pairwise(places):
            steps = 1 if x == to_x or y == to_y else 12
            for i in range(steps):
                ends = [(x + (to_x - x) * part / steps, y + (to_y - y) * part / steps) for part in (i, i + 1)]
                (a, b), (c, d) = ends
                self.labels.crossed.append(Box(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1))

    def level(self, value: float) -> None:
        """A dotted horizontal line."""
        y = self.y.at(value)
        self.stroke(self.frame.left, y, self.frame.right, y, "var(--soft)", dash="2 4", width=1.4)

    def name_level(self, value: float, label: str) -> None:
        """The name of a horizontal line, above or below it, as far to the left as is free: fronts begin high there."""
        y, wide, tall = self.y.at(value), text_width(label, _TEXT), 1.15 * _TEXT
        places = [
            Box(left, top, left + wide, top + tall)
            for left in range(round(self.frame.left) + 6, round(self.frame.right - wide), 10)
            for top in (y - tall - 2, y + 2)
        ]
        box = self.labels.first_free(places)
        if box is not None:
            self.write(box.left, box.top + 0.85 * _TEXT + 1, label)

    def forbid(self, limit: float) -> None:
        """What is right of a limit is shaded."""
        x = max(self.x.at(limit), self.frame.left)
        if x < self.frame.right:
            self.parts.append(
                f'<rect x="{x:.1f}" y="{self.frame.top}" width="{self.frame.right - x:.1f}" '
                f'height="{self.plot:.1f}" fill="var(--ink)" fill-opacity="0.08"/>'
            )
        if self.x.low <= limit <= self.x.high:
            self.stroke(x, self.frame.top, x, self.frame.bottom, "var(--ink)", dash="6 4", width=1.5)
            self.labels.crossed.append(Box(x - 1, self.frame.top, x + 1, self.frame.bottom))

    def name_limit(self, limit: float, label: str) -> None:
        """The name of a limit on one of its sides, as high as is free; at the edge where it is beyond."""
        x = min(max(self.x.at(limit), self.frame.left), self.frame.right)
        label = f"← {label}" if limit < self.x.low else f"{label} →" if limit > self.x.high else label
        wide, tall = text_width(label, _TEXT), 1.15 * _TEXT
        places = [
            Box(left, top, left + wide, top + tall)
            for top in range(round(self.frame.top) + 3, round(self.frame.bottom), 10)
            for left in (x - wide - 6, x + 6)
        ]
        clear = [box for box in places if not any(box.overlaps(other) for other in self.labels.crossed)]
        box = self.labels.first_free([*clear, *places])
        if box is not None:
            self.write(box.left, box.top + 0.85 * _TEXT + 1, label, ink="var(--ink)")

    def mark(self, one: _Placed) -> None:
        """A point; its name comes later."""
        x, y = self.x.at(one.cost), self.y.at(one.loss)
        self.parts.append("<g>")
        self._draw_mark(one, x, y)
        self.parts.append(f"<title>{escape(one.about)}</title></g>")
        if one.on_front or one.kind == "pca":
            self.labels.taken.append(Box.of_point(x, y, _RING if one.best else _RADIUS))
        else:
            self.labels.crossed.append(Box.of_point(x, y, _PALE_RADIUS))

    def name(self, one: _Placed) -> None:
        """The name of a point beside it, where there is room."""
        x, y = self.x.at(one.cost), self.y.at(one.loss)
        for longest in _LONGEST:
            text = shortened_name(one.name, longest)
            box = self.labels.place(x, y, text, bold=one.best)
            if box is not None:
                break
        else:
            return
        to_x, to_y = box.nearest(x, y)
        away = math.hypot(to_x - x, to_y - y)
        if away > _RING + 6:
            start = (_RING if one.best else _RADIUS) / away
            self.stroke(x + (to_x - x) * start, y + (to_y - y) * start, to_x, to_y, "var(--soft)", width=0.8)
        self.write(
            (box.left + box.right) / 2,
            box.top + 0.85 * _TEXT + 1,
            text,
            anchor="middle",
            ink="var(--ink)" if one.on_front else "var(--soft)",
            weight="bold" if one.best else None,
        )

    def _draw_mark(self, one: _Placed, x: float, y: float) -> None:
        """fp32 as a circle, int8 as a diamond, PCA as a cross; hollow where it does not meet what was asked for."""
        ink = "var(--soft)" if one.kind == "pca" else _INKS.get(one.kind, "var(--c1)")
        r = _RADIUS if one.on_front or one.kind == "pca" else _PALE_RADIUS
        filled = f'fill="{ink}"' if one.meets or not one.on_front else 'fill="var(--card)"'
        style = f'{filled} stroke="{ink}" stroke-width="1.8"'
        if not one.on_front:
            style = f'fill="{ink}" fill-opacity="0.45"'
        if one.kind == "pca":
            cross = f"M{x - r:.1f},{y - r:.1f}l{2 * r},{2 * r}m0,{-2 * r}l{-2 * r},{2 * r}"
            self.parts.append(f'<path d="{cross}" fill="none" stroke="{ink}" stroke-width="2.4"/>')
        elif one.kind == "int8":
            d = 1.3 * r
            diamond = f"M{x:.1f},{y - d:.1f}l{d:.1f},{d:.1f}l{-d:.1f},{d:.1f}l{-d:.1f},{-d:.1f}z"
            self.parts.append(f'<path d="{diamond}" {style}/>')
        else:
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {style}/>')
        if one.best:
            self.parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RING}" fill="none" stroke="var(--ink)" stroke-width="2"/>'
            )
