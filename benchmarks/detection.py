"""Which anomaly score ranks best, and is the false-alarm rate kept that was asked for?

ranking: ROC AUC and average precision (PR AUC) of every kind of score, beside PyOD's AutoEncoder, IForest, ECOD and PCA
in the same run. Tables of X and y (1 = outlier) of ODDS in FOLDER (cardio, letter, satellite, vowels, as .npz): 60/40
split, standardised, ten seeds, trained on everything, outliers included, and once more on normal rows alone. Files of
a pump in time order (FOLDER/pump/*.csv, Skoltech Anomaly Benchmark): trained on the first 400 rows, all before the
fault, and scored on the others. Labels are for scoring only.

conformal: one network per table, trained on 300 normal rows; the other normal rows are split into calibration and test
rows 1 000 times. The alarms among the test rows are compared with the exact (beta-binomial) band of split conformal
prediction, which holds for any network. And as a user meets it: an estimator is fitted to 60 % of the normal rows, some
of which it holds out for its threshold, and predicts the others.

    python benchmarks/detection.py FOLDER [--part ranking|conformal] [--quick]
"""

from __future__ import annotations

import argparse
import csv
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import Table, fingerprint, kept_as, progress, publish_all
from numpy.typing import NDArray
from scipy.stats import betabinom, binomtest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from aeedge.detection.calibration import Calibration
from aeedge.errors import InputError
from aeedge_export import Autoencoder

KINDS = ("mse", "robust", "mahalanobis", "both")
PEERS = ("PyOD AutoEncoder", "PyOD IForest", "PyOD ECOD", "PyOD PCA")
TABLES = ("cardio", "letter", "satellite", "vowels")
SEEDS = range(10)  # single networks differ by 0.1 on the pump
FIRST = 400  # rows of a pump, before its fault
RATES = (0.1, 0.01, 0.001)
CALIBRATED = (50, 100, 1000)  # rows; the two smaller sizes must be refused at the lower rates
FITTED = 300  # rows: the guarantee holds for any network, and then 1 000 rows are left to calibrate on
RESPLITS, COVERAGE = 1000, 0.99
Rows = NDArray[Any]
Detector = Callable[[Rows, Rows], Rows]


@dataclass(frozen=True)
class Task:
    """A table to rank.

    Attributes:
        name: for people.
        X, y: rows (n, d) and labels (n,), 1 for anomalies.
        first: train on this many rows at the start, in time order; None for a random split.
        normal: train on normal rows alone.
    """

    name: str
    X: Rows
    y: Rows
    first: int | None = None
    normal: bool = False

    def split(self, seed: int) -> tuple[Rows, Rows, Rows]:
        """Training rows, test rows, labels of the test rows; standardised, float32."""
        if self.first is not None:
            train, test, labels = self.X[: self.first], self.X[self.first :], self.y[self.first :]
        else:
            train, test, known, labels = train_test_split(
                self.X, self.y, test_size=0.4, random_state=seed, stratify=self.y
            )
            train = train[known == 0] if self.normal else train
        scaler = StandardScaler().fit(train)
        return scaler.transform(train).astype(np.float32), scaler.transform(test).astype(np.float32), labels


def labelled(folder: Path) -> dict[str, tuple[Rows, Rows]]:
    """Rows and labels of the tables, by name."""
    found = {}
    for name in TABLES:
        with np.load(folder / f"{name}.npz") as table:
            found[name] = table["X"], table["y"].astype(int)
    return found


