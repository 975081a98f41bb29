"""How wide should a network be? The error of every width on rows that were not trained on, over several kinds of data.

Errors are multiples of those of PCA with as many latents, in standardised units (pixels: 0..1), and stand beside the
multiply-adds to encode and decode a row: no times. Of MNIST's 5 000 images only the 4 000 are used that quality.py
trains on; 800 of them are held out here, so its test images have no say in the choice. Tables are trained with goal
"compress". For goal "detect" there is the ROC AUC on tables of scikit-learn: those of ODDS are left to quality.py.

FOLDER may have the tables of ODDS (cardio, letter, satellite, vowels, as .npz) and ecg.npz (record 100 of the MIT-BIH
Arrhythmia Database); what is missing is passed over. Each cell is written to results/widths.json when it is done, and
a cell that is there is not measured again.

    python benchmarks/widths.py [FOLDER] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS
from comparison.data import sound_frames, vibration
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from plants import plant
from quality import TABLES, mnist
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
Hidden = tuple[int, ...]
LARGE: tuple[Hidden, ...] = ((256,), (256, 128), (512,))
SOME: tuple[Hidden, ...] = ((64,), (128,), (192,), (256,), (512,), (256, 128))
MANY: tuple[Hidden, ...] = ((), (16,), (32,), (64,), (96,), (128,), (192,), (256,), (384,), (512,), (256, 128))
DEEP: tuple[Hidden, ...] = ((128, 128), (256, 64))
CHANNELS: tuple[Hidden, ...] = ((8,), (8, 16), (16, 32), (8, 16, 16), (16, 32, 32))
Rows = NDArray[Any]
Halves = tuple[Rows, Rows]  # to train on, to choose by


@dataclass(frozen=True)
class Data:
    """Rows, and how networks are trained on them.

    Attributes:
        name: for people.
        halves: makes rows to train on and rows to choose by.
        latents: their number, or "auto".
        hidden: the shapes that are tried.
        seeds: of the networks; errors are means over them.
        options: of the estimator.
    """

    name: str
    halves: Callable[[], Halves]
    latents: int | str = "auto"
    hidden: Sequence[Hidden] = SOME
    seeds: Sequence[int] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)


def main() -> None:
    """Measure what is not in the file yet, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", default="", metavar="NAME", help="only the data of this name")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = json.loads(FILE.read_text()) if FILE.exists() else {"errors": {}, "auc": {}}
    for data in everything(options.folder):
        if options.only in ("", data.name):
            key = f"{data.name}, {data.latents} latents"
            measure(found, found["errors"].setdefault(key, {}), data.hidden, data.seeds, partial(error, data))
            print(key, table(found["errors"][key]), sep="\n", flush=True)
    for name, labelled in outliers().items():
        if options.only in ("", f"auc {name}"):
            measure(found, found["auc"].setdefault(name, {}), SOME, (10, 11, 12), partial(auc, *labelled))
            print(f"ROC AUC, {name}", table(found["auc"][name]), sep="\n", flush=True)


def measure(
    found: dict[str, Any],
    cells: dict[str, Any],
    shapes: Sequence[Hidden],
    seeds: Sequence[int],
    one: Callable[[Hidden, int], dict[str, float]],
) -> None:
    """Fill the cells of one kind of data that are still missing, and write all that is found."""
    for hidden in shapes:
        cell = cells.setdefault(",".join(map(str, hidden)) or "none", {"seeds": {}})
        for seed in seeds:
            if str(seed) not in cell["seeds"]:
                known = one(hidden, seed)
                cell["seeds"][str(seed)] = round(known.pop("value"), 4)
                cell |= known
                FILE.write_text(json.dumps(found, indent=1) + "\n")


def table(cells: Mapping[str, Any]) -> str:
    """Means over seeds."""
    rows = [
        [name, f"{np.mean(list(cell['seeds'].values())):.4f}", str(cell.get("multiply_adds", ""))]
        for name, cell in cells.items()
    ]
    return columns(["hidden", "mean", "multiply-adds"], rows)


def error(data: Data, hidden: Hidden, seed: int) -> dict[str, float]:
    """The error as a multiple of PCA's, multiply-adds and the number of latents."""
    train, held = data.halves()
    ae = Autoencoder(
        latent=data.latents, hidden=hidden, calibration=0, random_state=seed, threads=1, **data.options
    ).fit(train)
    back = ae.inverse_transform(ae.transform(held)).reshape(len(held), -1)
    train, held = train.reshape(len(train), -1), held.reshape(len(held), -1)
    pca = PCA(ae.design_.latent, random_state=0).fit(train)
    reference = np.square(held - pca.inverse_transform(pca.transform(held))).mean()
    ratio = float(np.square(held - back).mean() / reference)
    return {"value": ratio, "multiply_adds": multiply_adds(ae.network_), "latent": ae.design_.latent}


def auc(X: Rows, y: Rows, hidden: Hidden, seed: int) -> dict[str, float]:
    """ROC AUC of reconstruction errors, as in quality.py."""
    train, test, _, labels = train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
    train, test = standardised(train, test)
    ae = Autoencoder(hidden=hidden, random_state=seed, threads=1).fit(train)
    return {"value": float(roc_auc_score(labels, ae.reconstruction_error(test)))}


