"""How wide should a network be? The error of every width on rows that were not trained on, over several kinds of data.

Errors are multiples of those of PCA with as many latents, in standardised units (pixels: 0..1), means over seeds, and
stand beside the multiply-adds to encode and decode a row: no times. Of MNIST's 5 000 images only the 4 000 are used that
quality.py trains on; 800 of them are held out here, so its test images have no say in the choice. Tables are trained
with goal "compress". For goal "detect" the number is ROC AUC: on tables of scikit-learn to choose by, and on those of
ODDS (FOLDER, as in quality.py, other splits) to see what the choice does there.

FOLDER may have cardio, letter, satellite and vowels .npz, and ecg.npz; what is missing is passed over. Each cell is
written to results/widths.json when it is done, and a cell that is there is not measured again.

    python benchmarks/widths.py [FOLDER] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, fingerprint
from comparison.data import sound_frames, vibration
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from plants import plant
from quality import mnist
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import aeedge
from aeedge.table import columns
from aeedge_export import Autoencoder
from aeedge_export.networks.base import multiply_adds

FILE = RESULTS / "widths.json"
ODDS = ("cardio", "letter", "satellite", "vowels")
WIDTHS: tuple[tuple[int, ...], ...] = (
    *((), (16,), (32,), (64,), (96,), (128,), (192,), (256,), (384,), (512,)),
    *((256, 128), (128, 64), (256, 64)),
)
SOME: tuple[tuple[int, ...], ...] = ((512,), (256,), (256, 128), (128,), (64,), (192,))
CHANNELS = ((8,), (8, 16), (16, 32), (8, 16, 16), (16, 32, 32))
RANKED = ((16,), (32,), (64,), (128,), (256,), (512,))
WITHIN = 1.01  # of the best error
Rows = NDArray[np.float32]


class Task(NamedTuple):
    """Rows to train on and rows to choose by, and how.

    `labels` of the rows to choose by are 1 for outliers: then the number is ROC AUC.
    """

    name: str
    rows: Callable[[], tuple[Rows, Rows]]
    latents: Sequence[int | str] = ("auto",)
    options: dict[str, Any] = {}
    shapes: Sequence[tuple[int, ...]] = WIDTHS
    seeds: Sequence[int] = (0, 1, 2)


class Ranking(NamedTuple):
    """Rows with labels (1 for outliers), of which 60 % are trained on."""

    name: str
    table: Callable[[], tuple[Rows, NDArray[Any]]]
    seeds: Sequence[int] = (10, 11, 12)


def images() -> tuple[Rows, Rows]:
    """Pixels 0..1 of MNIST, (3 200, 784) and (800, 784)."""
    return halves(mnist()[0], 800)


def halves(rows: Rows, held: float) -> tuple[Rows, Rows]:
    """Shuffled rows to train on and to choose by."""
    first, second = train_test_split(rows, test_size=held, random_state=1)
    return first, second


def table(rows: Rows) -> tuple[Rows, Rows]:
    """Halves of a table, standardised."""
    first, second = halves(rows, 0.3)
    scaler = StandardScaler().fit(first)
    return scaler.transform(first).astype(np.float32), scaler.transform(second).astype(np.float32)


def windows(signal: Rows, length: int, hop: int) -> tuple[Rows, Rows]:
    """Windows (n, length, channels) of the first 60 % of a recording and of the last 35 %, standardised by channel."""
    one, two = signal[: int(0.6 * len(signal))], signal[int(0.65 * len(signal)) :]
    mean, scale = one.mean(axis=0), one.std(axis=0) + 1e-6
    return aeedge.window((one - mean) / scale, length, hop), aeedge.window((two - mean) / scale, length, hop)


def photographs() -> tuple[Rows, Rows]:
    """Grey patches (n, 1, 16, 16) of two photographs: of their left 60 % and of their right 35 %."""
    parts: tuple[list[Rows], list[Rows]] = ([], [])
    for image in datasets.load_sample_images().images:
        grey = (image.mean(axis=2) / 255).astype(np.float32)
        patches = sliding_window_view(grey, (16, 16))[::8, ::8]
        width = patches.shape[1]
        parts[0].append(patches[:, : int(0.6 * width)].reshape(-1, 1, 16, 16))
        parts[1].append(patches[:, int(0.65 * width) :].reshape(-1, 1, 16, 16))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def made(rows: Callable[..., Rows]) -> tuple[Rows, Rows]:
    """Synthetic machine signals."""
    one, two = rows(3000, 0, False), rows(600, 1, False)
    axes = (0,) if one.ndim == 2 else (0, 2)
    mean, scale = one.mean(axes, keepdims=True), one.std(axes, keepdims=True) + 1e-6
    return (one - mean) / scale, (two - mean) / scale


def tasks(folder: Path | None) -> Iterator[Task]:
    """What is measured."""
    small = {"goal": "compress"}
    yield Task("mnist", images, (32,), {}, (*WIDTHS[:-2], ), (0,1,2)[:3])
    yield Task("mnist", images, (8,), {}, SOME, (0,))
    yield Task("digits", lambda: halves(datasets.load_digits().data.astype(np.float32), 0.3), ("auto",))
    yield Task("digits", lambda: halves(datasets.load_digits().data.astype(np.float32), 0.3), (8,), {}, SOME, (0,))
    for name in ("breast_cancer", "wine", "diabetes"):
        rows = getattr(datasets, f"load_{name}")().data.astype(np.float32)
        yield Task(name, lambda rows=rows: table(rows), ("auto", 4), small)
    if folder:
        for name in ODDS:
            if (folder / f"{name}.npz").exists():
                rows = np.load(folder / f"{name}.npz")["X"].astype(np.float32)
                yield Task(name, lambda rows=rows: table(rows), ("auto",), small, SOME, (0,))
    blocks = {"channels": "last", "time_ordered": True}
    if folder and (folder / "ecg.npz").exists():
        data = np.load(folder / "ecg.npz")
        ecg = ((data["signal"] - data["baseline"]) / data["gain_per_mv"]).astype(np.float32)
        yield Task("ecg 360x2", lambda: windows(ecg[:400_000], 360, 90), (32,), {**blocks, "gap": 3}, ((256, 128), (128, 128), (256, 64), *SOME), (0,))
        yield Task("ecg 64x2", lambda: windows(ecg[:200_000], 64, 32), (8,), {**blocks, "gap": 1}, (*SOME, (128, 128), (256, 64)), (0,))
    for seed in (3000, 3001):
        recording = plant(seed, 20_000)[0][:10_000]  # its fault comes later
        yield Task(f"plant {seed}", lambda r=recording: windows(r, 60, 2), (32,), {**blocks, "gap": 29}, SOME, (0,))
    yield Task("photographs 16x16", photographs, (32,), {"channels": "first"}, SOME, (0,))
    yield Task("sound 640", lambda: made(sound_frames), (32,), small, SOME, (0,))
    yield Task("vibration 3x256", lambda: made(vibration), (32,), {"channels": "first"}, SOME, (0,))
    yield Task(
        "digits, conv2d",
        lambda: tuple(part.reshape(-1, 1, 8, 8) for part in halves(datasets.load_digits().data.astype(np.float32), 0.3)),
        ("auto",),
        {"family": "conv2d"},
        CHANNELS,
        (0, 1),
    )
    yield Task(
        "mnist, conv2d",
        lambda: tuple(part.reshape(-1, 1, 28, 28) for part in images()),
        (32,),
        {"family": "conv2d"},
        CHANNELS,
        (0,),
    )
    if folder and (folder / "ecg.npz").exists():
        yield Task(
            "ecg 360x2, conv1d",
            lambda: windows(ecg[:400_000], 360, 90),
            (32,),
            {**blocks, "gap": 3, "family": "conv1d"},
            CHANNELS,
            (0,),
        )
    yield Task(
        "vibration 3x256, conv1d", lambda: made(vibration), (32,), {"channels": "first", "family": "conv1d"}, CHANNELS, (0,)
    )


def rankings(folder: Path | None) -> Iterator[Ranking]:
    """Tables with outliers: scikit-learn's, and those of ODDS."""
    cancer = datasets.load_breast_cancer()
    few = np.flatnonzero(cancer.target == 0)[:40]
    kept = np.sort(np.concatenate([few, np.flatnonzero(cancer.target == 1)]))
    yield Ranking("breast_cancer", lambda: (cancer.data[kept], cancer.target[kept] == 0))
    digits = datasets.load_digits()
    for odd in (4,):
        few = np.flatnonzero(digits.target == odd)[:80]
        rows = np.sort(np.concatenate([few, np.flatnonzero(digits.target != odd)]))
        yield Ranking(f"digits, {odd} is odd", lambda rows=rows, odd=odd: (digits.data[rows], digits.target[rows] == odd))
    wine = datasets.load_wine()
    few = np.flatnonzero(wine.target == 2)[:12]
    rows = np.sort(np.concatenate([few, np.flatnonzero(wine.target != 2)]))
    yield Ranking("wine", lambda: (wine.data[rows], wine.target[rows] == 2))
    for name in ODDS if folder else ():
        if (folder / f"{name}.npz").exists():
            data = np.load(folder / f"{name}.npz")
            yield Ranking(f"ODDS {name}", lambda data=data: (data["X"], data["y"] == 1))


