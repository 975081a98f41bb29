"""Univariate series with labelled anomalies, in kind like those of servers, roads, machines and social media.

    python benchmarks/synthetic_streams.py FOLDER [--split development|test]

writes one CSV (timestamp, value) per series and windows.json below FOLDER. The two splits differ by their seeds.
Windows are laid as the Numenta Anomaly Benchmark lays them: a tenth of the rows, divided by the number of anomalies,
around each. Beside anomalies there are oddities that are not labelled: spikes, bursts, gaps, drifts, new levels.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Series = tuple[NDArray[np.float64], list[int], float]  # values, rows of the anomalies' onsets, seconds from row to row
SEEDS = {"development": 1_000, "test": 9_000}
COPIES = 3  # of each kind
PROBATION = 0.15


def onsets(rng: Rng, rows: int, count: int, first: float = 0.22) -> list[int]:
    """Rows of `count` anomalies that are well apart."""
    edges = np.linspace(first, 0.97, count + 1)
    return [int(rows * rng.uniform(low, low + 0.8 * (high - low))) for low, high in itertools.pairwise(edges)]


def red_noise(rng: Rng, rows: int, memory: float) -> NDArray[np.float64]:
    """An autoregressive process of order 1 with variance 1 whose correlation falls to 1/e within `memory` rows."""
    keep = np.exp(-1 / memory)
    steps = rng.normal(size=rows) * np.sqrt(1 - keep**2)
    level, found = rng.normal(), np.empty(rows)
    for row, step in enumerate(steps):
        level = keep * level + step
        found[row] = level
    return found


def day(rows: int, seconds: float, phase: float = 0.0, sharpness: float = 1.0) -> NDArray[np.float64]:
    """A daily cycle from 0 to 1."""
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (np.arange(rows) * seconds / 86_400 + phase))
    return wave**sharpness


def weekend(rows: int, seconds: float, first: int) -> NDArray[np.bool_]:
    """Whether a row is on a Saturday or Sunday, where the series begins on weekday `first`."""
    days = (np.arange(rows) * seconds / 86_400 + first) % 7
    return days >= 5


def idle_cpu(rng: Rng) -> Series:
    """A CPU at rest: quantised noise, few small spikes; then a spike, a new level, or work without end."""
    rows = 4_032
    low = rng.uniform(0.05, 3)
    values = low + 0.03 * low * np.round(rng.normal(size=rows)) + 0.02 * low * red_noise(rng, rows, 200)
    quiet = rng.random(rows) < rng.uniform(0.0005, 0.01)
    values[quiet] += low * rng.uniform(0.2, 4.0, quiet.sum())
    found = onsets(rng, rows, int(rng.integers(1, 3)))
    for at in found:
        match rng.integers(3):
            case 0:
                values[at : at + int(rng.integers(1, 4))] += low * rng.uniform(2, 20)
            case 1:
                values[at:] += low * rng.uniform(0.3, 3)
            case _:
                values[at : at + int(rng.integers(20, 200))] *= rng.uniform(1.5, 6)
    return values, found, 300


def busy_cpu(rng: Rng) -> Series:
    """A CPU at work: wandering level, saws or cron jobs; then drops to nothing, saturation, other levels."""
    rows = 4_032
    level = rng.uniform(25, 60)
    values = level + rng.uniform(1, 4) * rng.normal(size=rows) + rng.uniform(1, 8) * red_noise(rng, rows, 100)
    match rng.integers(3):
        case 0:
            values += rng.uniform(5, 20) * (np.arange(rows) % rng.integers(30, 300)) / 300
        case 1:
            values[:: int(rng.integers(12, 100))] += rng.uniform(10, 35)
    odd = rng.random(rows) < 0.002
    values[odd] += rng.normal(0, 12, odd.sum())
    found = onsets(rng, rows, int(rng.integers(1, 4)))
    for at in found:
        length = int(rng.integers(3, 250))
        match rng.integers(3):
            case 0:
                values[at : at + length] *= rng.uniform(0.0, 0.4)
            case 1:
                values[at : at + length] = 99 - np.abs(rng.normal(0, 1, len(values[at : at + length])))
            case _:
                values[at:] += rng.choice([-1, 1]) * rng.uniform(0.3, 0.6) * level
    return np.clip(values, 0, 100), found, 300


def network(rng: Rng) -> Series:
    """Bytes of a network: heavy-tailed, with regular transfers; then far more, for longer, or none."""
    rows = int(rng.choice([4_032, 4_730]))
    base = 10 ** rng.uniform(4, 6)
    values = base * rng.lognormal(0, rng.uniform(0.1, 0.7), rows)
    every = int(rng.integers(12, 289))
    values[::every] *= rng.uniform(2, 10)
    burst = rng.random(rows) < 0.003
    values[burst] *= rng.lognormal(1.5, 0.5, burst.sum())
    found = onsets(rng, rows, int(rng.integers(1, 3)))
    for at in found:
        length = int(rng.integers(1, 60))
        values[at : at + length] *= rng.uniform(8, 60) if rng.random() < 0.7 else rng.uniform(0, 0.05)
    return values, found, 300


def disk(rng: Rng) -> Series:
    """Bytes written: none, with bursts; then bursts that are larger or closer."""
    rows = 4_032
    values = np.zeros(rows)
    burst = rng.random(rows) < rng.uniform(0.005, 0.06)
    size = 10 ** rng.uniform(6, 8)
    values[burst] = size * rng.lognormal(0, 0.6, burst.sum())
    found = onsets(rng, rows, int(rng.integers(1, 3)))
    for at in found:
        if rng.random() < 0.6:
            values[at : at + int(rng.integers(1, 5))] = size * rng.uniform(6, 30)
        else:
            dense = at + np.flatnonzero(rng.random(120) < 0.6)
            dense = dense[dense < rows]
            values[dense] = size * rng.lognormal(0, 0.6, len(dense))
    return values, found, 300


def advertising(rng: Rng) -> Series:
    """Costs of advertisements by the hour: noisy, a faint daily cycle; then peaks of some hours."""
    rows = int(rng.integers(1_530, 1_650))
    base = rng.uniform(0.05, 1)
    cycle = 1 + rng.uniform(0.1, 1) * day(rows, 3_600, rng.random())
    values = base * cycle * rng.lognormal(0, rng.uniform(0.1, 0.4), rows)
    values *= np.exp(0.2 * red_noise(rng, rows, 150))
    odd = rng.random(rows) < 0.005
    values[odd] *= rng.uniform(1.5, 4, odd.sum())
    found = onsets(rng, rows, int(rng.integers(1, 4)))
    for at in found:
        values[at : at + int(rng.integers(1, 8))] *= rng.uniform(1.7, 6)
    return values, found, 3_600


def demand(rng: Rng) -> Series:
    """Passengers by the half hour: day and week; then holidays, a storm, an event in the night."""
    rows = 10_320
    first = int(rng.integers(7))
    shape = 0.15 + 0.85 * day(rows, 1_800, 0.6, 0.8) + 0.25 * day(rows, 900, 0.2)
    shape *= np.where(weekend(rows, 1_800, first), rng.uniform(0.7, 1.1), 1.0)
    values = 15_000 * shape * (1 + 0.04 * rng.normal(size=rows) + 0.08 * red_noise(rng, rows, 48 * 6))
    found = onsets(rng, rows, 5)
    for at in found:
        factor = rng.choice([0.25, 0.5, 0.6, 1.5, 1.8])
        values[at : at + int(rng.integers(6, 60))] *= factor
    return np.maximum(values, 0), found, 1_800


def temperature(rng: Rng) -> Series:
    """Degrees: slow drifts, a daily cycle, set points that are changed; then drops and failures."""
    hourly = rng.random() < 0.5
    rows, seconds = (7_267, 3_600) if hourly else (int(rng.integers(14_000, 22_696)), 300)
    spread = rng.uniform(2, 6)
    values = 70 + spread * red_noise(rng, rows, rows / 25) + 0.5 * red_noise(rng, rows, 8)
    values += rng.uniform(0.2, 1.5) * day(rows, seconds) + 0.2 * rng.normal(size=rows)
    found = onsets(rng, rows, int(rng.integers(2, 5)))
    for at in found:
        length = int(rng.integers(20, 300))
        depth = spread * rng.uniform(2.5, 8)
        course = np.minimum(np.arange(length) / rng.uniform(1, 60), 1) * np.linspace(1, 0.3, length)
        stop = min(rows, at + length)
        values[at:stop] -= depth * course[: stop - at]
    return values, found, seconds


def latency(rng: Rng) -> Series:
    """Milliseconds of a service: narrow noise, few spikes; then large spikes and a slow failure."""
    rows = 4_032
    values = 45 + 2 * rng.normal(size=rows) + rng.uniform(0, 2) * red_noise(rng, rows, 300)
    odd = rng.random(rows) < 0.002
    values[odd] += rng.uniform(5, 30, odd.sum())
    found = onsets(rng, rows, int(rng.integers(2, 4)))
    for at in found:
        length = int(rng.integers(1, 30))
        values[at : at + length] += rng.choice([-15, 25, 45]) * rng.uniform(0.8, 1.3)
    return values, found, 300


def keystrokes(rng: Rng) -> Series:
    """Times of a user: no order, skewed; then another user's."""
    rows = int(rng.choice([1_882, 5_315]))
    values = 0.08 * rng.lognormal(0, 0.35, rows)
    odd = rng.random(rows) < 0.004
    values[odd] *= rng.uniform(2, 5, odd.sum())
    found = onsets(rng, rows, int(rng.integers(1, 3)))
    for at in found:
        length = int(rng.integers(40, 200))
        part = values[at : at + length]
        values[at : at + length] = part * rng.uniform(1.6, 2.5) if rng.random() < 0.5 else part * rng.uniform(0.2, 0.5)
    return values, found, float(rng.choice([300, 3_600]))


