"""Rows of the plant whose sensors the bundles with eight features were trained for."""

import numpy as np

NAMES = tuple(f"s{i}" for i in range(8))


def plant(count, seed, shift=0.0):
    """Normal rows, (count, 8) float32; with `shift`, of another machine of its kind."""
    rng = np.random.default_rng(seed)
    states = np.tanh(rng.normal(size=(count, 3)))
    mixed = states @ np.random.default_rng(7).normal(size=(3, 8)) + 0.3 * states[:, :1] * states[:, 1:2]
    noisy = mixed + rng.normal(size=(count, 8)) * np.geomspace(0.02, 0.5, 8)
    noisy[:, [3, 5]] += shift
    noisy[:, 1] *= 1 + shift
    return (noisy * np.geomspace(0.1, 50, 8) + np.linspace(-20, 500, 8)).astype(np.float32)
