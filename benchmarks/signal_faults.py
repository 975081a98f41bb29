"""What does a stream say of a broken sensor, and what of a machine that changes?

Recordings of several kinds: sines with couplings, autoregressive noise, a machine with bursts, a plant with slow
sensors, converters with few steps; and where a FOLDER is given, the normal part of the pump files (pump/*.csv) and an
ECG (ecg.npz). A model is trained by the defaults on the first part of each, of a pump on the three other files. The
rest is streamed through `aeedge.Stream`, by its default patience and by "3 of 5", as it is, and with faults injected
that last for some windows, one at a time:

  bad input   stuck, dropout to 0 or NaN, samples that are missing, a clock that jumps
  anomaly     gain, offset, noise ("bad input" is right as well where values are beyond the range of the training by
              more than its span); a change of regime, where "drift" is right as well

A verdict is that of the first window in the fault that is not "ok". Delays are in windows (hops) from the fault's first
sample. The culprit is the channel of the first health fault, or of `explain()[0]`. The margins of
aeedge/signals/health.py were chosen with --seed 100 and without the folder.

    python benchmarks/signal_faults.py [FOLDER] [--seed N] [--quick]
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import fingerprint, kept_as, progress, publish_all
from numpy.typing import NDArray

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge_export import Autoencoder

WINDOW, HOP = 64, 16
TRAINING, REST = 24_000, 16_000  # samples of synthetic recordings
TRIES = 2  # episodes for each that is wanted: a fault begins where the stream says "ok"
PATIENCES = ("1 of 1", "3 of 5")
BEFORE, DURING, REGIME = 2, 6, 60  # windows of an episode: healthy ones, with a fault, in another regime
SEVERITIES = {"gain": (1.5, 4.0), "offset": (3.0, 8.0), "noise": (1.0, 4.0)}  # a factor; standard deviations
BAD_INPUT = ("stuck", "dropout to 0", "dropout to NaN", "missing", "clock")
ANOMALY = ("gain", "offset", "noise")
FAULTS = (*BAD_INPUT, *ANOMALY, "regime")
Samples = NDArray[Any]
Random = np.random.Generator


@dataclass(frozen=True)
class Recording:
    """Recordings (samples, channels) to train on, and one to stream."""

    name: str
    training: tuple[Samples, ...]
    samples: Samples
    window: int = WINDOW
    hop: int = HOP

    @property
    def usual(self) -> Samples:
        """All samples that are trained on."""
        return np.concatenate(self.training).astype(np.float64)


def sines(rng: Random, n: int) -> Samples:
    """Four sensors that see the same three oscillations, each in its own way."""
    t = np.arange(n)[:, np.newaxis]
    phase = np.cumsum(1 + 0.02 * rng.normal(size=(n, 3)), axis=0) * rng.uniform(0.05, 0.6, 3)
    mixed = np.sin(phase + rng.uniform(0, 6, 3)) @ rng.normal(size=(3, 4))
    return np.asarray(mixed * (1 + 0.1 * np.sin(t / 400)) + 0.1 * rng.normal(size=(n, 4)))


def autoregressive(rng: Random, n: int) -> Samples:
    """Four sensors of coloured noise, most of it common to them."""
    out, pole = np.zeros((n, 5)), rng.uniform(0.85, 0.97)
    drive = rng.normal(size=(n, 5))
    for i in range(2, n):
        out[i] = 2 * pole * 0.95 * out[i - 1] - pole**2 * out[i - 2] + drive[i]
    out /= out.std(axis=0)
    return np.asarray(out[:, :1] * rng.uniform(0.7, 1.5, 4) + 0.4 * out[:, 1:])


def machine(rng: Random, n: int) -> Samples:
    """Two accelerometers with bursts at each turn, the current and the speed of a motor."""
    load = 1 + 0.2 * np.sin(np.arange(n) / rng.uniform(800, 1500)) + 0.02 * rng.normal(size=n)
    angle = np.cumsum(0.12 + 0.02 * load)
    ring = np.exp(-np.arange(24) / 5) * np.sin(np.arange(24) * rng.uniform(1, 1.6))
    strikes = np.diff(np.floor(angle / (2 * np.pi)), prepend=0)
    burst = np.convolve(strikes * (1 + 0.2 * rng.normal(size=n)), ring)[:n]
    shaken = [g * burst + h * np.sin(angle + p) for g, h, p in rng.uniform(0.6, 1.4, (2, 3))]
    parts = [*shaken, 5 * load + 0.5 * np.sin(2 * angle), 1450 + 30 * load]
    return np.stack(parts, axis=1) + rng.normal(size=(n, 4)) * [0.08, 0.08, 0.1, 1.0]


def plant(rng: Random, n: int) -> Samples:
    """Temperature and pressure that follow a load slowly, a noisy flow, and a set point that stays."""
    load = np.repeat(rng.normal(size=n // 80 + 1), 80)[:n]
    slow, slower = np.zeros(n), np.zeros(n)
    for i in range(1, n):
        slow[i] = 0.95 * slow[i - 1] + 0.05 * load[i]
        slower[i] = 0.985 * slower[i - 1] + 0.015 * slow[i]
    parts = [70 + 4 * slower, 3 + 0.4 * slow, 32 + 2 * load, np.full(n, 55.0)]
    return np.stack(parts, axis=1) + rng.normal(size=(n, 4)) * [0.05, 0.02, 0.3, 0.0]


def coarse(rng: Random, n: int) -> Samples:
    """Sines and coloured noise through a converter of few steps, int16."""
    values = np.concatenate([sines(rng, n)[:, :2], autoregressive(rng, n)[:, :2]], axis=1)
    return np.round(values * rng.uniform(8, 40, 4)).astype(np.int16)


SYNTHETIC: dict[str, Callable[[Random, int], Samples]] = {
    "sines": sines,
    "autoregressive": autoregressive,
    "machine": machine,
    "plant": plant,
    "coarse": coarse,
}


def recordings(folder: Path | None, seed: int, *, quick: bool) -> Iterator[Recording]:
    for name, make in SYNTHETIC.items():
        rng = np.random.default_rng([seed, len(name)])
        share = 2 if quick else 1
        samples, training = make(rng, (TRAINING + REST) // share), TRAINING // share
        samples = samples if samples.dtype == np.int16 else samples.astype(np.float32)
        yield Recording(name, (samples[:training],), samples[training:])
    if folder is None:
        return
    pumps = {}
    for path in sorted((folder / "pump").glob("*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        sensors = [name for name in rows[0] if name not in ("datetime", "anomaly", "changepoint")]
        samples = np.array([[float(row[name]) for name in sensors] for row in rows], np.float32)
        normal = int(np.argmax([float(row["anomaly"]) for row in rows]))
        pumps[f"pump {path.stem}"] = samples[:normal]
    for name, samples in pumps.items():
        others = tuple(other for key, other in pumps.items() if key != name)
        yield Recording(name, others, samples, window=32, hop=2)
    with np.load(folder / "ecg.npz") as data:
        part = data["signal"][: 20_000 if quick else 120_000]
    cut = len(part) * 3 // 5
    yield Recording("ecg", (part[:cut],), part[cut:], window=128, hop=32)


def trained(recording: Recording, seed: int, folder: str) -> aeedge.Model:
    """A model of the first part of a recording, by the defaults."""
    channels = tuple(f"sensor {i}" for i in range(recording.samples.shape[1]))
    signal = SignalSpec(channels, recording.window, recording.hop, rate=1.0)
    parts = [aeedge.window(part, recording.window, recording.hop) for part in recording.training]
    windows = np.concatenate(parts)
    ae = Autoencoder(random_state=seed, threads=1).fit_rows(windows, signal=signal)
    path = f"{folder}/{recording.name}.aeedge"
    ae.export(path, variants="fp32")
    return aeedge.load(path, threads=1)


@dataclass
class Episode:
    """A stretch of a recording with a fault in it, and how it is pushed.

    Attributes:
        samples: (n, channels), changed from `start` on.
        times: of the samples, in seconds.
        start: sample of the fault.
        channel: which is faulty, None for none or all.
        lost: this many samples are missing at `start`.
    """

    samples: Samples
    times: NDArray[np.float64]
    start: int
    channel: int | None = None
    lost: int = 0


def injected(kind: str, recording: Recording, at: int, channel: int, rng: Random) -> Episode:
    """The stretch of the recording that begins with sample `at`, with a fault."""
    before, during = BEFORE * recording.window, (REGIME if kind == "regime" else DURING) * recording.window
    original = recording.samples[at : at + before + during]
    samples = original.astype(np.float64)
    episode = Episode(samples, np.arange(len(samples), dtype=np.float64), before, channel)
    spread = recording.usual[:, channel].std()
    x = samples[before:, channel]
    if kind == "stuck":
        x[:] = samples[before - 1, channel]
    elif kind.startswith("dropout"):
        x[_blocks(len(x), recording.window, rng)] = 0 if kind.endswith("0") else np.nan
    elif kind == "gain":
        x *= np.exp(rng.uniform(*np.log(SEVERITIES[kind])))
    elif kind == "offset":
        x += rng.choice([-1, 1]) * rng.uniform(*SEVERITIES[kind]) * spread
    elif kind == "noise":
        x += rng.uniform(*SEVERITIES[kind]) * spread * rng.normal(size=len(x))
    elif kind == "regime":
        _other_regime(recording, samples, at, before, rng)
        episode.channel = None
    elif kind == "clock":
        episode.times[before:] += rng.choice([-1, 1]) * rng.integers(20, 5000)
        episode.channel = None
    elif kind == "missing":
        episode.lost, episode.channel = int(rng.integers(1, 200)), None
    if original.dtype == np.int16 and np.isfinite(samples).all():
        limits = np.iinfo(np.int16)
        episode.samples = np.clip(np.round(samples), limits.min, limits.max).astype(np.int16)
    return episode


def _blocks(length: int, window: int, rng: Random) -> NDArray[np.bool_]:
    """Where a sensor drops out: for a quarter of a window to a whole one, again and again."""
    mask, at = np.zeros(length, bool), 0
    while at < length:
        mask[at : at + rng.integers(window // 4, window + 1)] = True
        at += int(rng.integers(window, 2 * window))
    return mask


def _other_regime(recording: Recording, samples: Samples, at: int, before: int, rng: Random) -> None:
    """All sensors faster or slower, and stronger or weaker about their mean."""
    speed, strength = rng.choice([0.5, 0.6, 1.6, 2.0]), rng.choice([0.6, 1.5])
    count = len(samples) - before
    later = recording.samples[at + before :].astype(np.float64)
    places = np.arange(count) * speed % max(1, len(later) - 1)
    mean = recording.usual.mean(axis=0)
    for i, line in enumerate(later.T):
        samples[before:, i] = mean[i] + strength * (np.interp(places, np.arange(len(line)), line) - mean[i])


def pushed(stream: aeedge.Stream, episode: Episode) -> list[Any] | None:
    """Events of an episode in a new stream, those that have a sample of the fault; None after a false alarm."""
    stream.reset()
    start = episode.start
    if stream.push(episode.samples[:start], episode.times[0])[-1].verdict != "ok":
        return None
    if episode.lost:
        return [*stream.push(None, missing=episode.lost), *stream.push(episode.samples[start:])]
    return list(stream.push(episode.samples[start:], episode.times[start]))


def judged(kind: str, recording: Recording, episode: Episode, events: list[Any]) -> dict[str, Any]:
    """Whether the first verdict is right, after how many windows it came, and whether the right channel is named."""
    found = next(((i, event) for i, event in enumerate(events) if event.verdict != "ok"), None)
    if found is None:
        return {"verdict": "ok", "right": False}
    delay, event = found
    return {
        "verdict": event.verdict,
        "right": event.verdict in right_verdicts(kind, recording, episode),
        "delay": delay,
        "culprit": None if episode.channel is None else culprit(event) == f"sensor {episode.channel}",
    }


def culprit(event: Any) -> str | None:
    """The channel that is named first."""
    if event.health:
        name: str | None = event.health[0].channel
        return name
    return str(event.explain(1)[0].name) if event.verdict == "anomaly" else None


def right_verdicts(kind: str, recording: Recording, episode: Episode) -> tuple[str, ...]:
    """What may be said of a fault."""
    if kind in BAD_INPUT:
        return ("bad input",)
    usual = recording.usual
    low, high = usual.min(axis=0), usual.max(axis=0)
    faulty = episode.samples[episode.start :]
    beyond = ((faulty > 2 * high - low) | (faulty < 2 * low - high)).any()
    return ("anomaly", *(("drift",) if kind == "regime" else ()), *(("bad input",) if beyond else ()))


def examined(recording: Recording, seed: int, episodes: int) -> dict[str, Any]:
    """Verdicts on a recording's rest as it is, and with `episodes` faults of each kind, by patience."""
    with tempfile.TemporaryDirectory() as folder, trained(recording, seed, folder) as model:
        found = {patience: streamed(model, patience, recording, seed, episodes) for patience in PATIENCES}
    return {"name": recording.name, **found}


