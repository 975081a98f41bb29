"""Says whether a model is right, in any process: by what one thread got for the same rows, all at once.

Tests write down the truth with `record`; `right` reads it, also in processes that had no part in it.
"""

import os
from pathlib import Path

import numpy as np

SIZES = (1, 64, 256, 20_000)  # one row, a block on the caller's thread, a middling one, and work for several threads
PLACE = "AEEDGE_TEST_TRUTH"  # environment variable: the folder with what was recorded


def rows_of(model, count=20_000):
    """Rows as the model's sensors would give them; always the same."""
    rng, spec = np.random.default_rng(0), model.input
    if spec.dtype != "float32":
        return rng.integers(0, 256, (count, *spec.shape), dtype=spec.dtype)
    rows = rng.normal(size=(count, *spec.shape))
    if spec.shape == (12,):
        rows = rows * np.geomspace(0.01, 100, 12) + np.linspace(-50, 1000, 12)
    return rows.astype(np.float32)


def same(model, what, got, expected):
    """Whether a result is the expected one: int8 latents to the bit, all else within the manifest's tolerance."""
    if got.dtype != np.float32 or got.shape != expected.shape:
        return False
    if what == "encode" and model.variant == "int8":
        return np.array_equal(got, expected)
    name = {"encode": "latent", "score": "score"}.get(what, "reconstruction")
    limit = model.manifest.variants[model.variant].tolerance[name]
    scale = model.manifest.score.scale if what in ("decode", "denoise") else 1.0  # tolerated in scaled units
    per_row = tuple(range(got.ndim - len(_row_shape(model, what)), got.ndim))
    with np.errstate(all="ignore"):
        error = np.abs(np.subtract(got, expected, dtype=np.float64) / scale)
        size = np.abs(expected, dtype=np.float64).max(axis=per_row, keepdims=True)
    if what in ("decode", "denoise"):
        size = 0.0  # a feature's mean must not make its tolerance larger
    return bool(np.all(error <= limit.atol + limit.rtol * size))


def _row_shape(model, what):
    return {"encode": (model.latent_size,), "score": ()}.get(what, model.input.shape)


def record(model, folder):
    """Write down the latents of a model that is known to be right."""
    np.save(_file(folder, model), model.encode(rows_of(model)))


def right(model, sizes=SIZES):
    """Whether a single row and so many rows at once get the recorded latents."""
    rows, latents = _truth(model)
    return all(
        same(model, "encode", model.encode(x), z)
        for x, z in [(rows[0], latents[0]), *((rows[:n], latents[:n]) for n in sizes)]
    )


_kept = {}


def _truth(model):
    place = _file(os.environ[PLACE], model)
    if place not in _kept:
        _kept[place] = rows_of(model), np.load(place)
    return _kept[place]


def _file(folder, model):
    return Path(folder) / f"{model.manifest.name}.{model.variant}.npy"


def forked(work, leave=os._exit):
    """Exit code of a forked child: 0 where `work` gave something true; below 0, the signal that ended it."""
    child = os.fork()
    if child == 0:
        leave(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def answer(model, connection):
    """For a process that is handed a model: tell whether it is right."""
    connection.send(right(model))
