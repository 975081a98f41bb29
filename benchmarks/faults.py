"""Which sensor is it? Faults are injected into normal rows of real tables; does `Model.explain` name the sensor?

The tables are in the folder given as argument: X and y (1 = outlier) of ODDS as .npz (cardio, satellite, vowels,
letter), and pump/*.csv (columns of numbers, the last two of them labels). Only normal rows are used: half of them to
train with the defaults, a quarter to set the threshold (split conformal, 1 %), a quarter to inject faults into. Each of
these rows gets each fault, in a sensor that is drawn. A fault is detected where its row raises an alarm that it did not
raise before. Beside `explain`, the largest residual is counted, which needs no method. The settings of `explain` were
chosen on synthetic data.

    python benchmarks/faults.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import fingerprint, progress, publish_all
from numpy.typing import NDArray

import aeedge
from aeedge.bundle.manifest import SCORES
from aeedge_export import Autoencoder, export_bundle
from aeedge_export.scoring import DEFAULT

RATE, SEEDS, TOP = 0.01, (0, 1, 2), 3
TABLES = ("cardio", "satellite", "vowels", "letter")
FEWEST_ROWS = 600  # a fault of each kind in each test row, several times for small tables

Rows = NDArray[np.float32]
Sensors = NDArray[np.intp]


def either(rng: np.random.Generator, count: int) -> NDArray[Any]:
    """Signs, drawn."""
    return rng.choice([-1.0, 1.0], count)


def stuck(value: Rows, column: Rows, rng: np.random.Generator) -> NDArray[Any]:
    """At what the sensor read in another normal row."""
    return rng.choice(column, len(value))


def gain(value: Rows, column: Rows, rng: np.random.Generator) -> NDArray[Any]:
    """Readings are half, one and a half times or twice what they should be."""
    return value * rng.choice([0.5, 1.5, 2.0], len(value))


def offset(value: Rows, column: Rows, rng: np.random.Generator) -> NDArray[Any]:
    """By 2 to 5 standard deviations."""
    return value + column.std() * rng.uniform(2, 5, len(value)) * either(rng, len(value))


def dropout(value: Rows, column: Rows, rng: np.random.Generator) -> NDArray[Any]:
    """Reads 0, whatever that means to the sensor."""
    return np.zeros_like(value)


def spike(value: Rows, column: Rows, rng: np.random.Generator) -> NDArray[Any]:
    """By 6 to 12 standard deviations."""
    return value + column.std() * rng.uniform(6, 12, len(value)) * either(rng, len(value))


FAULTS: dict[str, Callable[[Rows, Rows, np.random.Generator], NDArray[Any]]] = {
    "stuck": stuck,
    "gain": gain,
    "offset": offset,
    "dropout": dropout,
    "spike": spike,
}
SWAPPED = "swapped"


def faulty(kind: str, rows: Rows, train: Rows, rng: np.random.Generator) -> tuple[Rows, Sensors]:
    """Rows with a fault each, and which sensors it is in, (n, 1), or (n, 2) of swapped ones."""
    n, width = rows.shape
    found, i, sensor = rows.copy(), np.arange(n), rng.integers(width, size=n)
    if kind == SWAPPED:
        other = (sensor + rng.integers(1, width, n)) % width
        found[i, sensor], found[i, other] = rows[i, other], rows[i, sensor]
        return found, np.stack([sensor, other], axis=1)
    for j in range(width):
        at = sensor == j
        found[at, j] = FAULTS[kind](rows[at, j], train[:, j], rng)
    return found, sensor[:, np.newaxis]


def examined(model: aeedge.Model, threshold: float, quiet: Rows, rows: Rows, sensors: Sensors) -> dict[str, int]:
    """How many faults there were in `rows`, were detected, and were named; `quiet` are the rows without the faults."""
    scores = model.score(rows)
    found = rows[alarms := scores > threshold]
    doubled = (scores >= 2 * model.score(quiet))[alarms]
    named = model.explain(found, TOP) if len(found) else []
    places = np.array([[cause.index[0] for cause in causes] for causes in named]).reshape(-1, TOP)
    right = (places[:, :, np.newaxis] == sensors[alarms][:, np.newaxis]).any(axis=2)
    largest = np.abs(model.residual(found)).argmax(axis=1) if len(found) else np.zeros(0, int)
    return {
        "faults": len(rows),
        "detected": len(found),
        "top 1": int(right[:, 0].sum()),
        "top 3": int(right.any(axis=1).sum()),
        "doubled": int(doubled.sum()),
        "doubled, top 1": int((doubled & right[:, 0]).sum()),
        "largest residual": int((largest[:, np.newaxis] == sensors[alarms]).any(axis=1).sum()),
    }


def exported(ae: Autoencoder, kind: str, folder: str) -> aeedge.Model:
    run = ae.run_
    encoder, decoder = run.network.exportable()
    path, scaler = f"{folder}/{kind}.aeedge", (run.scaler.mean, run.scaler.scale)
    export_bundle(encoder=encoder, decoder=decoder, path=path, example=run.sample, scaler=scaler, score_kind=kind)
    return aeedge.load(path, threads=1)


def table(name: str, X: Rows) -> dict[str, Any]:
    """Counts by kind of score and of fault, over all seeds."""
    total: dict[str, dict[str, dict[str, int]]] = {score: {} for score in SCORES}
    for seed in SEEDS:
        mixed = np.random.default_rng(seed).permutation(X)
        train, calibration, test = np.split(mixed, [len(X) // 2, len(X) * 3 // 4])
        ae = Autoencoder(random_state=seed, threads=1).fit(train)
        test = np.tile(test, (-(-FEWEST_ROWS // len(test)), 1))
        for score in SCORES:
            with tempfile.TemporaryDirectory() as folder, exported(ae, score, folder) as model:
                threshold = float(np.sort(model.score(calibration))[-max(1, int(RATE * (len(calibration) + 1)))])
                quiet = test[model.score(test) <= threshold]
                for fault in (*FAULTS, SWAPPED):
                    rng = np.random.default_rng([seed, 1])
                    counts = examined(model, threshold, quiet, *faulty(fault, quiet, train, rng))
                    before = total[score].setdefault(fault, dict.fromkeys(counts, 0))
                    total[score][fault] = {key: before[key] + value for key, value in counts.items()}
    progress(f"{name}: {X.shape}")
    return {"name": name, "rows": len(X), "sensors": X.shape[1], "scores": total}


def summed(counts: list[dict[str, int]]) -> dict[str, int]:
    return {key: sum(one[key] for one in counts) for key in counts[0]}


def cell(counts: dict[str, int]) -> str:
    """The share that is named of those detected, and their number."""
    return f"{counts['top 1'] / counts['detected']:.1%} ({counts['detected']})" if counts["detected"] else "- (0)"


def by_table(found: list[dict[str, Any]], score: str) -> list[list[str]]:
    """A row for each table, a column for each fault."""
    kinds = (*FAULTS, SWAPPED)
    lines = [[row["name"], *(cell(row["scores"][score][kind]) for kind in kinds)] for row in found]
    return [*lines, ["all", *(cell(summed([row["scores"][score][kind] for row in found])) for kind in kinds)]]


def by_score(found: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each kind of score, of all faults in a single sensor."""
    lines = []
    for score in SCORES:
        n = summed([row["scores"][score][kind] for row in found for kind in FAULTS])
        shares = [f"{n[key] / n['detected']:.1%}" for key in ("top 1", "top 3", "largest residual")]
        lines.append([score, f"{n['faults']}", f"{n['detected'] / n['faults']:.1%}", *shares])
    return lines


