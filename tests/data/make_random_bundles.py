"""How the bundles random_* in this folder were made: by the exporter of November 2026, which accepted random modules.

It derived their tolerances from the module's own noise. A later exporter refuses them; they are kept to show that
`aeedge verify` refuses such bundles too, and are never made again.

    python tests/data/make_random_bundles.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from aeedge_export import export_bundle


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


class Sampling(nn.Module):
    """A variational encoder that still samples, with a standard deviation of `spread`."""

    def __init__(self, spread: float = 1.0) -> None:
        super().__init__()
        self.body, self.spread = body(), spread

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.body(x)
        return mean + self.spread * torch.randn_like(mean)


class Functional(nn.Module):
    """functional.dropout drops in evaluation mode too, unless it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(self.body(x), 0.2)


class PlainList(nn.Module):
    """eval() does not reach layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Vae(nn.Module):
    """Given as the bound method `encode` in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Binary(nn.Module):
    """Latents drawn from Bernoulli distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bernoulli(torch.sigmoid(self.body(x)))


def make(folder: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    makers = {
        "sampling": Sampling,
        "sampling_little": lambda: Sampling(0.01),
        "dropout": Functional,
        "plain_list": PlainList,
        "bound_method": lambda: Vae().encode,
        "bernoulli": Binary,
    }
    for name, maker in makers.items():
        torch.manual_seed(0)
        export_bundle(encoder=maker(), path=folder / f"random_{name}", example=rows)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
