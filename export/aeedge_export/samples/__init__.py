"""Small data to try every command with: made by a simulation, or taken from an installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aeedge_export.samples import digits, ecg, motor

SAMPLES: dict[str, tuple[str, Callable[[Path], str]]] = {
    "motor.csv": (
        "a motor that drives a pump, 30 hours without a fault",
        motor.write_normal,
    ),
    "motor-new.csv": ("the two hours after that, with seven faults", motor.write_faulty),
    "ecg.npz": ("a simulated electrocardiogram, two leads, 12 minutes at 360 Hz", ecg.write),
    "digits.npz": ("1,797 handwritten digits of 8×8 pixels, from scikit-learn", digits.write),
}
