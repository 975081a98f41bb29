"""The pictures in docs/images that show results: drawn again from benchmarks/results, without measuring.

python benchmarks/pictures.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from common import RESULTS
from comparison.drawing import SIZE, WIDTH, Picture
from comparison.pictures import HEADLINES, headline
from comparison.records import Line, Records, write_text

from aeedge_export.reporting.axes import Axis, Box, Labels

IMAGES = Path(__file__).parent.parent / "docs" / "images"
_TOLERANCE = 1.05  # the error of the network that is named in the title, as a multiple of the least


class Network(NamedTuple):
    """A point of a front: microseconds of one sample, and its error as a multiple of the least."""

    name: str
    us: float
    error: float
    int8: bool


def drawn() -> dict[str, str]:
    """Every picture by the name of its file."""
    records = Records.read(RESULTS / "runtimes.jsonl")
    found = json.loads((RESULTS / "search.json").read_text(encoding="utf-8"))
    pictures = {name: headline(records, threads, batch) for name, (threads, batch) in HEADLINES.items()}
    return pictures | {"search.svg": search(found["fronts"]["mnist"]["front"])}


def search(front: Sequence[Line]) -> str:
    """Error against latency of the networks that nothing beats, MNIST.

    Args:
        front: points of a search, see results/search.json.
    """
    least = min(point["loss"] for point in front)
    networks = sorted(
        (
            Network(
                f"{'-'.join(map(str, point['hidden'])) or 'linear'}{' int8' * (point['variant'] == 'int8')}",
                point["latency_us"],
                point["loss"] / least,
                point["variant"] == "int8",
            )
            for point in front
        ),
        key=lambda network: network.us,
    )
    picture = Picture()
    said = search_message(networks)
    picture.paragraph(said, "strong")
    picture.paragraph("error, as a multiple of the least; lower is better")
    _scatter(picture, networks)
    picture.paragraph("Names: hidden units. Dots: fp32; rings: int8. The line: the least error that a latency allows.")
    return picture.svg(said)


def search_message(networks: Sequence[Network]) -> str:
    """What the picture shows, in a sentence."""
    best = min(networks, key=lambda network: network.error)
    chosen = min((n for n in networks if n.error <= _TOLERANCE), key=lambda network: network.us)
    return (
        f"MNIST: the network {chosen.name} takes {chosen.us / best.us:.2f} of the time of {best.name}, "
        f"the most accurate, with {chosen.error - 1:.1%} more error"
    )


def _scatter(picture: Picture, networks: Sequence[Network]) -> None:
    """The points, the staircase of the least error, and names where nothing else is drawn."""
    frame = Box(44, picture.y + 4, WIDTH - 8, picture.y + 330)
    times, errors = [n.us for n in networks], [n.error for n in networks]
    x = Axis(2.0 ** math.floor(math.log2(min(times))), max(times) * 1.2, frame.left, frame.right, log=True)
    y = Axis(0.9, max(errors) * 1.08, frame.bottom, frame.top)
    for tick in y.ticks(9):
        picture.add(_line("grid", frame.left, y.at(tick), frame.right, y.at(tick)))
        picture.write(frame.left - 6, y.at(tick) + 5, f"{tick:g}", "end")
    for tick in x.ticks():
        picture.add(_line("one", x.at(tick), frame.bottom, x.at(tick), frame.bottom + 5))
        picture.write(round(x.at(tick), 1), frame.bottom + 20, f"{tick:g}", "middle")
    picture.add(_line("one", frame.left, frame.bottom, frame.right, frame.bottom))
    places = [(x.at(n.us), y.at(n.error)) for n in networks]
    labels = Labels(frame, SIZE, taken=[Box.of_point(px, py, 6) for px, py in places])
    corners = _staircase([(n.us, n.error) for n in networks])
    drawn = [(places[0][0], frame.top), *((x.at(a), y.at(b)) for a, b in corners), (frame.right, y.at(min(errors)))]
    for (a, b), (c, d) in pairwise(drawn):
        picture.add(_line("line blue", a, b, c, d))
        labels.crossed.append(Box(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1))
    for network, (px, py) in zip(networks, places):
        picture.add(picture.dot(px, py, "orange" if network.int8 else "blue", hollow=network.int8))
        box = labels.place(px, py, network.name)
        if box is not None:
            to_x, to_y = box.nearest(px, py)
            if math.hypot(to_x - px, to_y - py) > 12:
                picture.add(_line("grid", px, py, to_x, to_y))
            picture.write(round((box.left + box.right) / 2, 1), box.top + SIZE, network.name, "middle")
    picture.y = frame.bottom + 44
    picture.write(WIDTH / 2, picture.y - 4, "latency of one sample, µs; lower is better", "middle")
    picture.y += 4


def _staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the least error so far, from the fastest to the slowest."""
    corners = [points[0]]
    for us, error in points[1:]:
        if error < corners[-1][1]:
            corners += [(us, corners[-1][1]), (us, error)]
    return corners


def _line(style: str, x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="{style}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'


if __name__ == "__main__":
    for name, text in drawn().items():
        write_text(IMAGES / name, text)
        print(IMAGES / name)
