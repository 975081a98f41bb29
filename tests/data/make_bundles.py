"""How the frozen bundles in this folder were made. They are never made again: they must load for ever.

A change of the format gets a new bundle beside them (bundle_v2), never a new bundle_v1.

    python tests/data/make_bundles.py FOLDER
"""

import functools
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from aeedge.bundle.manifest import SignalSpec
from aeedge.signals.layout import calendar_channels
from aeedge.signals.window import window
from aeedge_export import Autoencoder, export_bundle
from aeedge_export.alarms import Normal
from aeedge_export.networks.front_ends import features, front_end
from aeedge_export.quantization.qdq import quantize


def sensors(folder: Path, name: str = "bundle_v1", with_scorer: bool = False) -> None:
    """Twelve named sensors of very different magnitude, three latents."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    mean, scale = np.linspace(-50, 1000, 12), np.geomspace(0.01, 100, 12)
    rows = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12)) * scale + mean).astype(np.float32)
    export_bundle(
        encoder=nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
        decoder=nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12)),
        path=folder / name,
        example=rows,
        scaler=(mean, scale),
        family="dense",
        features=[f"s{i}" for i in range(12)],
        units=["mm"] * 12,
        created="2026-11-22T00:00:00+00:00",
        training={"rows": 200},
        with_scorer=with_scorer,
    )


def pixels(folder: Path) -> None:
    """uint8 images of 1×4×4, two latents."""
    torch.manual_seed(2)
    images = np.random.default_rng(2).integers(0, 256, (64, 1, 4, 4), dtype=np.uint8)
    export_bundle(
        encoder=nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        decoder=nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))),
        path=folder / "bundle_v1_uint8",
        example=images,
        scaler=(0.0, 255.0),
        family="custom",
        created="2026-11-22T00:00:00+00:00",
        with_scorer=False,
    )


def encoder_only(folder: Path) -> None:
    """Four float features, one latent, no decoder."""
    torch.manual_seed(3)
    rows = np.random.default_rng(3).normal(size=(32, 4)).astype(np.float32)
    export_bundle(encoder=nn.Linear(4, 1), path=folder / "bundle_v1_encoder", example=rows)


def camera(folder: Path, name: str = "bundle_v1_int8", with_scorer: bool = False) -> None:
    """uint8 images of 1×16×16 of two blobs, four latents; int8 by default: a convolution and dense layers."""
    torch.manual_seed(4)
    images = blobs(600)
    down = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    up = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 256), nn.Sigmoid(), nn.Unflatten(1, (1, 16, 16)))
    optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=3e-3)
    x = torch.from_numpy(images).float() / 255
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.mse_loss(up(down(x)), x).backward()
        optimizer.step()
    with whatever_is_faster():
        export_bundle(
            encoder=down.eval(),
            decoder=up.eval(),
            path=folder / name,
            example=images,
            scaler=(0.0, 255.0),
            variants=("int8", "fp32"),
            created="2026-11-22T00:00:00+00:00",
            with_scorer=with_scorer,
        )


def whatever_is_faster() -> AbstractContextManager[object]:
    """Keep layers on integers also where the machine that makes the bundles is faster in fp32."""
    return mock.patch("aeedge_export.quantization.choice._FASTER", float("inf"))


def blobs(count: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    place = rng.uniform(3, 13, (2, 2, count, 1, 1))
    grid = np.arange(16.0)
    far = [(grid[:, None] - y) ** 2 + (grid - x) ** 2 for y, x in place]
    light = sum(np.exp(-d / 8) for d in far) + rng.uniform(0, 0.05, (count, 16, 16))
    return np.clip(light * 200, 0, 255).astype(np.uint8)[:, None]


def saturating(folder: Path) -> None:
    """int8 as others write it, with the full range of weights: wrong on x86 without VNNI unless sums are exact there.

    Weights of nearly the same size and inputs far from 0 make all products large.
    """
    rng = np.random.default_rng(5)
    down, up = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)), nn.Linear(8, 64)
    with torch.no_grad():
        for layer in (down[0], down[2], up):
            shape = layer.weight.shape
            size = (1 + 0.1 * rng.random(shape)) / np.sqrt(shape[1])
            layer.weight.copy_(torch.from_numpy(np.where(rng.random(shape) < 0.6, 1, -1) * size))
    rows = (1.75 + 0.25 * np.tanh(rng.normal(size=(600, 2)) @ rng.normal(size=(2, 64)))).astype(np.float32)
    with (
        whatever_is_faster(),
        mock.patch("aeedge_export.quantization.choice.quantize", functools.partial(quantize, safe=False)),
    ):
        export_bundle(
            encoder=down,
            decoder=up,
            path=folder / "bundle_v1_saturating",
            example=rows,
            variants=("int8", "fp32"),
            with_scorer=False,
        )


def scorers(folder: Path) -> None:
    """Sensors and camera again, with scorer.onnx and the key nonfinite_sentinels."""
    sensors(folder, "bundle_v1_scorer", with_scorer=True)
    camera(folder, "bundle_v1_scorer_int8", with_scorer=True)


def maps(folder: Path) -> None:
    """float32 images of 1×8×8 of two blobs, to maps of 2×4×4; fp32 by default, and int8."""
    torch.manual_seed(6)
    images = (blobs(600)[:, :, ::2, ::2] / 255).astype(np.float32)
    down = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    up = nn.Sequential(nn.ConvTranspose2d(2, 4, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 3, padding=1))
    optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=3e-3)
    x = torch.from_numpy(images)
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.mse_loss(up(down(x)), x).backward()
        optimizer.step()
    with whatever_is_faster():
        export_bundle(
            encoder=down,
            decoder=up,
            path=folder / "bundle_v1_map",
            example=images,
            variants=("fp32", "int8"),
            created="2026-11-26T00:00:00+00:00",
        )


def plant(count: int, seed: int) -> np.ndarray:
    """Eight sensors of a plant in normal operation, of three hidden states; no two of the same noise."""
    rng = np.random.default_rng(seed)
    states = np.tanh(rng.normal(size=(count, 3)))
    mixed = states @ np.random.default_rng(7).normal(size=(3, 8)) + 0.3 * states[:, :1] * states[:, 1:2]
    noisy = mixed + rng.normal(size=(count, 8)) * np.geomspace(0.02, 0.5, 8)
    return (noisy * PLANT_SCALE + PLANT_MEAN).astype(np.float32)


PLANT_MEAN, PLANT_SCALE = np.linspace(-20, 500, 8), np.geomspace(0.1, 50, 8)


def trained(down: nn.Module, up: nn.Module, x: torch.Tensor, steps: int = 600) -> None:
    """Least squares on scaled rows."""
    optimizer = torch.optim.Adam([*down.parameters(), *up.parameters()], lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(up(down(x)), x).backward()
        optimizer.step()


def both(folder: Path) -> None:
    """Eight named sensors, three latents; the score is of residuals and latents, calibrated at 1 %."""
    torch.manual_seed(7)
    rows = plant(600, 1)
    down = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    up = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 8))
    trained(down, up, torch.from_numpy(((rows - PLANT_MEAN) / PLANT_SCALE).astype(np.float32)))
    export_bundle(
        encoder=down,
        decoder=up,
        path=folder / "bundle_v2_both",
        example=rows,
        scaler=(PLANT_MEAN, PLANT_SCALE),
        family="dense",
        features=[f"s{i}" for i in range(8)],
        created="2026-11-26T00:00:00+00:00",
        score_kind="both",
        normal=plant(400, 2),
    )


def mahalanobis(folder: Path) -> None:
    """Eight sensors without names, four latents, no decoder; the score is of latents, calibrated at 1 % in time."""
    torch.manual_seed(8)
    rows = plant(600, 3)
    down = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    trained(down, nn.Linear(4, 8), torch.from_numpy(((rows - PLANT_MEAN) / PLANT_SCALE).astype(np.float32)))
    export_bundle(
        encoder=down,
        path=folder / "bundle_v2_mahalanobis",
        example=rows,
        scaler=(PLANT_MEAN, PLANT_SCALE),
        created="2026-11-26T00:00:00+00:00",
        score_kind="mahalanobis",
        normal=Normal(plant(300, 4), time_ordered=True),
    )


def robust(folder: Path) -> None:
    """Eight named sensors, three latents, int8 by default, and fp32; residuals by their own scale, calibrated at 1 %.

    Both variants have thresholds of their own.
    """
    torch.manual_seed(9)
    rows = plant(1200, 5)
    down = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 3))
    up = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 8))
    trained(down, up, torch.from_numpy(((rows - PLANT_MEAN) / PLANT_SCALE).astype(np.float32)))
    with whatever_is_faster():
        export_bundle(
            encoder=down,
            decoder=up,
            path=folder / "bundle_v1_robust_int8",
            example=rows,
            scaler=(PLANT_MEAN, PLANT_SCALE),
            features=[f"s{i}" for i in range(8)],
            created="2026-11-26T00:00:00+00:00",
            variants=("int8", "fp32"),
            score_kind="robust",
            normal=plant(350, 6),
        )


def machine(count: int, seed: int) -> np.ndarray:
    """Windows (count, 320, 2) of two vibrations at 1 kHz: a rotation of 40 Hz with its harmonics, and noise."""
    rng = np.random.default_rng(seed)
    time, phase = np.arange(320) / 1000, rng.uniform(0, 2 * np.pi, (count, 1))
    speed = 40 * (1 + 0.02 * rng.normal(size=(count, 1)))
    tones = [
        np.sin(2 * np.pi * k * speed * time + k * phase) * rng.uniform(0.5, 1.5, (count, 1)) / k for k in (1, 2, 3)
    ]
    noise = rng.normal(size=(2, count, 320)) * 0.2
    return np.stack([sum(tones) + noise[0], 3 + 0.1 * tones[0] + 0.1 * noise[1]], axis=2).astype(np.float32)


def spectra(folder: Path) -> None:
    """Windows of a machine, whose spectra are encoded: 322 features, three latents, calibrated at 1 %."""
    torch.manual_seed(10)
    rows = machine(800, 1)
    made = front_end("spectrum", 320, ("x", "y"), 1000.0)
    spectrum = features(made, rows)
    mean, scale = spectrum.mean(axis=0), spectrum.std(axis=0)
    down = nn.Sequential(nn.Linear(322, 8), nn.ReLU(), nn.Linear(8, 3))
    up = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 322))
    trained(down, up, torch.from_numpy((spectrum - mean) / scale), 300)
    export_bundle(
        encoder=down,
        decoder=up,
        path=folder / "bundle_v3_spectrum",
        example=rows,
        scaler=(mean, scale),
        family="dense",
        signal=SignalSpec(channels=("x", "y"), window=320, hop=320, rate=1000.0),
        front_end=made,
        created="2026-11-26T00:00:00+00:00",
        training={"channels": "last"},
        score_kind="both",
        normal=machine(300, 2),
    )


def windows(folder: Path) -> None:
    """Windows of a recording, with all that a stream goes by: calibration in time order, health, drift, a calendar."""
    signal = SignalSpec(("x", "y"), window=32, hop=8, rate=0.01, units=("g", "A"), time="time", calendar=("day",))
    times, rng = 100.0 * np.arange(12_000), np.random.default_rng(11)
    load = np.sin(2 * np.pi * times / 86_400)
    samples = np.stack([load, 5 + 0.5 * load**2], axis=1) + 0.1 * rng.normal(size=(12_000, 2))
    recording = np.concatenate([samples, calendar_channels(times, ("day",))], axis=1, dtype=np.float32)
    small = Autoencoder(latent=3, hidden=(8,), epochs=5, calibration=0.3, threads=1, random_state=0)
    fitted = small.fit_rows(window(recording, 32, 8), signal=signal)
    fitted.run_.created = "2026-11-26T00:00:00+00:00"
    fitted.export(folder / "bundle_v1_windows")


def alarms(folder: Path) -> None:
    """Bundles with kinds of scores and with calibration scores."""
    for make in (both, mahalanobis, robust):
        make(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for make in (sensors, pixels, encoder_only, camera, saturating, scorers, maps, alarms, spectra, windows):
        make(target)
