"""Training rows on the device that trains: one tensor and permuted batches, or chunks of a file larger than memory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aeedge.errors import InputError
from aeedge.runtime.prefetch import prefetch
from aeedge_export.data.scaling import Group, Scaler, in_order, row_size
from aeedge_export.data.shards import LazyRows

_CHUNK_BYTES = 2**25  # of float32 rows read in one go from files
_CHUNKS_MIXED = 4  # chunks shuffled together, in a buffer
_HASHED_BYTES = 2**26
_VALIDATION_ROWS = 10_000  # enough for an estimate, few enough to stay in memory
_VALIDATION_BYTES = 2**28  # of rows that are streamed
_LEAST_CALIBRATION, _RESERVE = 99, 6  # a rate of 1 % needs 99; some of them may be left out
LEAST_ROWS_TO_CALIBRATE = 5 * _LEAST_CALIBRATION
"""Of fewer, none are held out to calibrate with, unless that is asked for."""
_MOST_CALIBRATION, _CALIBRATION_BYTES = 4096, 2**26


class Rows(Protocol):
    """Rows to train on, scaled, float32."""

    count: int
    validation: Tensor

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """All training rows once, in an order drawn from `generator`."""


CROSS = "cross"  # calibration by cross-validation: every row is trained on
SPLIT = ("validation", "calibration", "time_ordered", "gap")  # the estimator's parameters that `split` takes


class Split(NamedTuple):
    """Indices of rows, sorted; each row is in one part at most.

    Attributes:
        train: to fit to.
        validation: to choose the best weights.
        calibration: to set thresholds by; they have no say in the training.
        later: of rows in time order some after `calibration`, to see whether scores drift; they have no say either.
    """

    train: NDArray[np.intp]
    validation: NDArray[np.intp]
    calibration: NDArray[np.intp]
    later: NDArray[np.intp]

    @property
    def fitted(self) -> NDArray[np.intp]:
        """Training and validation rows, which have a say in the training."""
        found = np.concatenate([self.train, self.validation])
        found.sort()  # numpy's union has a hash table, ten times as large
        first = np.append(True, found[1:] != found[:-1])
        return found if first.all() else found[first]


def split(
    count: int,
    validation: float,
    seed: int,
    left_out: NDArray[np.intp] | Sequence[int] = (),
    weights: NDArray[np.float32] | None = None,
    *,
    calibration: float | str = 0.0,
    time_ordered: bool = False,
    gap: int = 1,
    row_bytes: int = 4,
) -> Split:
    """Split rows into training, validation, calibration and later rows, without those that are left out of all parts.

    The parts depend on `count` and `seed` alone. In the place of a training row that is left out stands another one:
    then number and order of the training rows, and with them the course of training, are as without the fault. With
    `weights` (count,), only rows of a weight above 0 are split. The indices are int32, below 2**31 rows: 0.4 GB for 100
    million rows, and twice as much for a moment.

    Args:
        count: number of rows.
        validation: share of validation rows, of which there are at most 10 000.
        seed: of the random split.
        left_out: indices of rows.
        weights: of the rows; None for all alike.
        calibration: share of calibration rows, or "auto": a tenth of the rows, at least 105 (a false-alarm rate of 1 %
            needs 99, and some may be left out), at most 4 096 and 64 MB; none of fewer than 495 rows, or where less
            than half of the rows beside validation would be left to train on. "cross": all rows are training rows.
        time_ordered: whether the parts are blocks in the order of the rows: training, validation, calibration, later
            rows (half as many as for calibration). Otherwise they are drawn at random, and there are no later ones.
        gap: number of rows before each block that are in no part.
        row_bytes: size of one row, for "auto".

    Raises:
        InputError: no row is left to train on.
    """
    if weights is not None:
        some = np.flatnonzero(weights)
        inner = np.flatnonzero(np.isin(some, left_out))
        options: dict[str, Any] = {"calibration": calibration, "time_ordered": time_ordered, "gap": gap}
        return Split(
            *(some[part] for part in split(len(some), validation, seed, inner, row_bytes=row_bytes, **options))
        )
    gap = gap if time_ordered else 0
    sizes = _sizes(count, validation, calibration, time_ordered, gap, row_bytes)
    order: NDArray[Any] = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    if not time_ordered:
        np.random.default_rng(seed).shuffle(order)
    found, start = [], 0 if time_ordered else sum(sizes[1:])
    for size in sizes:  # of a random order the training rows are at the end
        start += gap if start and size else 0
        start = 0 if start >= count else start
        found.append(np.sort(order[start : start + size]))
        start += size
    del order
    train = found[0]
    if len(left_out):
        gone = np.isin(train, left_out)
        if not gone.all():
            train[gone] = train[~gone][np.linspace(0, (~gone).sum() - 1, gone.sum()).astype(np.intp)]
    return Split(train, *(np.setdiff1d(part, left_out) for part in found[1:]))


def split_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `split` from an estimator's parameters: without thresholds no row is needed for them."""
    options = {name: params[name] for name in SPLIT}
    if isinstance(options["calibration"], str) and params.get("goal") == "compress":
        options["calibration"] = 0.0
    return options


