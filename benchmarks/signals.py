"""Alarms on real signals, by the product's own defaults: `python benchmarks/signals.py FOLDER`.

FOLDER has `pump/*.csv` (valve2 of the Skoltech Anomaly Benchmark: eight sensors once a second, `anomaly` says which
seconds are faulty) and `ecg.npz` (record 100 of the MIT-BIH Arrhythmia Database); what is missing is passed over. Each
pump is trained on its first 400 seconds; windows of 60 seconds are then streamed second by second, and the alarm of a
window is that of its last second. Writes results/signals.json; `--plants N` does the same with N simulated plants.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plants import plant
from scipy import stats

import aeedge
from aeedge.table import columns
from aeedge_export import Autoencoder

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import ecg

RESULTS = Path(__file__).parent / "results" / "signals.json"
WINDOW, TRAINED = 60, 400  # seconds of the pump
FOLDS, BELOW = 4, 0.9  # of the calibration of short recordings, as in aeedge_export.fitting

Mask = NDArray[np.bool_]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plants", type=int, default=0, metavar="N")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    files = sorted((options.folder / "pump").glob("*.csv"))
    if files:
        found["pump"] = compared({file.stem: read_pump(file) for file in files}, ("autoencoder", "conv1d", "trivial"))
    if options.plants:
        found["plants"] = compared({str(seed): plant(seed) for seed in range(1000, 1000 + options.plants)})
    if (options.folder / "ecg.npz").exists():
        found["ecg"] = ecg.measured(ecg.read(options.folder), Path(tempfile.mkdtemp()))[0]
    for name in ("pump", "plants"):
        if name in found:
            print(f"{name}: {len(found[name]['autoencoder']) - 1} recordings")
            print(table(found[name], every=name == "pump"))
            print()
    if "ecg" in found:
        print(json.dumps(found["ecg"], indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read_pump(file: Path) -> tuple[NDArray[np.float32], Mask]:
    """Readings (seconds, 8), and which seconds are faulty."""
    lines = [line.split(";") for line in file.read_text(encoding="utf-8").splitlines()]
    rows = np.array([line[1:] for line in lines[1:]], float)
    return rows[:, :-2].astype(np.float32), rows[:, lines[0].index("anomaly") - 1] > 0


def compared(
    recordings: dict[str, tuple[NDArray[np.float32], Mask]], detectors: tuple[str, ...] = ("autoencoder", "trivial")
) -> dict[str, Any]:
    """Rates of each detector for each recording and for all of them."""
    known = {"autoencoder": autoencoder, "conv1d": conv1d, "trivial": trivial}
    return {name: _rates({key: known[name](*found) for key, found in recordings.items()}) for name in detectors}


def autoencoder(x: NDArray[np.float32], faulty: Mask, **parameters: Any) -> dict[str, int]:
    """Counts of alarms of a stream of an exported bundle."""
    with tempfile.TemporaryDirectory() as folder:
        windows = aeedge.window(x[:TRAINED], WINDOW, 1)
        bundle = Path(folder) / "pump.aeedge"
        Autoencoder(channels="last", random_state=0, **parameters).fit(windows).export(bundle)
        stream = aeedge.Stream(aeedge.load(bundle), hop=1)
        alarms, drift = np.zeros(len(x), np.bool_), np.zeros(len(x), np.bool_)
        for event in stream.push(x):
            alarms[round(event.end)] = event.exceeded
            drift[round(event.end)] = event.drift >= 1
    return _counts(alarms, faulty) | {"false alarms with drift": int((alarms & ~faulty & drift)[TRAINED:].sum())}


def conv1d(x: NDArray[np.float32], faulty: Mask) -> dict[str, int]:
    """The same with a convolutional network."""
    return autoencoder(x, faulty, family="conv1d")


def trivial(x: NDArray[np.float32], faulty: Mask) -> dict[str, int]:
    """Counts of alarms of the mean squared z-score of the window, whose threshold is calibrated in the same way."""

    def scores(train: NDArray[np.float32], windows: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.square((windows - train.mean(axis=0)) / train.std(axis=0)).mean(axis=(1, 2))

    windows = aeedge.window(x, WINDOW, 1)
    known = np.arange(TRAINED - WINDOW + 1)
    peaks = []
    for fold in np.array_split(known, FOLDS):
        rest = np.setdiff1d(np.arange(TRAINED), np.arange(fold[0], fold[-1] + WINDOW))
        peaks.append(np.log(scores(x[rest], windows[fold]).max()))
    width = stats.t.ppf(BELOW, FOLDS - 1) * np.std(peaks, ddof=1) * np.sqrt(1 + 1 / FOLDS)
    alarms = np.zeros(len(x), np.bool_)
    alarms[WINDOW - 1 :] = scores(x[:TRAINED], windows) > np.exp(np.mean(peaks) + width)
    return _counts(alarms, faulty)


def _counts(alarms: Mask, faulty: Mask) -> dict[str, int]:
    """Of the seconds after the training."""
    alarms, faulty = alarms[TRAINED:], faulty[TRAINED:]
    return {
        "found": int((alarms & faulty).sum()),
        "missed": int((~alarms & faulty).sum()),
        "false alarms": int((alarms & ~faulty).sum()),
        "quiet": int((~alarms & ~faulty).sum()),
    }


def _rates(counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The counts and rates of each recording, and of all seconds together."""
    names = next(iter(counts.values()))
    total = {name: sum(one[name] for one in counts.values()) for name in names}
    found = {}
    for key, one in {**counts, "all": total}.items():
        hit, missed, false, quiet = (one[name] for name in ("found", "missed", "false alarms", "quiet"))
        found[key] = {
            "f1": round(2 * hit / max(1, 2 * hit + missed + false), 3),
            "false_alarm_rate": round(false / max(1, false + quiet), 3),
            "missed_rate": round(missed / max(1, hit + missed), 3),
            **one,
        }
    return found


def table(found: dict[str, Any], *, every: bool) -> str:
    """A table of the rates, of `every` recording or of all together."""
    rows = []
    for detector, rates in found.items():
        for key, one in rates.items():
            if every or key == "all":
                shares = [f"{100 * one[name]:.0f} %" for name in ("false_alarm_rate", "missed_rate")]
                rows.append([detector, key, f"{one['f1']:.2f}", *shares])
    return columns(["detector", "recording", "F1", "false alarms", "missed"], rows)


if __name__ == "__main__":
    main()
