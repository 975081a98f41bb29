"""What does a stream cost beyond scoring its windows, does it keep up, and does it stay as small as it is?

A network of the size of `ts` (16, 32 and 32 channels, 16 latents; see comparison/networks.py) for windows of 256
samples of eight channels at 1 000 Hz, trained for an epoch, for speed does not depend on the weights; exported by the
product, with its calibration, its reference for sensor health and for drift. One thread, fp32.

Pushes are timed against `Model.score` of the same windows, views of the same samples, in the same loop: push, score,
push, score. `score again` is the call a second time, and shows what differences are chance.
`without checks` is a stream without references for health and drift. A stretch of a second is done when its windows are
scored; how often it fits into a second is how far the stream is ahead of the sensor.

    python benchmarks/stream_speed.py [--quick]
"""

from __future__ import annotations

import argparse
import gc
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
    """Pushes of each case, seconds of signal, samples of the endurance run."""

    pushes: int
    seconds: int
    endurance: int


FULL, QUICK = Plan(2000, 30, 10_000_000), Plan(200, 3, 500_000)


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


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and its result."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def pushes(model: aeedge.Model, chunk: int, hop: int, count: int) -> dict[str, float]:
    """Microseconds of a push that completes windows, and of scoring the same windows: medians, and means over all."""
    samples = signal(WINDOW + chunk * (count + 1), 3)
    streams = {"push": aeedge.Stream(model, hop), "without checks": bare(model, hop)}
    for stream in streams.values():
        stream.push(samples[:WINDOW])
    found: dict[str, list[float]] = {name: [] for name in (*streams, "score", "score again")}
    for start in range(WINDOW, WINDOW + chunk * count, chunk):
        part = samples[start : start + chunk]
        spent, events = {}, []
        for name, stream in streams.items():
            spent[name], events = timed(partial(stream.push, part))
        if not events:
            continue
        first = round(events[0].start * RATE)
        rows = aeedge.window(samples[first : first + WINDOW + (len(events) - 1) * hop], WINDOW, hop)
        for name in ("score", "score again"):
            spent[name], _ = timed(partial(model.score, rows))
        for name, seconds in spent.items():
            found[name].append(1e6 * seconds)
    medians = {name: round(statistics.median(values), 2) for name, values in found.items()}
    beyond = [push - score for push, score in zip(found["push"], found["score"])]
    checks = statistics.fmean(found["push"]) - statistics.fmean(found["without checks"])
    return {
        **medians,
        "beyond": round(statistics.median(beyond), 2),
        "chance": round(statistics.median(np.subtract(found["score again"], found["score"])), 2),
        "checks_share": round(checks / statistics.fmean(found["score"]), 4),
    }


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
                found["cases"].append({"chunk": chunk, "hop": hop, **pushes(model, chunk, hop, plan.pushes)})
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