def _sizes(
    count: int, validation: float, calibration: float | str, time_ordered: bool, gap: int, row_bytes: int
) -> list[int]:
    """Numbers of training, validation, calibration and later rows."""
    if calibration == CROSS:
        return [count, 0, 0, 0]
    held_out = min(round(count * validation), _VALIDATION_ROWS, count - 1) if validation else 0
    held_out = max(held_out, 1) if validation and count > 1 else held_out

    def with_calibration(rows: int) -> list[int]:
        held = [held_out, rows, rows // 2 if time_ordered else 0]
        return [count - sum(held) - gap * sum(size > 0 for size in held), *held]

    if isinstance(calibration, str):
        sizes = with_calibration(_enough_to_calibrate(count, row_bytes))
        sizes = sizes if 2 * sizes[0] >= count - held_out else with_calibration(0)
    else:
        sizes = with_calibration(max(round(count * calibration), 1) if calibration else 0)
    if sizes[0] < 1:
        named = zip(sizes[1:], ("validation", "calibration", "later rows"))
        held = ", ".join(f"{size} for {name}" for size, name in named if size)
        raise InputError(
            f"X: expected rows to train on beside {held}{f' and gaps of {gap}' if gap else ''}, got {count} in all; "
            f"use more rows, or smaller shares for validation and calibration{', or a smaller gap' if gap else ''}"
        )
    return sizes


def _enough_to_calibrate(count: int, row_bytes: int) -> int:
    """Number of calibration rows of `count`, for "auto"."""
    if count < LEAST_ROWS_TO_CALIBRATE:
        return 0
    return min(max(round(count / 10), _LEAST_CALIBRATION + _RESERVE), most_calibration(row_bytes))


def most_calibration(row_bytes: int) -> int:
    """Most calibration rows of this size that are kept."""
    return max(1, min(_MOST_CALIBRATION, _CALIBRATION_BYTES // max(1, row_bytes)))


def kept_rows(rows: NDArray[np.intp], most: int, seed: int, *, time_ordered: bool) -> NDArray[np.intp]:
    """At most so many of some indices, sorted: drawn at random, or evenly spaced where rows are in time order."""
    if len(rows) <= most:
        return rows
    if time_ordered:
        return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


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


def row_keys(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.void]:
    """The bytes of each row (n, ...) in a dtype, (n,): equal rows have equal keys."""
    flat = np.ascontiguousarray(rows, dtype).reshape(len(rows), -1)
    keys: NDArray[np.void] = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).reshape(-1)
    return keys


def hashed(X: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the rows that `fingerprint` hashes."""
    most = max(1, min(10_000, _HASHED_BYTES // (4 * row_size(X))))
    return np.arange(0, len(X), -(-len(X) // most))


def fingerprint(X: NDArray[Any], dtype: str) -> dict[str, Any]:
    """Shape, dtype, and a hash of rows spread over the data (at most 10 000, and 64 MB), as a model of `dtype` takes
    them.
    """
    rows = np.ascontiguousarray(X[hashed(X)], dtype)
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
    """Rows that stay in files, in an order that depends on the generator, the rows and the batch size alone.

    Consecutive training rows are a chunk: of 32 MB as float32, or of whole row groups of Parquet where `X.edges` tells
    where these begin. The chunks come in random order; 4 of them fill a buffer, fewer of longer ones, whose rows are
    shuffled. A batch may span buffers. Two of them are in memory, and on the device: the next one is read and scaled on
    a thread of its own while the present one is trained on.

    Processes that train together draw the same order; each reads all rows, and takes its part of every batch.
    Validation rows stay in memory, 256 MB of them at most.

    Attributes:
        waited: seconds that `batches` has waited for rows.
    """

    def __init__(
        self,
        X: NDArray[Any],
        train: NDArray[np.intp],
        validation: NDArray[np.intp],
        scaler: Scaler,
        device: torch.device,
        weights: NDArray[np.float32] | None = None,
        *,
        chunk_bytes: int = _CHUNK_BYTES,
    ) -> None:
        self._weights = weights
        self._X, self._train, self._scaler, self._device = X, in_order(train), scaler, device
        self._chunk = max(1, chunk_bytes // (4 * row_size(X)))
        self.validation = torch.from_numpy(scaler(X[fewer(X, validation)])).to(device)
        self.count, self.waited = len(train), 0.0

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """All training rows once, in an order drawn from `generator`."""
        buffers = prefetch(self._buffers(generator))
        rest: Tensor | None = None
        for start in range(0, self.count, size):
            missing = min(size, self.count - start)
            found: list[Tensor] = []
            while missing:
                if rest is None or not len(rest):
                    rest = self._next(buffers)
                found.append(rest[:missing])
                rest, missing = rest[missing:], missing - len(found[-1])
            yield found[0] if len(found) == 1 else torch.cat(found)

    def _next(self, buffers: Iterator[Tensor]) -> Tensor:
        began = time.perf_counter()
        rows = next(buffers)
        self.waited += time.perf_counter() - began
        return rows

    def _buffers(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The rows of one buffer after the other, scaled and shuffled."""
        train = self._train
        if self._weights is not None:
            train = train[resampled(self._weights, _uniform(generator))]
        edges = self._edges(train)
        chunks = torch.randperm(len(edges) - 1, generator=generator).tolist()
        mixed = max(1, _CHUNKS_MIXED * self._chunk // int(np.diff(edges).max()))
        for first in range(0, len(chunks), mixed):
            rows = np.concatenate([train[edges[c] : edges[c + 1]] for c in sorted(chunks[first : first + mixed])])
            order = torch.randperm(len(rows), generator=generator).numpy()
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
            found = torch.empty(len(rows), *self._X.shape[1:])
            for start in range(0, len(rows), self._chunk):  # no more is read at once
                part = slice(start, start + self._chunk)
                found.numpy()[places[part]] = self._scaler(self._X[rows[part]])
            yield found.to(self._device)

    def _edges(self, train: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where chunks begin among the training rows, and their end."""
        known = getattr(self._X, "edges", None)
        if known is None:
            return np.append(np.arange(0, len(train), self._chunk), len(train))
        begins = np.searchsorted(train, known.astype(train.dtype))
        found = [0]
        for begin in begins.tolist():
            if begin - found[-1] >= self._chunk:
                found.append(begin)
        return np.array(found if found[-1] == len(train) else [*found, len(train)])


def fewer(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """As many of these rows as fit into 256 MB, spread over all."""
    most = max(2, _VALIDATION_BYTES // (4 * row_size(X)))
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def place_rows(
    X: NDArray[Any],
    train: NDArray[np.intp],
    validation: NDArray[np.intp],
    scaler: Scaler,
    device: torch.device,
    weights: NDArray[np.float32] | None = None,
    group: Group | None = None,
) -> Rows:
    """Rows to train on; `weights` are those of all rows of X, which the validation rows follow too.

    An array is resident if its float32 rows take at most half of the device's free memory, otherwise streamed; shards
    always are, so that the order of their rows does not depend on the machine. In a group each process holds all rows.
    """
    free = _free_memory(device)
    if group is not None:  # the order of rows must be the same in all
        free = min(group.gathered(free)) // (group.local_size if device.type == "cpu" else 1)
    small = 4 * row_size(X) * len(X) <= free // 2
    kind = ResidentRows if small and not isinstance(X, LazyRows) else StreamedRows
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