def by_fault(found: list[dict[str, Any]], score: str) -> list[list[str]]:
    """A row for each fault, of all tables."""
    lines = []
    for kind in (*FAULTS, SWAPPED):
        n = summed([row["scores"][score][kind] for row in found])
        shares = [f"{n[key] / n['detected']:.1%}" for key in ("top 1", "top 3", "largest residual")]
        doubled = f"{n['doubled, top 1'] / n['doubled']:.1%} ({n['doubled']})"
        lines.append([kind, f"{n['faults']}", f"{n['detected']}", *shares, doubled])
    return lines


def normal_rows(folder: Path) -> dict[str, Rows]:
    found = {}
    for name in TABLES:
        with np.load(folder / f"{name}.npz") as data:
            found[name] = data["X"][data["y"] == 0].astype(np.float32)
    for path in sorted((folder / "pump").glob("*.csv")):
        rows = np.genfromtxt(path, delimiter=";", skip_header=1)[:, 1:]
        found[f"pump {path.stem}"] = rows[rows[:, -2] == 0, :-2].astype(np.float32)
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    warnings.simplefilter("ignore")
    found = [table(name, X) for name, X in normal_rows(Path(sys.argv[1])).items()]
    head = ["table", *FAULTS, SWAPPED]
    named = ["faults", "detected", "named first", "among three", "largest residual"]
    tables = {
        "Faults in one sensor, all tables, by kind of score": (["score", *named], by_score(found)),
        f"All tables, score {DEFAULT}": (["fault", *named, "first, score at least doubled"], by_fault(found, DEFAULT)),
        **{
            f"Named first, of those detected (their number), score {score}": (head, by_table(found, score))
            for score in SCORES
        },
    }
    result = {"fingerprint": fingerprint(), "rate": RATE, "seeds": SEEDS, "tables": found}
    publish_all("faults", result, tables)


if __name__ == "__main__":
    main()
