"""Univariate streams, scored as the Numenta Anomaly Benchmark scores them (standard profile).

    python benchmarks/nab.py FOLDER [--output OUT] [--detector aeedge] [--save NAME]

Every CSV (timestamp, value) below FOLDER that windows.json (or combined_windows.json, with names such as
"realTweets/file.csv") has labels for is streamed, row by row in the order of the file. The autoencoder is trained on
windows of the first 15 % of the rows, at most 750, and runs as a bundle on `aeedge.Stream(model, adapt=True)`; all
settings are the same for all files, and the rest of the file is seen only as it comes. One threshold for all files is
chosen for the best score, as NAB does.

Under OUT, per row, are results as NAB's own scorer reads them (OUT/aeedge/DIRECTORY/aeedge_FILE.csv).

Detectors to compare with: "gaussian", the Windowed Gaussian of NAB (39.6 on its corpus), "zscore", values against an
exponentially weighted mean, and "change", the likelihood of plain changes from row to row.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from common import fingerprint, progress, publish
from nab_scoring import Outcome, Scored, Window, best_outcome, outcome, probationary
from numpy.typing import NDArray

import aeedge
from aeedge.errors import InputError
from aeedge.signals.likelihood import FALSE_ALARM_RATE, Likelihood
from aeedge.table import columns
from aeedge_export import Autoencoder, window

WINDOW = 8  # rows
GAUSSIAN_WINDOW, GAUSSIAN_STEP = 6_400, 100  # NAB's settings
HEAD = ["detector", "score", "windows found", "false alarms a day", "delay (share of a window)"]
Floats = NDArray[np.float64]
Detector = Callable[[Floats, int], Floats]  # values, rows to train on -> scores of rows


def read(folder: Path) -> dict[str, tuple[list[str], Floats, Floats, list[Window]]]:
    """Of each labelled file below a folder: timestamps, seconds, values, and the rows of the windows.

    Raises:
        SystemExit: there are no labels, or no file.
    """
    labels = [*folder.rglob("combined_windows.json"), *folder.rglob("windows.json")]
    if not labels:
        raise SystemExit(f"{folder}: expected windows.json or combined_windows.json in it, found none")
    document, found = json.loads(labels[0].read_text(encoding="utf-8")), {}
    for path in sorted(folder.rglob("*.csv")):
        names = [path.relative_to(base).as_posix() for base in path.parents if base == folder or folder in base.parents]
        name = next((name for name in names if name in document), None)
        if name is None:
            continue
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        stamps = [row["timestamp"] for row in rows]
        seconds = np.array([_seconds(stamp) for stamp in stamps])
        values = np.array([float(row["value"]) for row in rows])
        bounds = [np.flatnonzero((seconds >= _seconds(a)) & (seconds <= _seconds(b))) for a, b in document[name]]
        found[name] = stamps, seconds, values, [(int(at[0]), int(at[-1])) for at in bounds if len(at)]
    if not found:
        raise SystemExit(f"{folder}: expected CSV files that {labels[0].name} names, found none")
    return found


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).replace(tzinfo=timezone.utc).timestamp()


def autoencoder(values: Floats, first: int) -> Floats:
    """Likelihoods of a stream that adapts, by an autoencoder of the first rows; a row is the newest of a window."""
    cut = window(values[:first].astype(np.float32), window=WINDOW, hop=1)
    model = Autoencoder(random_state=0, threads=1).fit_rows(cut.X, signal=cut.signal)
    with tempfile.TemporaryDirectory() as folder:
        model.export(Path(folder) / "series.aeedge")
        with aeedge.load(Path(folder) / "series.aeedge", threads=1) as bundle:
            events = aeedge.Stream(bundle, adapt=True).push(values.astype(np.float32))
    scores = np.zeros(len(values))
    for event in events:
        scores[event.index + WINDOW - 1] = 0.0 if math.isnan(event.likelihood) else event.likelihood
    return scores


def gaussian(values: Floats, first: int) -> Floats:
    """Tail probabilities of a normal distribution that is fitted to the last rows, now and then: NAB's baseline."""
    del first
    scores, first_row, last_row = np.zeros(len(values)), 0, 0
    for row in range(1, len(values)):
        if row <= GAUSSIAN_WINDOW or (row - GAUSSIAN_WINDOW) % GAUSSIAN_STEP == 0:
            first_row, last_row = max(0, row - GAUSSIAN_WINDOW), row
        part = values[first_row:last_row]
        distance = abs(values[row] - part.mean()) / (part.std() or 1e-6)
        scores[row] = 1 - 0.5 * math.erfc(distance / math.sqrt(2))
    return scores


