"""Training rows on the device that trains: one tensor and permuted batches, or chunks of a file larger than memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aeedge_export.data.scaling import Scaler

_CHUNK_BYTES = 2**25  # of float32 rows read in one go from a memory-mapped file
_CHUNKS_MIXED = 4  # chunks shuffled together
_HASHED_BYTES = 2**26
_VALIDATION_ROWS = 10_000  # enough for an estimate, few enough to stay in memory


class Rows(Protocol):
    """Rows to train on, scaled, float32."""

    count: int
    validation: Tensor

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """All training rows once, in an order drawn from `generator`."""


def split(
    count: int,
    fraction: float,
    seed: int,
    left_out: NDArray[np.intp] | Sequence[int] = (),
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of training and validation rows, without those that are left out of both.

    The split depends on `count` and `seed` alone. In the place of a training row that is left out stands another one:
    then number and order of the training rows, and with them the course of training, are as without the fault. With
    `weights` (count,), only rows of a weight above 0 are split.
    """
    if weights is not None:
        some = np.flatnonzero(weights)
        train, validation = split(len(some), fraction, seed, np.flatnonzero(np.isin(some, left_out)))
        return some[train], some[validation]
    held_out = min(round(count * fraction), _VALIDATION_ROWS, count - 1) if fraction else 0
    held_out = max(held_out, 1) if fraction and count > 1 else held_out
    order = np.random.default_rng(seed).permutation(count)
    train, validation = np.sort(order[held_out:]), np.sort(order[:held_out])
    gone = np.isin(train, left_out)
    if not gone.all():
        train[gone] = train[~gone][np.linspace(0, (~gone).sum() - 1, gone.sum()).astype(np.intp)]
    return train, np.setdiff1d(validation, left_out)


def resampled(weights: NDArray[np.float32], offset: float) -> NDArray[np.intp]:
    """As many indices as there are weights, sorted, each as often as its weight says (systematic resampling).

    Args:
        weights: (n,), relative to each other.
        offset: 0 to 1; drawn at random, every index comes up as often as its weight says on average.
    """
    edges = np.cumsum(weights, dtype=np.float64)
    wanted = (np.arange(len(weights)) + offset) * (edges[-1] / len(weights))
    found: NDArray[np.intp] = np.minimum(np.searchsorted(edges, wanted), len(weights) - 1)
    return found


def fingerprint(X: NDArray[Any], dtype: str) -> dict[str, Any]:
    """Shape, dtype, and a hash of rows spread over the data (at most 10 000, and 64 MB), as a model of `dtype` takes
    them.
    """
    most = max(1, min(10_000, _HASHED_BYTES // max(1, 4 * X[0].size)))
    rows = np.ascontiguousarray(X[:: -(-len(X) // most)], dtype)
    return {"shape": list(X.shape), "dtype": dtype, "sha256": hashlib.sha256(rows.tobytes()).hexdigest()}


class ResidentRows:
    """Rows as one tensor on `device`; with `weights` of the training rows, drawn as often as these say."""

    def __init__(
        self,
        X: NDArray[Any],
        train: NDArray[np.intp],
        validation: NDArray[np.intp],
        scaler: Scaler,
        device: torch.device,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        self._weights = weights
        self._rows = torch.from_numpy(scaler(X[train])).to(device)
        self.validation = torch.from_numpy(scaler(X[validation])).to(device)
        self.count = len(train)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """All training rows once, in an order drawn from `generator`."""
        order = torch.randperm(self.count, generator=generator)
        if self._weights is not None:
            order = torch.from_numpy(resampled(self._weights, _uniform(generator)))[order]
        order = order.to(self._rows.device)
        for start in range(0, self.count, size):
            yield self._rows[order[start : start + size]]


class StreamedRows:
    """Rows that stay in a memory-mapped file: chunks in random order, a few at a time shuffled together."""

    def __init__(
        self,
        X: NDArray[Any],
        train: NDArray[np.intp],
        validation: NDArray[np.intp],
        scaler: Scaler,
        device: torch.device,
        weights: NDArray[np.float32] | None = None,
        chunk_bytes: int = _CHUNK_BYTES,
    ) -> None:
        self._weights = weights
        self._X, self._train, self._scaler, self._device = X, train, scaler, device
        self._chunk = max(1, chunk_bytes // max(1, 4 * X[0].size))
        self.validation = torch.from_numpy(scaler(X[validation])).to(device)
        self.count = len(train)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """All training rows once, in an order drawn from `generator`; a batch may span chunks."""
        chunks = torch.randperm(-(-self.count // self._chunk), generator=generator).tolist()
        rest: Tensor | None = None
        train = self._train
        if self._weights is not None:
            train = train[resampled(self._weights, _uniform(generator))]
        for first in range(0, len(chunks), _CHUNKS_MIXED):
            wanted = [
                train[c * self._chunk : (c + 1) * self._chunk] for c in sorted(chunks[first : first + _CHUNKS_MIXED])
            ]
            rows = torch.from_numpy(self._scaler(np.concatenate([self._X[part] for part in wanted])))
            rows = rows[torch.randperm(len(rows), generator=generator)]
            rows = rows if rest is None else torch.cat([rest, rows])
            whole = len(rows) - len(rows) % size
            for start in range(0, whole, size):
                yield rows[start : start + size].to(self._device)
            rest = rows[whole:]
        if rest is not None and len(rest):
            yield rest.to(self._device)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def place_rows(
    X: NDArray[Any],
    train: NDArray[np.intp],
    validation: NDArray[np.intp],
    scaler: Scaler,
    device: torch.device,
    weights: NDArray[np.float32] | None = None,
) -> Rows:
    """Rows to train on; `weights` are those of all rows of X, which the validation rows follow too.

    Resident if the float32 rows take at most half of the device's free memory, otherwise streamed."""
    needed = 4 * X[0].size * len(X)
    kind = ResidentRows if needed <= _free_memory(device) // 2 else StreamedRows
    if weights is None:
        return kind(X, train, validation, scaler, device)
    if len(validation):
        validation = validation[resampled(weights[validation], 0.5)]
    return kind(X, train, validation, scaler, device, weights[train])


def _free_memory(device: torch.device) -> int:
    if device.type not in ("cpu", "mps"):  # mps shares the machine's memory
        return int(torch.accelerator.get_memory_info(device)[0])
    try:
        with open("/proc/meminfo") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 2**32  # unknown on this system: assume 4 GiB
