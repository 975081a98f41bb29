"""Does a fault in the data spoil the detector? ROC AUC of anomaly scores, trained on clean and on spoilt rows.

Each case makes both from a data seed; seeds 0 to 9. Labels are for scoring only. Writes a table to
results/spoilt_data.md.

    python benchmarks/spoilt_data.py [CASE ...]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import RESULTS, progress
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state

from aeedge_export import Autoencoder
from aeedge_export.data import read
from aeedge_export.data.rows import split

SEEDS = range(10)
TRAINING_SEED = 0
Rows = NDArray[Any]


@dataclass
class Case:
    """Training rows with and without a fault, and rows to score.

    Attributes:
        clean, spoilt: training rows (n, ...).
        test: rows to score, in the form of both.
        labels: 1 for anomalies, (m,).
        clean_options, spoilt_options: of the estimator.
        clean_test: rows to score in the form of the clean ones, where that is another; None for `test`.
    """

    clean: Rows
    spoilt: Rows
    test: Rows
    labels: Rows
    clean_options: dict[str, Any] = field(default_factory=dict)
    spoilt_options: dict[str, Any] = field(default_factory=dict)
    clean_test: Rows | None = None


def sensors(seed: int) -> tuple[Rows, Rows, Rows, dict[str, Any]]:
    """1 000 rows of six correlated values, and 600 to score: in half of them the third value is off by 1.5."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[1, 0.5, -1, 0.3, 2, 0.7], [0.2, -1, 0.4, 1, 0.1, 0.9]])
    train, fine, off = (rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, 6)) for n in (1000, 300, 300))
    off[:, 2] += rng.choice([-1, 1], 300) * 1.5
    return train, np.r_[fine, off], np.repeat([0, 1], 300), {"latent": 2}


def held_out(count: int) -> tuple[Rows, Rows]:
    """Training and validation rows of the training seed."""
    return split(count, 0.1, int(check_random_state(TRAINING_SEED).randint(2**31 - 1)))[:2]


def glitches(*cells: tuple[str, int, int, float]) -> Callable[[int], Case]:
    """Single values of "train" or "validation" rows, each given as (part, number in it, column, value)."""

    def case(seed: int) -> Case:
        clean, test, labels, options = sensors(seed)
        parts = dict(zip(("train", "validation"), held_out(len(clean))))
        spoilt = clean.copy()
        for part, number, column, value in cells:
            spoilt[parts[part][number], column] = value
        return Case(clean, spoilt, test, labels, options, options)

    return case


def codes(share: float, columns: tuple[int, ...] = (2,), code: float = -9999) -> Callable[[int], Case]:
    """A code for "missing" in this share of the rows of each of these columns."""

    def case(seed: int) -> Case:
        clean, test, labels, options = sensors(seed)
        spoilt, rng = clean.copy(), np.random.default_rng(seed + 100)
        for column in columns:
            spoilt[rng.choice(len(clean), round(share * len(clean)), replace=False), column] = code
        return Case(clean, spoilt, test, labels, options, options)

    return case


def unlike_columns(percents: int, others: int, size: float, offset: float) -> Callable[[int], Case]:
    """Percentages that reach 0 and 100 beside columns of another unit, anomalies in the latter; "standard" is right."""

    def case(seed: int) -> Case:
        rng = np.random.default_rng(seed)
        mixing = rng.normal(size=(3, percents + others))

        def rows(n: int) -> Rows:
            mixed = rng.normal(size=(n, 3)) @ mixing + 0.15 * rng.normal(size=(n, percents + others))
            left = (100 / (1 + np.exp(-4 * mixed[:, :percents]))).round(1)
            return np.c_[left, np.abs(size * mixed[:, percents:] + offset)]

        train, fine, off = rows(3000), rows(400), rows(400)
        off[:, percents:] = rng.permuted(off[:, percents:], axis=0)  # each value in range, but out of step
        options = {"latent": 5}
        test, labels = np.r_[fine, off], np.repeat([0, 1], 400)
        return Case(train, train, test, labels, options | {"scaling": "standard"}, options)

    return case


def spiked_windows(seed: int) -> Case:
    """Two channels of 64 samples with unlike units; single samples of validation and training windows jump."""
    rng = np.random.default_rng(seed)

    def windows(n: int, speed: float = 1.0) -> Rows:
        angle = rng.uniform(0, 6.28, (n, 1)) + speed * np.arange(64) / 5
        waves = np.stack([np.sin(angle), 100 * np.sin(angle + 1)], axis=1)
        return waves + rng.normal(size=waves.shape) * np.array([[0.1], [10]])

    clean, fine, off = windows(500), windows(200), windows(200, 1.15)
    spoilt = clean.copy()
    train, validation = held_out(len(clean))
    for row, channel, value in ((train[7], 0, 500.0), (validation[3], 1, -1e5), (validation[9], 0, 1e20)):
        spoilt[row, channel, 20] = value
    options = {"family": "conv1d", "latent": 4, "epochs": 20}
    return Case(clean, spoilt, np.r_[fine, off], np.repeat([0, 1], 200), options, options)


