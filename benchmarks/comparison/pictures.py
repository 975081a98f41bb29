"""Pictures of a run: the time of each runtime relative to onnxruntime's, over all networks and for each of them."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log
from pathlib import Path

from comparison.drawing import Picture, Row
from comparison.networks import NETWORKS
from comparison.records import Records, write_text

PEER = "onnxruntime"
AXIS = f"time of a call, {PEER} = 1; lower is better"
HEADLINES = {"runtimes.svg": ("one", 1), "runtimes-many.svg": ("all", 1024)}  # one sample, and many on all threads
_THREADS = {"one": "one thread", "all": "all threads"}

Rows = Callable[[Records, str, int], list[Row]]


def headline(records: Records, threads: str, batch: int) -> str:
    """The picture over all networks."""
    networks = records.names("workload")
    picture = Picture()
    about = _panel(picture, over_networks(records, threads, batch), batch, threads)
    picture.paragraph(
        f"Dot: geometric mean over {len(networks)} networks; bar: from the lowest to the highest of them. "
        f"{_ring(records)}"
    )
    return picture.svg(about)


def of_network(records: Records, workload: str) -> str:
    """The picture of one network: its smallest batch on one thread, and its largest on all."""
    batches = records.names("batch")
    picture, said = Picture(), []
    picture.paragraph(f"{workload}: {NETWORKS[workload].title}", "strong")
    for threads, batch in (("one", min(batches)), ("all", max(batches))):
        rows = of_rounds(records, workload, threads, batch)
        if rows:
            picture.y += 10
            said.append(_panel(picture, rows, batch, threads))
    picture.y += 4
    picture.paragraph(f"Dot: median of the rounds; bar: their quartiles. {_ring(records)}")
    return picture.svg(f"{workload}. {' '.join(said)}")


def over_networks(records: Records, threads: str, batch: int) -> list[Row]:
    """Ratios of time, fastest first: of contenders that run all networks."""
    networks = records.names("workload")
    rows = []
    for contender in _contenders(records):
        ratios = [_ratio(records, workload, contender, threads, batch) for workload in networks]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) == len(networks):
            mean = exp(sum(map(log, known)) / len(known))
            rows.append(_row(records, contender, mean, min(known), max(known)))
    return sorted(rows, key=lambda row: row.value)


def of_rounds(records: Records, workload: str, threads: str, batch: int) -> list[Row]:
    """Ratios of time on one network, fastest first, with the quartiles of the rounds."""
    rows = []
    for contender in _contenders(records):
        ratio = _ratio(records, workload, contender, threads, batch)
        if ratio is not None:
            (cell,) = records.of("speed", workload=workload, threads=threads, batch=batch, contender=contender)
            low, high = (ratio * quartile / cell["seconds"] for quartile in cell["quartiles"])
            rows.append(_row(records, contender, ratio, low, high))
    return sorted(rows, key=lambda row: row.value)


def write(records: Records, folder: Path, name: str) -> None:
    """NAME-WORKLOAD.svg for each workload of the run."""
    for workload in records.names("workload"):
        write_text(folder / f"{name}-{workload}.svg", of_network(records, workload))


def write_headlines(records: Records, folder: Path) -> None:
    """The pictures over all networks."""
    for name, (threads, batch) in HEADLINES.items():
        write_text(folder / name, headline(records, threads, batch))


def message(rows: list[Row], batch: int, threads: str) -> str:
    """What a picture shows, in a sentence."""
    fastest, ours = rows[0], next((row for row in rows if row.strong), None)
    what = f"{batch:,} sample{'s' * (batch > 1)} a call, {_THREADS[threads]}"
    if ours is None:
        return f"{what}: {fastest.name} is the fastest, {fastest.value:.2f} of {PEER}'s time"
    if ours is fastest:
        return f"{what}: {ours.name} is the fastest, {ours.value:.2f} of {PEER}'s time"
    return (
        f"{what}: {ours.name} takes {ours.value:.2f} of {PEER}'s time; "
        f"{fastest.name} is the fastest with {fastest.value:.2f}"
    )


def _panel(picture: Picture, rows: list[Row], batch: int, threads: str) -> str:
    said = message(rows, batch, threads)
    picture.paragraph(said, "strong")
    picture.dots(rows, AXIS)
    return f"{said}."


def _contenders(records: Records) -> list[str]:
    """Names of those that run the network itself; PCA is another model."""
    return [name for name in records.names("contender") if not name.endswith("PCA")]


def _ratio(records: Records, workload: str, contender: str, threads: str, batch: int) -> float | None:
    of = {"workload": workload, "threads": threads, "batch": batch}
    ours, peers = records.of("speed", contender=contender, **of), records.of("speed", contender=PEER, **of)
    return ours[0]["seconds"] / peers[0]["seconds"] if ours and peers else None


def _row(records: Records, contender: str, value: float, low: float, high: float) -> Row:
    hollow = _worst(records, contender) >= 1e-3
    return Row(contender, value, low, high, contender.startswith("aeedge"), hollow)


def _worst(records: Records, contender: str) -> float:
    """The largest error of a latent, relative to the largest latent."""
    return max((line["error"] for line in records.of("check", contender=contender)), default=0.0)


def _ring(records: Records) -> str:
    """What a hollow dot means."""
    worst = max((_worst(records, name) for name in _contenders(records)), default=0.0)
    return f"Ring: latents differ from torch's, by up to {worst:.0%}." if worst >= 1e-3 else ""