def error_ratio(task: Task, latent: int | str, hidden: Sequence[int], seed: int, **more: Any) -> tuple[float, int, int]:
    """Error as a multiple of PCA's, multiply-adds and the number of latents."""
    train, held = task.rows()
    ae = Autoencoder(
        latent=latent, hidden=hidden, calibration=0, random_state=seed, threads=1, **{**task.options, **more}
    ).fit(train)
    back = ae.inverse_transform(ae.transform(held))
    flat = [part.reshape(len(part), -1) for part in (train, held)]
    pca = PCA(ae.design_.latent, random_state=0).fit(flat[0])
    reference = np.square(flat[1] - pca.inverse_transform(pca.transform(flat[1]))).mean()
    error = np.square(np.asarray(back).reshape(flat[1].shape) - flat[1]).mean()
    return float(error / reference), multiply_adds(ae.network_), ae.design_.latent


def auc(task: Ranking, hidden: Sequence[int], seed: int) -> float:
    """ROC AUC of reconstruction errors, as in quality.py."""
    X, y = task.table()
    train, test, _, labels = train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train).astype(np.float32), scaler.transform(test).astype(np.float32)
    ae = Autoencoder(hidden=hidden, random_state=seed, threads=1).fit(train)
    return float(roc_auc_score(labels, ae.reconstruction_error(test)))