def scaling_group(rng: Rng) -> Series:
    """CPU of a group of servers: a clean daily cycle for two months; then it no longer scales."""
    rows = 18_050
    values = 25 + 25 * day(rows, 300, rng.random(), 0.8) * (1 + 0.1 * red_noise(rng, rows, 600))
    values += rng.uniform(1, 4) * rng.normal(size=rows)
    odd = rng.random(rows) < 0.0008
    values[odd] += rng.uniform(10, 30, odd.sum())
    at = int(rows * rng.uniform(0.5, 0.9))
    values[at : at + int(rng.integers(300, 1_500))] += rng.uniform(25, 60)
    return values, [at], 300


def road(rng: Rng) -> Series:
    """A road by sensors that report irregularly: noisy occupancy, speed or travel times; then a jam."""
    rows = int(rng.integers(1_127, 2_500))
    rush = day(rows, 450, rng.random(), 2.0)
    match rng.integers(3):
        case 0:  # occupancy
            values = (3 + 9 * rush) * rng.lognormal(0, 0.35, rows)
            sign = 1.0
        case 1:  # speed
            values = 72 - 10 * rush + 4 * rng.normal(size=rows)
            sign = -1.0
        case _:  # travel time
            values = (120 + 150 * rush) * rng.lognormal(0, 0.25, rows)
            odd = rng.random(rows) < 0.004
            values[odd] *= rng.uniform(2, 4, odd.sum())
            sign = 1.0
    found = onsets(rng, rows, int(rng.integers(1, 4)))
    for at in found:
        length = int(rng.integers(1, 15))
        values[at : at + length] *= rng.uniform(1.8, 4) if sign > 0 else rng.uniform(0.4, 0.75)
    return np.maximum(values, 0), found, 450


