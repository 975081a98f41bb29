"""Small data and a small trained model for the workstation's tests."""

import numpy as np
import pytest
import torch
from helpers.factory import factory_rows, fitted
from sklearn.datasets import load_digits
from torch import nn

from aeedge_export import Autoencoder
from aeedge_export.quantization import choice

torch.set_num_threads(1)  # nets this small are faster on one, and tests do not wait for a busy second core


def table(n=400, seed=0):
    """Rows of six correlated features of very different magnitude."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 6)) + 0.05 * rng.normal(size=(n, 6))
    return (mixed * np.array([1e-3, 1, 10, 1e3, 5, 0.1]) + np.array([0, 5, -20, 1e4, 0, 1])).astype(np.float32)


@pytest.fixture(scope="session")
def digits():
    return load_digits().data.astype(np.float32)


@pytest.fixture(scope="session")
def rows():
    return table()


@pytest.fixture(scope="session")
def other_rows():
    return table(seed=9)


@pytest.fixture(scope="session")
def trained(rows):
    return Autoencoder(latent=2, hidden=(8,), epochs=15, random_state=0).fit(rows)


@pytest.fixture(scope="session")
def net():
    down = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    up = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 24))
    return fitted(down, up, factory_rows())


@pytest.fixture
def time_has_no_say(monkeypatch):
    """Nets this small may be slower on integers while the machine is busy; that is not what is tested here."""
    monkeypatch.setattr(choice, "_FASTER", float("inf"))
