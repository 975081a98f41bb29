"""A small simulated plant: a motor on a frequency converter drives a pump; nine sensors once a second, and faults.

The speed follows a demand that changes every few minutes; what else happens follows from the speed by the affinity laws
(flow ~ speed, head ~ speed², power ~ speed³) where the pump's curve meets that of the pipe.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

SENSORS = {
    "speed": "rpm",
    "flow": "m³/h",
    "pressure": "bar",
    "current": "A",
    "voltage": "V",
    "vib_drive": "mm/s",  # at the end of the motor that drives the pump, and at its free end
    "vib_free": "mm/s",
    "temp_motor": "°C",
    "temp_bearing": "°C",
}
_NOISE = [6.0, 0.8, 0.03, 0.25, 0.5, 0.05, 0.03, 0.3, 0.3]  # standard deviations of the sensors, in their units


_HOURS, _STEP = 30, 5  # of the sample without faults; seconds from a row of the samples to the next
_BEGIN = datetime(2026, 3, 2, 6, 0)


class Fault(NamedTuple):
    """A fault of the process or of a sensor, the sensors that it is seen in, and the rows."""

    name: str
    sensors: tuple[str, ...]
    rows: np.ndarray


def write_normal(path: Path) -> str:
    """Write 30 hours without a fault, a row every 5 seconds, as CSV; a description of it."""
    normal, _, _ = _sample()
    return _write(path, normal, _BEGIN)


def write_faulty(path: Path) -> str:
    """Write the two hours after them with seven faults as CSV, their names in the column fault; a description of it."""
    _, faulty, faults = _sample()
    names = np.full(len(faulty), "normal", dtype=object)
    for fault in faults:
        names[fault.rows] = fault.name
    return f"{_write(path, faulty, _BEGIN + timedelta(hours=_HOURS), names)} and fault"


def simulate(seconds: int, rng: np.random.Generator, valve: np.ndarray | float = 1.0) -> np.ndarray:
    """Readings of the pump in running order, (seconds, 9) float32; `valve` is how far it is open, 0 to 1."""
    speed = 2900 * _lag(_steps(seconds, rng), 8)
    static = 12 + 1.5 * _wander(seconds, 120, rng)  # metres to the level of the tank
    voltage = 400 + 4 * _wander(seconds, 120, rng)

    n = speed / 2900
    flow = np.sqrt((52 * n**2 - static) / (8.3e-4 + 1.9e-3 / valve**2))  # pump: 52 n² - a Q²; pipe: static + k Q²
    head = 52 * n**2 - 8.3e-4 * flow**2
    load = flow / (115 * n)  # 1 at the best efficiency
    power = 1000 * 9.81 * (115 * n / 3600) * head / (0.74 * (2 - load)) + 500 * n**3  # W, at the shaft
    current = np.hypot(12, power / (np.sqrt(3) * voltage * 0.92))  # A: what magnetises, and what drives
    motor = 24 + _lag(45 * (current / 32) ** 2, 240)
    bearing = 24 + 0.5 * (motor - 24) + 8 * n**2  # warmed by the motor, and by friction
    rough = n**2 * (1 - load) ** 2 * 2  # recirculation away from the best efficiency
    drive = 1.6 * n**2 + 1.0 * np.exp(-(((n - 0.82) / 0.03) ** 2)) + rough
    free = 1.0 * n**2 + 0.4 * np.exp(-(((n - 0.90) / 0.03) ** 2)) + 0.6 * rough

    true = [speed, flow, head * 0.0981, current, voltage, drive, free, motor, bearing]
    return (np.stack(true, axis=1) + rng.normal(size=(seconds, len(true))) * _NOISE).astype(np.float32)


def recording(normal: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Fault]]:
    """`normal` seconds without fault, the two hours after them with faults of 8 minutes each, and these faults."""
    each = 480
    spans = [np.arange(start, start + each) for start in range(each, 14 * each, 2 * each)]
    closing, stuck, drifting, dropping, gain, spikes, swapped = spans
    dropping, spikes = dropping[rng.random(each) < 0.3], spikes[::7]  # they come and go
    valve = np.ones(normal + 15 * each)
    valve[normal:][closing] = np.linspace(1, 0.45, each)
    X = simulate(len(valve), rng, valve)
    faulty = X[normal:]

    flow, pressure, current, drive, free, motor = (
        faulty[:, list(SENSORS).index(name)]
        for name in ("flow", "pressure", "current", "vib_drive", "vib_free", "temp_motor")
    )
    flow[stuck] = flow[stuck[0]]
    pressure[drifting] += np.linspace(0, 0.6, each)
    motor[dropping] = 0
    current[gain] *= 1.2
    drive[spikes] *= rng.uniform(2, 4, len(spikes))
    drive[swapped], free[swapped] = free[swapped], drive[swapped]  # copies: swapped is an index
    return (
        X[:normal],
        faulty,
        [
            Fault("valve closes", ("flow", "pressure"), closing),
            Fault("flow stuck", ("flow",), stuck),
            Fault("pressure drifts", ("pressure",), drifting),
            Fault("temperature drops out", ("temp_motor",), dropping),
            Fault("current gain", ("current",), gain),
            Fault("vibration spikes", ("vib_drive",), spikes),
            Fault("vibrations swapped", ("vib_drive", "vib_free"), swapped),
        ],
    )


@cache
def _sample() -> tuple[np.ndarray, np.ndarray, list[Fault]]:
    """One recording, of which the two files are parts."""
    normal, faulty, faults = recording(_HOURS * 3600, np.random.default_rng(0))
    kept = [fault._replace(rows=fault.rows[fault.rows % _STEP == 0] // _STEP) for fault in faults]
    return normal[::_STEP], faulty[::_STEP], kept


def _write(path: Path, X: np.ndarray, begin: datetime, names: np.ndarray | None = None) -> str:
    header = ["time", *SENSORS] + (["fault"] if names is not None else [])
    lines = [",".join(header)]
    for index, row in enumerate(X):
        time = (begin + timedelta(seconds=_STEP * index)).isoformat()
        last = [] if names is None else [names[index]]
        lines.append(",".join([time, *(f"{value:.6g}" for value in row), *last]))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return f"{len(X):,} rows: time, {', '.join(SENSORS)}"


def _steps(seconds: int, rng: np.random.Generator) -> np.ndarray:
    """A demand that stays for 1 to 3 minutes and then jumps: shares of the rated speed."""
    holds = rng.integers(60, 180, seconds // 60 + 1)
    return np.repeat(rng.uniform(0.65, 1.0, len(holds)), holds)[:seconds]


def _lag(x: np.ndarray, tau: float) -> np.ndarray:
    """First-order lag of `tau` seconds, settled at the start."""
    from scipy.signal import lfilter

    a = np.exp(-1 / tau)
    found: np.ndarray = lfilter([1 - a], [1, -a], x, zi=[a * x[0]])[0]
    return found


def _wander(seconds: int, tau: float, rng: np.random.Generator) -> np.ndarray:
    """A slow random walk between -1 and 1 that forgets in `tau` seconds."""
    from scipy.signal import lfilter

    a = np.exp(-1 / tau)
    steps, start = rng.normal(size=seconds), [1.5 * a * rng.normal()]
    found: np.ndarray = np.sin(lfilter([1.5 * np.sqrt(1 - a**2)], [1, -a], steps, zi=start)[0])
    return found