def streamed(model: aeedge.Model, patience: str, recording: Recording, seed: int, episodes: int) -> dict[str, Any]:
    """The same for one patience."""
    rng, stream = np.random.default_rng([seed, 7]), aeedge.Stream(model, patience=patience)
    quiet = Counter(event.verdict for event in stream.push(recording.samples))
    moving = np.flatnonzero(np.ptp(recording.usual, axis=0))
    faults = {}
    for kind in FAULTS:
        length = (BEFORE + (REGIME if kind == "regime" else DURING)) * recording.window
        found: list[dict[str, Any]] = []
        for at in rng.integers(max(1, len(recording.samples) - length), size=TRIES * episodes):
            episode = injected(kind, recording, int(at), int(rng.choice(moving)), rng)
            events = pushed(stream, episode) if len(found) < episodes else None
            if events is not None:
                found.append(judged(kind, recording, episode, events))
        faults[kind] = counted(found)
    right = {kind: f"{of['right'] / of['faults']:.0%}" for kind, of in faults.items()}
    progress(f"{recording.name}, patience {patience}: {dict(quiet)}, right: {right}")
    return {
        "healthy": {verdict: quiet[verdict] for verdict in ("ok", "anomaly", "drift", "bad input")},
        "faults": faults,
    }


def counted(of: list[dict[str, Any]]) -> dict[str, Any]:
    """Verdicts on faults of a kind: how many are right, after how many windows, and whether the channel is named."""
    right = [one for one in of if one["right"]]
    named = [one["culprit"] for one in right if one["culprit"] is not None]
    return {
        "faults": len(of),
        "right": len(right),
        "verdicts": dict(sorted(Counter(one["verdict"] for one in of).items())),
        "delays": {str(delay): n for delay, n in sorted(Counter(one["delay"] for one in right).items())},
        "channels": len(named),
        "named": sum(named),
    }