def samples_first(family: str, **asked: Any) -> Callable[[int], Case]:
    """Windows of a valve (0 to 1) and a motor (about 2 000), as (channels, samples) and as (samples, channels)."""

    def case(seed: int) -> Case:
        rng, t = np.random.default_rng(seed), np.arange(40) / 40

        def windows(n: int, speed: float = 12.0) -> Rows:
            phases = rng.uniform(0, 6.28, (2, n, 1))
            valve = 0.5 + 0.4 * np.sin(speed * t + phases[0]) + 0.02 * rng.normal(size=(n, 40))
            motor = 2000 + 300 * np.sin(6 * t + phases[1]) + 10 * rng.normal(size=(n, 40))
            return np.stack([valve, motor], axis=1).astype(np.float32)

        clean, test = windows(1500), np.concatenate([windows(300), windows(300, 20.0)])
        options = {"family": family, "latent": 4, "epochs": 30}
        last = [rows.transpose(0, 2, 1) for rows in (clean, test)]
        return Case(clean, last[0], last[1], np.repeat([0, 1], 300), options, options | asked, test)

    return case


def wavelengths(seed: int) -> Case:
    """Spectra in text files whose header is "w400,w440,…" (clean) or "400,440,…"."""
    rng, lengths = np.random.default_rng(seed), np.arange(400, 2500, 40)
    bands = np.stack([np.exp(-(((lengths - c) / s) ** 2)) for c, s in ((900, 200), (1450, 150), (1940, 120))])

    def rows(n: int) -> Rows:
        return rng.uniform(0.2, 1, (n, 3)) @ bands + 0.01 * rng.normal(size=(n, len(lengths)))

    train, fine, off = rows(150), rows(100), rows(100) + 0.3 * np.exp(-(((lengths - 1700) / 60) ** 2))
    found = []
    with TemporaryDirectory() as folder:
        for names in ([f"w{length}" for length in lengths], [str(length) for length in lengths]):
            path = Path(folder) / "spectra.csv"
            np.savetxt(path, train, delimiter=",", header=",".join(names), comments="", fmt="%.5f")
            found.append(read(path).X)
    options = {"latent": 4}
    return Case(*found, np.r_[fine, off].astype(np.float32), np.repeat([0, 1], 100), options, options)


def flags(seed: int) -> Case:
    """Sixteen flags that depend on four, as floats and as bytes; anomalies are out of step."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(4, 16))

    def rows(n: int) -> Rows:
        return (rng.normal(size=(n, 4)) @ mixing > 0).astype(np.uint8)

    train, fine, off = rows(1500), rows(300), rows(300)
    test, labels = np.r_[fine, rng.permuted(off, axis=0)], np.repeat([0, 1], 300)
    options = {"latent": 4, "epochs": 30}
    return Case(train.astype(bool), train, test, labels, options, options, test.astype(bool))


CASES: dict[str, Callable[[int], Case]] = {
    "100 in a validation row": glitches(("validation", 10, 2, 100)),
    "1e25 in a validation row": glitches(("validation", 10, 2, 1e25)),
    "1e38 in a training row": glitches(("train", 10, 2, 1e38)),
    "100 in a training row": glitches(("train", 10, 2, 100)),
    "12 (moderate) in a validation row": glitches(("validation", 10, 2, 12)),
    "several glitches in both": glitches(
        ("train", 3, 0, 60), ("train", 500, 5, -1e12), ("validation", 10, 2, 1e25), ("validation", 50, 4, -300)
    ),
    "-9999 in 3 % of the rows": codes(0.03),
    "-9999 in 20 % of the rows": codes(0.2),
    "999 in 3 % of each column": codes(0.03, tuple(range(6)), 999),
    "9 percentages, 6 columns near 0.5": unlike_columns(9, 6, 0.05, 0.5),
    "8 percentages, 4 columns 0 to 15": unlike_columns(8, 4, 4.0, 0.0),
    "20 percentages, 1 column 0 to 1": unlike_columns(20, 1, 0.3, 0.0),
    "spikes in two-channel windows": spiked_windows,
    "flags as bytes": flags,
    "(samples, channels), dense": samples_first("dense"),
    "(samples, channels), conv1d": samples_first("conv1d"),
    '(samples, channels), conv1d, axes="ntc"': samples_first("conv1d", axes="ntc"),
    "wavelengths as names": wavelengths,
}


def auc(train: Rows, options: dict[str, Any], test: Rows, labels: Rows) -> float:
    estimator = Autoencoder(calibration=0, random_state=TRAINING_SEED, **options).fit(train)
    return float(roc_auc_score(labels, estimator.reconstruction_error(test)))


def compared(case: Case) -> tuple[float, float]:
    """ROC AUC after training on the clean rows, and on the spoilt ones."""
    clean_test = case.test if case.clean_test is None else case.clean_test
    return (
        auc(case.clean, case.clean_options, clean_test, case.labels),
        auc(case.spoilt, case.spoilt_options, case.test, case.labels),
    )


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [
        "# ROC AUC of anomaly scores, trained on clean and on spoilt rows, data seeds 0 to 9",
        "",
        "| case | clean, mean | spoilt, mean | spoilt, worst | largest loss of a seed |",
        "|---|---|---|---|---|",
    ]
    for name in sys.argv[1:] or CASES:
        cases = [CASES[name](seed) for seed in SEEDS]
        clean, spoilt = np.array([compared(case) for case in cases]).T
        numbers = (clean.mean(), spoilt.mean(), spoilt.min(), (clean - spoilt).max())
        lines.append(f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
        progress(lines[-1])
    text = "\n".join(lines) + "\n"
    print(text)
    if len(sys.argv) == 1:
        (RESULTS / "spoilt_data.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
