"""What does a stream cost beyond scoring its windows, does it keep up, and does it stay as small as it is?

A network of the size of `ts` (16, 32 and 32 channels, 16 latents; see comparison/networks.py) for windows of 256
samples of eight channels at 1 000 Hz, trained for an epoch, for speed does not depend on the weights; exported by the
product, with its calibration, its reference for sensor health and for drift. One thread, fp32.

Pushes are timed against `Model.score` of the same windows, views of the same samples; `score again` is the same once
more, and shows what differences are chance. `without checks` is a stream that looks neither at sensors nor for drift.

    python benchmarks/stream_speed.py [--quick]
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import fingerprint, kept_as, progress, publish_all
from numpy.typing import NDArray

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.system.limits import resident_bytes
from aeedge_export import Autoencoder

CHANNELS, RATE, WINDOW = 8, 1000, 256
CASES = ((1, 1), (10, 1), (100, 1), (64, 64), (1000, 64))  # samples of a chunk, hop
Samples = NDArray[np.float32]


class Plan(NamedTuple):
    """Pushes of a round, rounds, seconds of signal, samples of the endurance run."""

    pushes: int
    rounds: int
    seconds: int
    endurance: int


FULL, QUICK = Plan(512, 15, 30, 10_000_000), Plan(256, 3, 3, 500_000)


def signal(count: int, seed: int) -> Samples:
    """Sines of a few frequencies in all channels, and noise: (count, CHANNELS)."""
    rng, t = np.random.default_rng(seed), np.arange(count) / RATE
    waves = np.stack([np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in (13.0, 50.0, 120.0)], 1)
    mixed = waves @ np.random.default_rng(5).normal(size=(3, CHANNELS))
    return (mixed + 0.1 * rng.normal(size=(count, CHANNELS))).astype(np.float32)


def bundle(folder: Path) -> Path:
    """Train, export; gives the bundle."""
    spec = SignalSpec(tuple("abcdefgh"), WINDOW, 16, rate=float(RATE))
    windows = np.ascontiguousarray(aeedge.window(signal(60_000, 0), WINDOW, 16))
    network = Autoencoder(
        "conv1d", hidden=(16, 32, 32), latent=16, channels="last", epochs=1, random_state=0, time_ordered=True
    )
    network.fit_rows(windows, signal=spec).export(folder / "ts.aeedge")
    return folder / "ts.aeedge"


def bare(model: aeedge.Model, hop: int) -> aeedge.Stream:
    """A stream that looks neither at sensors nor for drift."""
    stream = aeedge.Stream(model, hop)
    stream._look_every = stream._drift_every = 2**62
    return stream


def pushes(model: aeedge.Model, chunk: int, hop: int, plan: Plan) -> dict[str, float]:
    """Microseconds of a push that completes windows, and of scoring the same windows.

    Each contender works through a stretch of the signal by itself, as a program on a device does, and is timed call by
    call; rounds are in shuffled order. Medians of a round are compared within the round. What health and drift cost
    now and then is in the means.
    """
    samples = signal(WINDOW + chunk * plan.pushes, 3)
    starts = range(WINDOW, len(samples), chunk)
    rows = [_windows(samples, start, start + chunk, hop) for start in starts]
    streams = {"push": aeedge.Stream(model, hop), "without checks": bare(model, hop)}
    calls = {
        name: [partial(stream.push, samples[at : at + chunk]) for at in starts] for name, stream in streams.items()
    }
    calls |= {name: [partial(model.score, found) for found in rows] for name in ("score", "score again")}
    medians: dict[str, list[float]] = {name: [] for name in calls}
    means: dict[str, list[float]] = {name: [] for name in calls}
    dice, names = random.Random(0), list(calls)
    for _ in range(plan.rounds):
        dice.shuffle(names)
        for name in names:
            if name in streams:
                streams[name].reset()
                streams[name].push(samples[:WINDOW])
            spent = [1e6 * timed(call) for call, found in zip(calls[name], rows) if len(found) or name in streams]
            spent = [seconds for seconds, found in zip(spent, rows) if len(found)] if name in streams else spent
            medians[name].append(statistics.median(spent))
            means[name].append(statistics.fmean(spent))
    middle = {name: round(statistics.median(values), 2) for name, values in medians.items()}
    checks = statistics.median(np.subtract(means["push"], means["without checks"]) / np.array(means["score"]))
    return {
        **middle,
        "beyond": round(statistics.median(np.subtract(medians["push"], medians["score"])), 2),
        "chance": round(statistics.median(np.subtract(medians["score again"], medians["score"])), 2),
        "checks_share": round(float(checks), 4),
    }


def _windows(samples: Samples, start: int, end: int, hop: int) -> Samples:
    """Windows, views, that the samples from `start` to `end` complete."""
    first, last = -(-(start - WINDOW + 1) // hop), (end - WINDOW) // hop
    if first > last:
        return np.empty((0, WINDOW, CHANNELS), np.float32)
    return aeedge.window(samples[first * hop : last * hop + WINDOW], WINDOW, hop)


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def keeps_up(model: aeedge.Model, seconds: int, chunk: int = 10) -> float:
    """How many times faster than the sensor a stream with hop 1 is."""
    samples, stream = signal(RATE * seconds, 4), aeedge.Stream(model, 1)
    began = time.perf_counter()
    for start in range(0, len(samples), chunk):
        stream.push(samples[start : start + chunk])
    return seconds / (time.perf_counter() - began)


def slope(model: aeedge.Model, count: int, hop: int = 64) -> dict[str, float]:
    """Bytes by which the process grows over `count` samples, the last half of them."""
    samples, stream, sizes = signal(100_000, 5), aeedge.Stream(model, hop), []
    parts = count // len(samples)
    for _ in range(parts):
        for start in range(0, len(samples), 1000):
            stream.push(samples[start : start + 1000])
        gc.collect()
        sizes.append(resident_bytes())
    half = np.array(sizes[parts // 2 :], np.float64)
    per_part = float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    state = len(stream.state())
    return {"samples": parts * len(samples), "bytes_per_million": round(10 * per_part), "state_bytes": state}


def main() -> None:
    """Measure, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for trying; not kept as the result")
    quick = parser.parse_args().quick
    plan = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        progress("train and export")
        path = bundle(Path(folder))
        with aeedge.load(path, threads=1) as model:
            found: dict[str, Any] = {"fingerprint": fingerprint(), "cases": []}
            for chunk, hop in CASES:
                progress(f"chunks of {chunk}, hop {hop}")
                found["cases"].append({"chunk": chunk, "hop": hop, **pushes(model, chunk, hop, plan)})
            progress("hop 1 in chunks of 10 ms")
            found["ahead"] = round(statistics.median(keeps_up(model, plan.seconds) for _ in range(3)), 1)
            progress(f"{plan.endurance:,} samples")
            found["memory"] = slope(model, plan.endurance)
    columns = ("push", "without checks", "score", "beyond", "chance")
    head = ["samples", "hop", *columns, "health and drift / score"]
    rows = [
        [
            str(case["chunk"]),
            str(case["hop"]),
            *(f"{case[name]:.1f}" for name in columns),
            f"{case['checks_share']:.1%}",
        ]
        for case in found["cases"]
    ]
    memory = found["memory"]
    facts = [
        ["times ahead of 1 000 Hz × 8 channels, hop 1, chunks of 10 ms", f"{found['ahead']:.1f}"],
        [f"growth over {memory['samples']:,} samples, bytes a million", f"{memory['bytes_per_million']:,}"],
        ["state, bytes", f"{memory['state_bytes']:,}"],
    ]
    name = kept_as("stream_speed", quick)
    publish_all(name, found, {"Microseconds of a push": (head, rows), "A stream": (["what", "value"], facts)})


if __name__ == "__main__":
    main()