def everything(folder: Path | None) -> Iterator[Data]:
    """All data whose errors are measured."""
    yield Data("mnist", images, 32, MANY, (0, 1, 2))
    for latents in (8, 16):
        yield Data("mnist", images, latents, LARGE, (0, 1))
    digits = datasets.load_digits().data.astype(np.float32)
    yield Data("digits", partial(split, digits), "auto", MANY, (0, 1, 2))
    yield Data("digits", partial(split, digits), 8, ((128,), *LARGE), (0, 1, 2))
    yield Data("photographs 16x16", photographs, 32, options={"channels": "first"})
    compress = {"goal": "compress"}
    for name in ("breast_cancer", "wine", "diabetes"):
        X = getattr(datasets, f"load_{name}")().data
        yield Data(name, partial(split_table, X), "auto", MANY, (0, 1, 2), compress)
        yield Data(name, partial(split_table, X), 4, MANY, (0, 1, 2), compress)
    for name in TABLES if folder else ():
        if (folder / f"{name}.npz").exists():
            yield Data(name, partial(split_table, np.load(folder / f"{name}.npz")["X"]), options=compress)
    yield Data("sound 640", partial(machine, sound_frames), 32, ((128,), *LARGE), options=compress)
    blocks = {"channels": "last", "time_ordered": True}
    recording = plant(3000, 20_000)[0][:10_000]  # its fault comes later
    yield Data("plant 60x8", partial(windows, recording, 60, 2), 32, options={**blocks, "gap": 29})
    if folder and (folder / "ecg.npz").exists():
        data = np.load(folder / "ecg.npz")
        ecg = ((data["signal"] - data["baseline"]) / data["gain_per_mv"]).astype(np.float32)
        long, short = partial(windows, ecg[:400_000], 360, 90), partial(windows, ecg[:200_000], 64, 32)
        yield Data("ecg 360x2", long, 32, (*SOME, *DEEP), options={**blocks, "gap": 3})
        yield Data("ecg 64x2", short, 8, (*SOME, *DEEP), options={**blocks, "gap": 1})
        yield Data("ecg 360x2, conv1d", long, 32, CHANNELS, options={**blocks, "gap": 3, "family": "conv1d"})
    signals = {"channels": "first"}
    yield Data("vibration 3x256", partial(machine, vibration), 32, LARGE, options=signals)
    yield Data(
        "vibration 3x256, conv1d", partial(machine, vibration), 32, CHANNELS[1:], options=signals | {"family": "conv1d"}
    )


def outliers() -> dict[str, Halves]:
    """Tables and labels (1 for outliers, of which only some are kept)."""
    found = {}
    for name, loaded, odd, kept in (
        ("breast_cancer", datasets.load_breast_cancer(), 0, 40),
        ("wine", datasets.load_wine(), 2, 12),
        ("digits", datasets.load_digits(), 4, 80),
    ):
        few = np.flatnonzero(loaded.target == odd)[:kept]
        rows = np.sort(np.concatenate([few, np.flatnonzero(loaded.target != odd)]))
        found[name] = loaded.data[rows], loaded.target[rows] == odd
    return found


def split(rows: Rows, held: float = 0.3) -> Halves:
    """At random."""
    first, second = train_test_split(rows, test_size=held, random_state=1)
    return first, second


def images() -> Halves:
    """Pixels 0..1 of MNIST, (3 200, 784) and (800, 784)."""
    return split(mnist()[0], 800)


def standardised(train: Rows, held: Rows) -> Halves:
    """Each column by the training rows, float32."""
    scaler = StandardScaler().fit(train)
    return scaler.transform(train).astype(np.float32), scaler.transform(held).astype(np.float32)


def split_table(rows: Rows) -> Halves:
    """At random, standardised."""
    return standardised(*split(rows.astype(np.float32)))


def photographs() -> Halves:
    """Grey patches (n, 1, 16, 16) of two photographs: of their left 60 % and of their right 35 %."""
    parts: tuple[list[Rows], list[Rows]] = ([], [])
    for image in datasets.load_sample_images().images:
        grey = (image.mean(axis=2) / 255).astype(np.float32)
        patches = sliding_window_view(grey, (16, 16))[::8, ::8]
        width = patches.shape[1]
        parts[0].append(patches[:, : int(0.6 * width)].reshape(-1, 1, 16, 16))
        parts[1].append(patches[:, int(0.65 * width) :].reshape(-1, 1, 16, 16))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def windows(signal: Rows, length: int, hop: int) -> Halves:
    """Windows (n, length, channels) of the first 60 % of a recording and of the last 35 %, standardised by channel."""
    one, two = signal[: int(0.6 * len(signal))], signal[int(0.65 * len(signal)) :]
    mean, scale = one.mean(axis=0), one.std(axis=0) + 1e-6
    return aeedge.window((one - mean) / scale, length, hop), aeedge.window((two - mean) / scale, length, hop)


def machine(rows: Callable[[int, int, bool], Rows]) -> Halves:
    """Synthetic signals of a machine, standardised by column or channel."""
    one, two = rows(3000, 0, False), rows(600, 1, False)
    axes = (0,) if one.ndim == 2 else (0, 2)
    mean, scale = one.mean(axes, keepdims=True), one.std(axes, keepdims=True) + 1e-6
    return (one - mean) / scale, (two - mean) / scale


if __name__ == "__main__":
    main()
