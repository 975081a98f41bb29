"""Axes of charts, and labels beside points that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from unicodedata import east_asian_width

_STEPS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))  # of a logarithmic axis, in each decade
_NARROW, _WIDE = frozenset(" iIjl.,:;|!'-()[]"), frozenset("mwMWQ@%—…")
_ORDER = (0, -2, -4, 4, 2, 8, -6, 6, -1, 1, 7, 9, -3, -5, 3, 5)  # of directions that are tried, in 1/16 of a turn
_DIRECTIONS = [(math.cos(math.pi * i / 8), math.sin(math.pi * i / 8)) for i in _ORDER]
_DISTANCES = (7, 13, 20, 28, 38, 50, 64, 80, 100, 125, 150, 180)  # from a point to its label


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` as pixels from `start` to `stop`.

    Attributes:
        low: value at `start`; above 0 if `log`.
        high: value at `stop`, above `low`.
        start: pixels.
        stop: pixels; below `start` for an axis that points to the left or upwards.
        log: whether equal distances are equal ratios.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], start: float, stop: float, *, log: bool = False) -> Axis:
        """An axis with some room beside the values, and with a length if all are equal; `log` needs values above 0."""
        found = [math.log(value) if log else float(value) for value in values]
        low, high = min(found), max(found)
        least = 0.3 if log else 0.02 * max(abs(low), abs(high)) or 1.0
        room = max(0.06 * (high - low), (least - (high - low)) / 2)
        low, high = low - room, high + room
        return cls(math.exp(low), math.exp(high), start, stop, True) if log else cls(low, high, start, stop)

    def at(self, value: float) -> float:
        """Pixels of a value, also of one outside; values that a logarithm does not have are at `start`."""
        if not self.log:
            share = (value - self.low) / (self.high - self.low)
        else:
            share = math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0
        return self.start + share * (self.stop - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the axis: 1, 2, 5 in each decade where there are at least three of them; at most `most`."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in _STEPS:
                found = [step * 10.0**power for power in decades for step in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3:
                    return _thinned(found, most)
        least = (self.high - self.low) / most
        step = 10.0 ** math.floor(math.log10(least))
        step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= least * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _thinned(values: list[float], most: int) -> list[float]:
    """At most `most` values, the same number of steps apart."""
    return values[:: -(-len(values) // most)]


class Box(NamedTuple):
    """A rectangle in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of_point(cls, x: float, y: float, radius: float) -> Box:
        """The square around a point."""
        return cls(x - radius, y - radius, x + radius, y + radius)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        """Whether all of this is in the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The place in this that is nearest to a point."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def text_width(text: str, size: float) -> float:
    """About how many pixels a text takes in the fonts of screens, rather more than less."""
    return size * sum(
        1.0
        if letter in _WIDE or east_asian_width(letter) in "WF"
        else 0.36
        if letter in _NARROW
        else 0.72
        if letter.isupper()
        else 0.62
        for letter in text
    )


def shortened_name(name: str, most: int) -> str:
    """A name of at most `most` characters: the middle is left out, since both ends tell names apart."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"


@dataclass
class Labels:
    """Places of texts beside points: inside a frame, and on nothing else that is drawn.

    Attributes:
        frame: where labels may be.
        size: of the text, in pixels.
        taken: what no label may touch; labels that were placed are added.
        crossed: what labels should rather not touch.
    """

    frame: Box
    size: float
    taken: list[Box] = field(default_factory=list)
    crossed: list[Box] = field(default_factory=list)

    def place(self, x: float, y: float, text: str, *, bold: bool = False) -> Box | None:
        """The box of a text as near to its point as is free; None if nothing is."""
        best: tuple[float, Box] | None = None
        wide, tall = text_width(text, self.size) * (1.12 if bold else 1), 1.15 * self.size
        for distance in _DISTANCES:
            if best is not None and best[0] <= distance:
                break
            for order, (right, down) in enumerate(_DIRECTIONS):
                across, along = x + right * distance, y + down * distance
                left, top = across - wide * (1 - right) / 2, along - tall * (1 - down) / 2
                left = max(min(left, self.frame.right - wide), self.frame.left)
                box = Box(left, top, left + wide, top + tall)
                if box.inside(self.frame) and self._free(box, x, y):
                    cost = distance + 0.5 * order + 25 * sum(box.overlaps(other) for other in self.crossed)
                    best = min(best or (math.inf, box), (cost, box))
        if best is None:
            return None
        self.taken.append(best[1])
        return best[1]

    def first_free(self, places: Iterable[Box]) -> Box | None:
        """The first of some boxes that is inside the frame and touches nothing that is taken."""
        for box in places:
            if box.inside(self.frame) and not any(box.overlaps(other) for other in self.taken):
                self.taken.append(box)
                return box
        return None

    def _free(self, box: Box, x: float, y: float) -> bool:
        """Whether nothing taken is below the box, nor below the line from it to its point."""
        if any(box.overlaps(other) for other in self.taken):
            return False
        to_x, to_y = box.nearest(x, y)
        steps = int(math.hypot(to_x - x, to_y - y) // 4)  # the first three are on the point itself
        on_line = [Box.of_point(x + (to_x - x) * i / steps, y + (to_y - y) * i / steps, 0.5) for i in range(3, steps)]
        return not any(one.overlaps(other) for one in on_line for other in self.taken)