def pumps(folder: Path) -> dict[str, tuple[Rows, Rows]]:
    """The eight sensors and the label of each pump file, by name."""
    found = {}
    for path in sorted((folder / "pump").glob("*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        sensors = [name for name in rows[0] if name not in ("datetime", "anomaly", "changepoint")]
        X = np.array([[float(row[name]) for name in sensors] for row in rows], np.float32)
        found[f"pump {path.stem}"] = X, np.array([float(row["anomaly"]) for row in rows]).astype(int)
    return found


def tasks(folder: Path) -> dict[str, list[Task]]:
    """What is ranked, in groups of which means are taken."""
    tables = labelled(folder)
    return {
        "outliers among the training rows": [Task(name, *table) for name, table in tables.items()],
        "pump, in time order": [Task(name, *table, first=FIRST) for name, table in pumps(folder).items()],
        "normal training rows alone": [Task(name, *table, normal=True) for name, table in tables.items()],
    }


def ours(kind: str, seed: int, ordered: bool, **options: Any) -> Detector:
    """This package with a kind of score."""

    def scores(train: Rows, test: Rows) -> Rows:
        ae = Autoencoder(score_kind=kind, time_ordered=ordered, random_state=seed, threads=1, **options).fit(train)
        return -ae.score_samples(test)

    return scores


def peers(seed: int) -> dict[str, Detector]:
    """PyOD's detectors with their defaults."""
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.ecod import ECOD
    from pyod.models.iforest import IForest
    from pyod.models.pca import PCA

    made = AutoEncoder(random_state=seed, verbose=0), IForest(random_state=seed), ECOD(), PCA(random_state=seed)
    return {
        name: lambda train, test, model=model: model.fit(train).decision_function(test)
        for name, model in zip(PEERS, made)
    }


def ranked(labels: Rows, scores: Rows) -> tuple[float, float]:
    """ROC AUC and average precision; an infinite score counts as the highest."""
    finite = np.nan_to_num(scores.astype(np.float64), posinf=np.finfo(np.float64).max)
    return float(roc_auc_score(labels, finite)), float(average_precision_score(labels, finite))


def ranking(
    groups: Mapping[str, Sequence[Task]],
    seeds: Sequence[int] = SEEDS,
    others: Callable[[int], dict[str, Detector]] = peers,
    **options: Any,
) -> list[dict[str, Any]]:
    """For each task both areas of each detector, by seed and on average; `options` are the estimator's."""
    found = []
    for group, members in groups.items():
        for task in members:
            areas: dict[str, list[tuple[float, float]]] = {}
            for seed in seeds:
                train, test, labels = task.split(seed)
                detectors = {kind: ours(kind, seed, task.first is not None, **options) for kind in KINDS}
                for name, detector in (detectors | others(seed)).items():
                    areas.setdefault(name, []).append(ranked(labels, detector(train, test)))
            found.append({"group": group, "name": task.name, "seeds": areas, "mean": averaged(areas)})
            progress(f"{task.name}: " + ", ".join(f"{name} {roc:.3f}" for name, (roc, _) in found[-1]["mean"].items()))
    return found


def averaged(areas: Mapping[str, Any]) -> dict[str, list[float]]:
    return {name: np.mean(values, axis=0).tolist() for name, values in areas.items()}


def ranking_tables(found: Sequence[dict[str, Any]]) -> dict[str, Table]:
    """Both areas, detector by detector; a table for each group, with its mean."""
    tables = {}
    for group in dict.fromkeys(row["group"] for row in found):
        rows = [row for row in found if row["group"] == group]
        means = [*(row["mean"] for row in rows), mean_of(rows)]
        head = ["ROC AUC / PR AUC", *(row["name"] for row in rows), "mean"]
        body = [[name, *("{:.3f} / {:.3f}".format(*mean[name]) for mean in means)] for name in means[0]]
        tables[group[0].upper() + group[1:]] = head, body
    return tables


def mean_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return averaged({name: [row["mean"][name] for row in rows] for name in rows[0]["mean"]})


def verdict(found: Sequence[dict[str, Any]], peer: str = PEERS[0]) -> dict[str, Any]:
    """The kind with the best mean ROC AUC over tables and pumps, and its margins over the peer."""
    rows = [row for row in found if row["group"] != "normal training rows alone"]
    mean = mean_of(rows)
    best = max(KINDS, key=lambda kind: mean[kind])
    margins = {row["name"]: row["mean"][best][0] - row["mean"][peer][0] for row in rows}
    return {
        "best": best,
        "mean": mean,
        "margin": mean[best][0] - mean[peer][0],
        "smallest margin": min(margins.values()),
        "of": min(margins, key=lambda name: margins[name]),
    }


def conformal(
    normal: Mapping[str, Rows],
    resplits: int = RESPLITS,
    calibrated: Sequence[int] = CALIBRATED,
    fitted: int = FITTED,
    **options: Any,
) -> list[dict[str, Any]]:
    """Alarms among held-out normal rows over many resplits, against the exact band; `options` are the estimator's."""
    found = []
    for name, X in normal.items():
        rows = np.random.default_rng(0).permutation(X).astype(np.float32)
        ae = Autoencoder(random_state=0, threads=1, **options).fit(rows[:fitted])
        scores = -ae.score_samples(rows[fitted:])
        for count in calibrated:
            for rate in RATES:
                found.append(
                    {"name": name, "calibrated": count, "rate": rate, **resplit(scores, count, rate, resplits)}
                )
        progress(f"{name}: {len(rows) - fitted} held-out rows")
    return found


def resplit(scores: Rows, calibrated: int, rate: float, resplits: int, coverage: float = COVERAGE) -> dict[str, Any]:
    """Split scores of normal rows at random into calibration and test; count the alarms at this rate each time."""
    rng, tested, alarms = np.random.default_rng(0), len(scores) - calibrated, []
    for _ in range(resplits):
        order = rng.permutation(scores)
        try:
            threshold = Calibration(order[:calibrated]).threshold(rate)
        except InputError as refused:
            return {"refused": str(refused)}
        alarms.append(int((order[calibrated:] > threshold).sum()))
    k = math.floor(rate * (calibrated + 1) + 1e-9)
    low, high, expected = band(calibrated, k, tested, coverage)
    inside = sum(low <= count <= high for count in alarms)
    return {
        "tested": tested,
        "resplits": resplits,
        "mean rate": float(np.mean(alarms)) / tested,
        "expected rate": k / (calibrated + 1),
        "band": [low / tested, high / tested],
        "inside": inside / resplits,
        "coverage": expected,
        "p": float(binomtest(inside, resplits, expected).pvalue),
        "ties": 1 - len(np.unique(scores)) / len(scores),
    }


def predicted(normal: Mapping[str, Rows], seeds: Sequence[int] = SEEDS, **options: Any) -> list[dict[str, Any]]:
    """False alarms of `fit` and `predict` with their defaults, against what the calibration promises."""
    found = []
    for name, X in normal.items():
        runs = []
        for seed in seeds:
            train, test = train_test_split(X.astype(np.float32), test_size=0.4, random_state=seed)
            ae = Autoencoder(random_state=seed, threads=1, **options).fit(train)
            alarm, alarms = ae.run_.alarm, int((ae.predict(test) == -1).sum())
            low, high, _ = band(alarm.rows, round(alarm.rate * (alarm.rows + 1)), len(test))
            runs.append((alarms / len(test), alarm.rate, low <= alarms <= high))
        realised, promised, inside = np.mean(runs, axis=0).tolist()
        found.append({"name": name, "calibrated": alarm.rows, "mean rate": realised, "expected rate": promised})
        found[-1] |= {"inside": inside, "runs": len(runs), "worst": max(rate for rate, *_ in runs)}
        progress(f"{name}: {realised:.2%} false alarms, {promised:.2%} promised")
    return found


def band(calibrated: int, k: int, tested: int, coverage: float = COVERAGE) -> tuple[int, int, float]:
    """The fewest and most alarms of `tested` rows where the k-th highest score is the threshold, and their probability.

    The number of alarms is beta-binomial where no scores are equal; equal ones make alarms rarer.
    """
    law = betabinom(tested, k, calibrated + 1 - k)
    low, high = (int(law.ppf(tail)) for tail in ((1 - coverage) / 2, (1 + coverage) / 2))
    return low, high, float(law.cdf(high) - law.cdf(low - 1))


def predicted_table(found: Sequence[dict[str, Any]]) -> dict[str, Table]:
    head = ["table", "calibrated on", "realised", "promised", "highest", "inside the band"]
    body = [
        [
            row["name"],
            str(row["calibrated"]),
            f"{row['mean rate']:.4f}",
            f"{row['expected rate']:.4f}",
            f"{row['worst']:.4f}",
            f"{round(row['inside'] * row['runs'])} of {row['runs']}",
        ]
        for row in found
    ]
    return {"False alarms of fit and predict with their defaults": (head, body)}


def conformal_tables(found: Sequence[dict[str, Any]]) -> dict[str, Table]:
    head = ["table", "calibrated on", "asked", "realised", "exact", "band", "inside", "exact", "p"]
    body = []
    for row in found:
        cells = [row["name"], str(row["calibrated"]), f"{row['rate']:g}"]
        if "refused" in row:
            body.append([*cells, "refused", "", "", "", "", ""])
            continue
        band = "{:.4f} to {:.4f}".format(*row["band"])
        rates = [f"{row['mean rate']:.5f}", f"{row['expected rate']:.5f}", band]
        body.append([*cells, *rates, f"{row['inside']:.1%}", f"{row['coverage']:.1%}", f"{row['p']:.2f}"])
    return {f"False alarms over {RESPLITS} resplits, and the exact band of {COVERAGE:.0%} or more": (head, body)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", action="append", choices=("ranking", "conformal"), default=[])
    parser.add_argument("--quick", action="store_true", help="one seed and 100 resplits, under another name")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    parts = asked.part or ["ranking", "conformal"]
    result: dict[str, Any] = {"machine": fingerprint("torch", "scikit-learn", "scipy", "pyod")}
    tables: dict[str, Table] = {}
    if "ranking" in parts:
        result["ranking"] = ranking(tasks(asked.folder), SEEDS[:1] if asked.quick else SEEDS)
        result["verdict"] = verdict(result["ranking"])
        tables |= ranking_tables(result["ranking"])
    if "conformal" in parts:
        normal = {name: X[y == 0] for name, (X, y) in labelled(asked.folder).items()}
        result["conformal"] = conformal(normal, RESPLITS // 10 if asked.quick else RESPLITS)
        result["predicted"] = predicted(normal, SEEDS[:1] if asked.quick else SEEDS)
        tables |= conformal_tables(result["conformal"]) | predicted_table(result["predicted"])
    publish_all(kept_as("detection", asked.quick, asked.part), result, tables)
    if "verdict" in result:
        print(
            "best: {best}, {margin:+.3f} against PyOD's AutoEncoder, at worst {smallest margin:+.3f} ({of})".format_map(
                result["verdict"]
            )
        )


if __name__ == "__main__":
    main()