def mentions(rng: Rng) -> Series:
    """Messages about a company: counts with a daily cycle and frequent bursts; then news."""
    rows = int(rng.integers(15_831, 15_903))
    base = 10 ** rng.uniform(0.5, 2)
    rate = base * (0.3 + day(rows, 300, rng.random())) * np.exp(0.25 * red_noise(rng, rows, 288))
    for at in np.flatnonzero(rng.random(rows) < 0.0015):
        length = int(rng.integers(2, 30))
        stop = min(rows, at + length)
        rate[at:stop] *= 1 + rng.lognormal(0.8, 1.0) * np.exp(-np.arange(stop - at) / length * 2)
    found = onsets(rng, rows, int(rng.integers(2, 5)))
    for at in found:
        length = int(rng.integers(5, 100))
        stop = min(rows, at + length)
        rate[at:stop] *= 1 + rng.uniform(3, 25) * np.exp(-np.arange(stop - at) / length * 2)
    gamma = rng.uniform(2, 8)
    return rng.poisson(rate * rng.gamma(gamma, 1 / gamma, rows)).astype(np.float64), found, 300


def square_days(rng: Rng) -> Series:
    """A made-up day with a plateau; then a day without it, with half of it, with twice of it, or a flat one."""
    rows, noise = 4_032, rng.choice([0.0, 1.0, 3.0])
    high = rng.uniform(60, 90)
    at_day = np.arange(rows) % 288
    plateau = (at_day >= 108) & (at_day < 204)
    values = 20 + (high - 20) * plateau + noise * rng.normal(size=rows) + rng.random(rows)
    onset = 288 * int(rng.integers(8, 12)) + 108
    part = slice(onset, onset + 96)
    match rng.integers(4):
        case 0:
            values[part] = 20 + rng.random(96) + noise * rng.normal(size=96)
        case 1:
            values[part] = 0.5 * (20 + values[part])
        case 2:
            values[part] += 0.8 * high
        case _:
            values[onset - 60 : onset + 36] = high + rng.random(96)
            onset -= 60
    return values, [onset], 300