def rolling(values: Floats, first: int) -> Floats:
    """Distances from an exponentially weighted mean in standard deviations, as a likelihood."""
    del first
    scores, mean, variance = np.zeros(len(values)), float(values[0]), 0.0
    for row, value in enumerate(values.tolist()):
        change, weight = value - mean, 1 / min(row + 1, 2_000)
        if row > 30 and variance > 0:
            scores[row] = -math.expm1(-abs(change) / math.sqrt(variance))
        mean += weight * change
        variance = (1 - weight) * (variance + weight * change * change)
    return scores


def change(values: Floats, first: int) -> Floats:
    """Likelihoods of changes from row to row: the same as `autoencoder` without one."""
    steps = np.abs(np.diff(values, prepend=values[0]))
    steps /= steps[:first].std() or 1.0
    likelihood = Likelihood()
    return np.array([likelihood.update([step * step]) for step in steps.tolist()])


DETECTORS: dict[str, Detector] = {
    "aeedge": autoencoder,
    "change": change,
    "zscore": rolling,
    "gaussian": gaussian,
}


def run(detector: str, values: Floats) -> tuple[Floats, str]:
    """Scores of the rows, and why there are none."""
    warnings.simplefilter("ignore")  # about outliers and drift in a few hundred rows
    try:
        return DETECTORS[detector](values, probationary(len(values))), ""
    except InputError as error:
        return np.zeros(len(values)), str(error)


def write_results(folder: Path, detector: str, name: str, stamps: list[str], values: Floats, file: Scored) -> None:
    """Rows as NAB's own scorer reads them."""
    path = folder / detector / Path(name).parent / f"{detector}_{Path(name).name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.zeros(len(values), int)
    for first, last in file.windows:
        label[first : last + 1] = 1
    rows = zip(stamps, values.tolist(), file.scores.tolist(), label.tolist())
    lines = (f"{stamp},{value!r},{score!r},{one}\n" for stamp, value, score, one in rows)
    path.write_text("timestamp,value,anomaly_score,label\n" + "".join(lines), encoding="utf-8")


def said(found: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    return {
        "score": round(found.score, 1),
        "found": found.found,
        "windows": found.windows,
        "false_alarms_per_day": round(found.false_alarms / max(found.days, 1e-9), 3),
        "days": round(found.days, 1),
        "delay": None if math.isnan(found.delay) else round(found.delay, 2),
        "threshold": found.threshold if math.isfinite(found.threshold) else None,
    }


def row_of(detector: str, found: Outcome) -> list[str]:
    """An outcome as a row of a table."""
    rate = found.false_alarms / max(found.days, 1e-9)
    return [detector, f"{found.score:.1f}", f"{found.found} of {found.windows}", f"{rate:.3f}", f"{found.delay:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, help="write per-row results in NAB's format below this folder")
    parser.add_argument("--detector", action="append", choices=list(DETECTORS), help="repeatable [default: all]")
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    series = read(arguments.folder)
    results: dict[str, Any] = {}
    rows: list[list[str]] = []
    for detector in arguments.detector or DETECTORS:
        with ProcessPoolExecutor(arguments.workers) as pool:
            scores = list(pool.map(run, [detector] * len(series), [values for _, _, values, _ in series.values()]))
        files = []
        for (name, (stamps, seconds, values, windows)), (found, problem) in zip(series.items(), scores):
            if problem:
                progress(f"{name}: {problem}")
            files.append(Scored(name, found, windows, probationary(len(values)), seconds - seconds[0]))
            if arguments.output:
                write_results(arguments.output, detector, name, stamps, values, files[-1])
        best = best_outcome(files)
        groups = defaultdict(list)
        for file in files:
            groups[str(Path(file.name).parent) if "/" in file.name else file.name.rsplit("_", 1)[0]].append(file)
        results[detector] = said(best) | {"groups": {k: said(outcome(v, best.threshold)) for k, v in groups.items()}}
        rows.append(row_of(detector, best))
        if detector in ("aeedge", "change"):
            default = outcome(files, 1 - FALSE_ALARM_RATE)
            results[detector]["at the default threshold"] = said(default)
            rows.append(row_of(f"{detector}, threshold {1 - FALSE_ALARM_RATE}", default))
    if arguments.save:
        publish(arguments.save, {"machine": fingerprint(), "detectors": results}, HEAD, rows)
    else:
        print(columns(HEAD, rows))


if __name__ == "__main__":
    main()
