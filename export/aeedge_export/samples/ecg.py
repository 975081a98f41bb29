"""A simulated electrocardiogram: each wave of a beat is a bell; some beats come early, or are ventricular."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

QUIET = 150  # seconds at the start without an ectopic beat, to train on


class Recording(NamedTuple):
    """An electrocardiogram in mV, (samples, 2), its rate in Hz, and the sample and the symbol of each beat."""

    signal: np.ndarray
    rate: int
    beats: np.ndarray
    symbols: np.ndarray


def write(path: Path) -> str:
    """Write 12 minutes as an .npz: signal, (samples, 2) in mV, rate_hz, beat_sample, beat_symbol; a description."""
    found = simulate(12 * 60, np.random.default_rng(0))
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            signal=found.signal,
            rate_hz=np.array(found.rate),
            beat_sample=found.beats,
            beat_symbol=found.symbols,
        )
    return f"signal {found.signal.shape} float32 in mV at {found.rate} Hz; {len(found.beats)} beats and their symbols"


def simulate(seconds: int, rng: np.random.Generator) -> Recording:
    """A signal like an electrocardiogram: each wave of a beat is a bell; some beats come early, or are ventricular."""
    rate = 360
    signal = np.zeros((seconds * rate, 2))
    beats, symbols, at = [], [], 0.5
    while at < seconds - 1.5:
        symbol = rng.choice(["N", "A", "V"], p=[0.98, 0.01, 0.01]) if at > QUIET else "N"
        at -= 0.0 if symbol == "N" else 0.25
        _add_beat(signal, rate, at, symbol, rng)
        beats.append(round(at * rate))
        symbols.append(symbol)
        at += 0.8 * (1 + 0.04 * np.sin(2 * np.pi * at / 4) + 0.02 * rng.normal()) + (0.0 if symbol == "N" else 0.3)
    t = np.arange(len(signal)) / rate
    signal += 0.05 * np.sin(2 * np.pi * t / 4.3)[:, np.newaxis] + 0.01 * rng.normal(size=signal.shape)
    return Recording(signal.astype(np.float32), rate, np.array(beats), np.array(symbols))


def _add_beat(signal: np.ndarray, rate: int, at: float, symbol: str, rng: np.random.Generator) -> None:
    """Waves P, Q, R, S and T of a beat at `at` seconds; a ventricular one has no P and is broad."""
    normal = [(-0.17, 0.025, 0.12), (-0.025, 0.010, -0.1), (0.0, 0.011, 1.1), (0.027, 0.010, -0.25), (0.25, 0.05, 0.2)]
    waves = [(0.0, 0.05, 1.4), (0.10, 0.04, -0.5), (0.32, 0.07, -0.4)] if symbol == "V" else normal
    samples = np.arange(max(0, round((at - 0.5) * rate)), min(len(signal), round((at + 0.8) * rate)))
    for delay, width, height in waves:
        bell = np.exp(-0.5 * ((samples / rate - at - delay) / width) ** 2)
        signal[samples] += np.outer(bell, [1.0, 0.6]) * height * (1 + 0.05 * rng.normal())