def spike_density(rng: Rng) -> Series:
    """Made-up spikes at rest; then they come more often, or are gone."""
    rows = 4_032
    chance = np.full(rows, rng.uniform(0.01, 0.06))
    onset = int(rows * rng.uniform(0.4, 0.8))
    more = rng.random() < 0.7
    chance[onset : onset + 400] *= rng.uniform(5, 12) if more else 0.0
    values = np.where(rng.random(rows) < np.minimum(chance, 0.8), 20.0, 0.0) + 0.2 * rng.random(rows)
    return values, [onset], 300


def no_anomaly(rng: Rng) -> Series:
    """Made-up normal series: flat, noise, a clean or a noisy day."""
    rows = 4_032
    values = [
        np.full(rows, 45.0),
        21 + rng.normal(size=rows),
        20 + 60 * (np.arange(rows) % 288 >= 144),
        20 + 60 * day(rows, 300) + 2 * rng.normal(size=rows),
    ][int(rng.integers(4))]
    return values, [], 300


KINDS: tuple[Callable[[Rng], Series], ...] = (
    idle_cpu,
    busy_cpu,
    busy_cpu,
    network,
    disk,
    advertising,
    advertising,
    demand,
    temperature,
    latency,
    keystrokes,
    scaling_group,
    road,
    road,
    mentions,
    mentions,
    mentions,
    square_days,
    spike_density,
    no_anomaly,
)


def laid_windows(rows: int, found: list[int]) -> list[tuple[int, int]]:
    """First and last row of each window: a tenth of the rows in all, around the onsets; those that meet are joined."""
    if not found:
        return []
    half = int(0.1 * rows / len(found) / 2)
    windows: list[tuple[int, int]] = []
    for at in found:
        low, high = max(at - half, int(PROBATION * rows)), min(at + half, rows - 1)
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], high)
        else:
            windows.append((low, high))
    return windows


def times(rng: Rng, kind: str, rows: int, seconds: float) -> list[datetime]:
    """Of each row; roads report irregularly, and others have a gap now and then."""
    steps = np.full(rows, seconds)
    if kind == "road":
        steps = 300.0 * np.minimum(rng.geometric(0.68, rows), 6)
    elif rng.random() < 0.3:
        steps[int(rows * rng.random())] += float(rng.integers(10, 200)) * seconds
    start = datetime(2014, 1, 1) + timedelta(minutes=int(rng.integers(0, 400_000)))
    return [start + timedelta(seconds=float(at)) for at in np.cumsum(steps)]


def write(folder: Path, split: str) -> None:
    """All series of a split."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for number in range(COPIES * len(KINDS)):
        make = KINDS[number % len(KINDS)]
        rng = np.random.default_rng(SEEDS[split] + number)
        values, found, seconds = make(rng)
        stamps = times(rng, make.__name__, len(values), seconds)
        name = f"{make.__name__}_{number:02d}.csv"
        lines = (f"{stamp:%Y-%m-%d %H:%M:%S},{value:.6g}\n" for stamp, value in zip(stamps, values))
        (folder / name).write_text("timestamp,value\n" + "".join(lines), encoding="utf-8")
        labels[name] = [[str(stamps[low]), str(stamps[high])] for low, high in laid_windows(len(values), found)]
    (folder / "windows.json").write_text(json.dumps(labels, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=list(SEEDS), default="development")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.split)


if __name__ == "__main__":
    main()
