"""How the frozen bundles in this folder were made. They are never made again: they must load for ever.

A change of the format gets a new bundle beside them (bundle_v2), never a new bundle_v1.

    python tests/data/make_bundles.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from aeedge_export import export_bundle


def sensors(folder: Path) -> None:
    """Twelve named sensors of very different magnitude, three latents."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    mean, scale = np.linspace(-50, 1000, 12), np.geomspace(0.01, 100, 12)
    rows = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12)) * scale + mean).astype(np.float32)
    export_bundle(
        encoder=nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
        decoder=nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12)),
        path=folder / "bundle_v1",
        example=rows,
        scaler=(mean, scale),
        family="dense",
        features=[f"s{i}" for i in range(12)],
        units=["mm"] * 12,
        created="2026-11-22T00:00:00+00:00",
        training={"rows": 200},
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
    )


def encoder_only(folder: Path) -> None:
    """Four float features, one latent, no decoder."""
    torch.manual_seed(3)
    rows = np.random.default_rng(3).normal(size=(32, 4)).astype(np.float32)
    export_bundle(encoder=nn.Linear(4, 1), path=folder / "bundle_v1_encoder", example=rows)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for make in (sensors, pixels, encoder_only):
        make(target)