def by_fault(found: list[dict[str, Any]], patience: str) -> list[list[str]]:
    """A row for each kind of fault, of all recordings, and one for all."""
    lines = []
    for kind in (*FAULTS, "all"):
        of = [row[patience]["faults"][name] for row in found for name in FAULTS if kind in (name, "all")]
        count, right, channels, named = (
            sum(one[key] for one in of) for key in ("faults", "right", "channels", "named")
        )
        delay: list[float] = [int(d) for one in of for d, n in one["delays"].items() for _ in range(n)] or [np.nan]
        delays = [f"{np.median(delay):.0f}", f"{np.quantile(delay, 0.9):.0f}"]
        lines.append(
            [kind, f"{count}", f"{right / count:.1%}", *delays, f"{named / channels:.1%}" if channels else "-"]
        )
    return lines


def by_recording(found: list[dict[str, Any]], patience: str) -> list[list[str]]:
    """A row for each recording: windows without a fault, and right verdicts by fault."""
    lines = []
    for row in found:
        healthy, faults = row[patience]["healthy"], row[patience]["faults"]
        count = sum(healthy.values())
        shares = [f"{of['right'] / of['faults']:.0%}" for of in faults.values()]
        lines.append([row["name"], f"{count}", f"{healthy['ok'] / count:.1%}", *shares])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="shorter recordings, fewer faults")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    episodes = 8 if asked.quick else 40
    found = [examined(one, asked.seed, episodes) for one in recordings(asked.folder, asked.seed, quick=asked.quick)]
    faults = ["fault", "faults", "verdict right", "delay (median)", "delay (90 %)", "culprit"]
    tables = {}
    for patience in PATIENCES:
        tables[f"By fault, patience {patience}"] = faults, by_fault(found, patience)
        head = ["recording", "windows", "ok without a fault", *FAULTS]
        tables[f"By recording, patience {patience}"] = head, by_recording(found, patience)
    result = {
        "fingerprint": fingerprint(),
        "seed": asked.seed,
        "severities": SEVERITIES,
        "recordings": found,
    }
    parts = [] if asked.folder else ["synthetic"]
    parts += [f"seed{asked.seed}"] if asked.seed else []
    publish_all(kept_as("signal_faults", asked.quick, parts), result, tables)


if __name__ == "__main__":
    main()
