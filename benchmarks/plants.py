"""Simulated plants for choosing defaults: eight coupled channels that drift slowly, and a fault after a while."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

CHANNELS = 8


def plant(seed: int, seconds: int = 1100) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A recording (seconds, 8) once a second, and which of its samples are faulty, (seconds,).

    Each plant draws which channels wander (temperatures and the like, with time constants from a minute to an hour),
    which follow a demand that changes at times, how they are coupled, how much noise they have and how coarsely they
    are read; and a fault of 200 to 400 seconds from half-time on: an offset, a changed gain or more noise in one to
    three channels, at once or gradually, from 1.5 to 5 standard deviations.
    """
    rng = np.random.default_rng(seed)
    slow = np.stack([_wander(seconds, rng.choice([60, 300, 1000, 4000]), rng) for _ in range(rng.integers(1, 4))], 1)
    hold = int(rng.choice([60, 200, 10 * seconds]))  # seconds between changes of the demand, if there are any
    steps = np.repeat(rng.normal(size=seconds // hold + 1), hold)[:seconds]
    demand = lfilter([0.1], [1, -0.9], steps - steps[0]) + steps[0]
    coupling = rng.normal(size=(slow.shape[1] + 1, CHANNELS)) * (rng.random((slow.shape[1] + 1, CHANNELS)) < 0.3)
    noise = rng.choice([0.1, 0.3, 1.0], CHANNELS) * (1 + 0.3 * rng.random(CHANNELS))
    x = np.column_stack([slow, demand]) @ coupling + rng.normal(size=(seconds, CHANNELS)) * noise

    spread = x[: seconds // 3].std(axis=0)
    start, length = seconds // 2 + int(rng.integers(0, 30)), int(rng.integers(200, 400))
    faulty = np.zeros(seconds, np.bool_)
    faulty[start : start + length] = True
    onset = min(int(rng.choice([1, 20, 100])), length)
    course = np.minimum(np.arange(1, length + 1) / onset, 1.0) * rng.uniform(1.5, 5)
    for channel in rng.choice(CHANNELS, rng.integers(1, 4), replace=False):
        kind, part = rng.integers(3), x[faulty, channel]
        if kind == 0:
            part = part + rng.choice([-1, 1]) * course * spread[channel]
        elif kind == 1:
            part = part.mean() + (part - part.mean()) * (1 + course)
        else:
            part = part + course * spread[channel] * rng.normal(size=length)
        x[faulty, channel] = part
    step = spread * rng.choice([0.01, 0.3, 1.0], CHANNELS)  # of the readings
    units = 10.0 ** rng.integers(-2, 3, CHANNELS)
    return (np.round(x / step) * step * units + rng.normal(size=CHANNELS) * 30 * units).astype(np.float32), faulty


def _wander(seconds: int, tau: float, rng: np.random.Generator) -> NDArray[Any]:
    """A random walk of deviation 1 that forgets in `tau` seconds."""
    a = np.exp(-1 / tau)
    found: NDArray[Any] = lfilter([np.sqrt(1 - a**2)], [1, -a], rng.normal(size=seconds), zi=[a * rng.normal()])[0]
    return found