def main() -> None:
    """Measure what is not in the file yet, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", default="", metavar="NAME", help="only data whose name contains this")
    parser.add_argument("--errors", action="store_true", help="errors alone, no ROC AUC")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = json.loads(FILE.read_text()) if FILE.exists() else {"errors": {}, "auc": {}}
    for task in tasks(options.folder):
        if options.only in ("", task.name):
            for latent in task.latents:
                for hidden in task.shapes:
                    errors(found["errors"], task, latent, hidden)
                    keep(found)
    for ranking in rankings(options.folder):
        if options.only in ("", ranking.name) and not options.errors:
            for hidden in RANKED:
                cells = found["auc"].setdefault(ranking.name, {})
                values = cells.setdefault(shape(hidden), {})
                for seed in ranking.seeds:
                    if str(seed) not in values:
                        values[str(seed)] = round(auc(ranking, hidden, seed), 4)
                keep(found)
            print(ranking.name, {key: round(mean(cell), 3) for key, cell in cells.items()}, flush=True)


def errors(found: dict[str, Any], task: Task, latent: int | str, hidden: Sequence[int]) -> None:
    """One width, every seed."""
    cell = found.setdefault(f"{task.name}, {latent} latents", {}).setdefault(shape(hidden), {"seeds": {}})
    for seed in task.seeds:
        if str(seed) not in cell["seeds"]:
            ratio, cell["multiply_adds"], cell["latent"] = error_ratio(task, latent, hidden, seed)
            cell["seeds"][str(seed)] = round(ratio, 4)
    print(task.name, latent, shape(hidden), round(mean(cell["seeds"]), 4), cell["multiply_adds"], flush=True)


def shape(hidden: Sequence[int]) -> str:
    """As on the command line."""
    return ",".join(map(str, hidden)) or "none"


def mean(values: dict[str, float]) -> float:
    """Over seeds."""
    return float(np.mean(list(values.values())))


def keep(found: dict[str, Any]) -> None:
    """Write to the file."""
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
