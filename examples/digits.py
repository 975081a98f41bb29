"""From data to latents, on the 8×8 digits that ship with scikit-learn.

Trains, exports, runs the self-check, encodes the held-out digits with the device runtime, and prints error and times.
Leaves the bundle, the latents and a picture in demo-out/.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import style  # noqa: F401
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

import aeedge
from aeedge.table import columns, human_bytes
from aeedge_export import Autoencoder

OUT = Path("demo-out")
LATENT = 8


def main() -> None:
    """Run the demo."""
    began = time.perf_counter()
    digits = load_digits()
    train, test, _, labels = train_test_split(
        digits.data.astype(np.float32), digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    OUT.mkdir(exist_ok=True)

    print(f"training on {len(train)} digits of 8×8 pixels, {LATENT} latents")
    ae = Autoencoder(latent=LATENT, random_state=0, verbose=True).fit(train)
    ae.export(OUT / "digits.aeedge", overwrite=True)

    model = aeedge.load(OUT / "digits.aeedge", check="golden")  # runs on numpy and onnxruntime alone
    latents = model.encode(test)
    np.save(OUT / "latents.npy", latents)
    picture(test, model.decode(latents), latents, labels, OUT / "digits.png")

    pca = PCA(LATENT).fit(train)
    error = float(np.square(test - model.denoise(test)).mean())
    pca_error = float(np.square(test - pca.inverse_transform(pca.transform(test))).mean())
    size = sum(file.stat().st_size for file in (OUT / "digits.aeedge").iterdir())
    batch = np.tile(test, (37, 1))[:16384]
    mean, scale = torch.from_numpy(ae.scaler_.mean), torch.from_numpy(ae.scaler_.scale)

    def torch_encode(rows: np.ndarray) -> np.ndarray:
        return ae.network_.encoder((torch.from_numpy(rows) - mean) / scale).numpy()

    times = interleaved(
        {
            "one aeedge": lambda: model.encode(test[0]),
            "one torch": lambda: torch_encode(test[:1]),
            "batch aeedge": lambda: model.encode(batch),
            "batch torch": lambda: torch_encode(batch),
        }
    )
    one, many = (times[f"{k} torch"] / times[f"{k} aeedge"] for k in ("one", "batch"))
    rows = [
        ["reconstruction error, held-out", f"{error:.3f}", f"PCA {pca_error:.3f}", f"{error / pca_error:.2f}×"],
        ["bundle on disk", human_bytes(size), "", ""],
        ["1 sample", micro(times["one aeedge"]), f"torch {micro(times['one torch'])}", f"{one:.1f}× faster"],
        [
            f"{len(batch)} samples",
            micro(times["batch aeedge"]),
            f"torch {micro(times['batch torch'])}",
            f"{many:.1f}× faster",
        ],
    ]
    print()
    print(columns(["", "aeedge", "compared with", "ratio"], rows))
    print()
    print(f"left in {OUT}/: digits.aeedge (the bundle), latents.npy {latents.shape}, digits.png")
    print(f"done in {time.perf_counter() - began:.0f} s")


@torch.inference_mode()
def interleaved(calls: dict[str, Callable[[], object]], seconds: float = 0.15, rounds: int = 9) -> dict[str, float]:
    """Median seconds per call; the calls are interleaved, so that a disturbance affects all alike."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            count, began = 0, time.perf_counter()
            while (spent := time.perf_counter() - began) < seconds:
                call()
                count += 1
            found[name].append(spent / count)
    return {name: float(np.median(values)) for name, values in found.items()}


def micro(seconds: float) -> str:
    """A duration in µs or ms."""
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def picture(
    inputs: np.ndarray, reconstructions: np.ndarray, latents: np.ndarray, labels: np.ndarray, path: Path
) -> None:
    """Inputs over reconstructions, and the latents projected onto their two main directions."""
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.35, 1])
    axes = left.subplots(4, 8)
    for column in range(8):
        for row in range(4):
            source = inputs if row % 2 == 0 else reconstructions
            axes[row, column].imshow(source[column + 8 * (row // 2)].reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(["input", "output"] * 2):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    left.suptitle("held-out digits over their reconstructions")
    flat = PCA(2).fit_transform(latents)
    plot = right.subplots()
    points = plot.scatter(flat[:, 0], flat[:, 1], c=labels, cmap="tab10", s=14)
    plot.legend(*points.legend_elements(), title="digit", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    plot.set(xticks=[], yticks=[])
    right.suptitle(f"{latents.shape[1]} latents, two main directions")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
