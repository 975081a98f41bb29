"""Which value makes a sample anomalous: how far the score falls when a value is replaced by what the others say.

A network smears the fault of one sensor over all residuals, because the latents see the faulty value too. So each value
in turn is taken out: a typical value takes its place, then a few times what the network reconstructs there, until that
agrees with the other values. What the score loses by this is the value's contribution. It is the reconstruction-based
contribution of Alcala and Qin (Automatica 45, 2009, "Reconstruction-based contribution for process monitoring") for any
network and any kind of score; for PCA and the squared error it is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.record import Record
from aeedge.runtime.batch import BLOCK_BYTES, InputBatch
from aeedge.runtime.missing import fill_missing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from aeedge.bundle.manifest import InputSpec
    from aeedge.types import Block, Floats

    Call = Callable[..., Any]

ROUNDS = (
    3  # of reconstruction: one leaves errors, more change nothing (synthetic tables, goals "detect" and "compress")
)
CANDIDATES = 64  # the most values that are tried in a sample, those of the largest residuals
_TRIED_BYTES = 4 * BLOCK_BYTES  # of samples that are tried at once: some for each thread
_LARGEST = float(np.finfo(np.float32).max)


class Cause(Record):
    """A value of a sample, and its part in the sample's anomaly score.

    Attributes:
        name: the feature's name, or its position as text; of windows of a recording the channel's name; "channel 2" of
            other signals, "sample 117" where they have one channel; "pixel (3, 4)" of images, with ", channel 2" where
            there are several; with a front end "x 120-125 Hz", "x mel 17 (421 Hz)".
        index: where the value is in the sample; of a channel, the value that is farthest from what is expected.
        share: of the score, 0 to 1: what it loses when the value (the channel) is as expected. The shares of a sample
            add up to at most 1.
        residual: (actual - expected) / scale, in scaled units.
        actual: the value as it was given, in raw units.
        expected: what the other values of the sample say that it should be, in raw units.
    """

    name: str
    index: tuple[int, ...]
    share: float
    residual: float
    actual: float
    expected: float


class Parts:
    """The parts of a sample that are explained: values, or the channels of signals.

    Args:
        spec: of one sample. Two axes are signals of several channels, but images if they are bytes and no windows.
        channels_last: whether the channels are the last axis.
    """

    def __init__(self, spec: InputSpec, channels_last: bool) -> None:
        shape, axes, signal = spec.shape, len(spec.shape), spec.signal
        self._spec, self._last = spec, channels_last or signal is not None
        is_signal = signal is not None or (axes == 2 and spec.dtype != "uint8")
        self._channel_axis = (axes - 1 if self._last else 0) if is_signal or axes == 3 else None
        self._channels = 1 if self._channel_axis is None else shape[self._channel_axis]
        self.are_channels = is_signal and (self._channels > 1 or signal is not None)
        self._names = None if signal is None else signal.names
        self.explained = None if signal is None else len(signal.channels)  # those of the calendar come last

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """A view of C-contiguous samples (n, *shape) as (n, parts, values of a part)."""
        if self.are_channels:
            return samples.swapaxes(1, 2) if self._last else samples
        return samples.reshape(len(samples), -1, 1)

    def index(self, part: int, position: int) -> tuple[int, ...]:
        """Where a value of a part is in a sample."""
        if self.are_channels:
            return (position, part) if self._last else (part, position)
        return tuple(int(i) for i in np.unravel_index(part, self._spec.shape))

    def name(self, index: tuple[int, ...]) -> str:
        """What a value is called; of a channel, the channel."""
        if len(index) == 1:
            return str(index[0]) if self._spec.features is None else self._spec.features[index[0]]
        channel = -1 if self._channel_axis is None else index[self._channel_axis]
        place = index if self._channel_axis is None else tuple(np.delete(index, self._channel_axis).tolist())
        if self.are_channels:
            return f"channel {channel}" if self._names is None else self._names[channel]
        if len(place) == 1:
            return f"sample {place[0]}"
        return f"pixel {place}" + (f", channel {channel}" if self._channels > 1 else "")


class Explainer:
    """Explains samples of a model.

    Args:
        spec: of one sample.
        scale: in raw units, broadcasts to one sample; residuals are in its units.
        typical: a sample that is typical value by value, as the median of the reference inputs.
        channels_last: of signals and images.
        score, denoise: the model's methods, which take samples and `invalid`.
    """

    def __init__(
        self,
        spec: InputSpec,
        scale: NDArray[np.float32],
        typical: NDArray[Any],
        channels_last: bool,
        score: Call,
        denoise: Call,
    ) -> None:
        self._spec, self._dtype, self._score, self._denoise = spec, np.dtype(spec.dtype), score, denoise
        self._parts = Parts(spec, channels_last)
        self._typical = self._parts(self._as_input(typical[np.newaxis]))[0]
        self._scale = self._parts(np.ascontiguousarray(np.broadcast_to(scale, (1, *spec.shape))))[0]

    def __call__(self, x: ArrayLike, top: int, invalid: str) -> list[tuple[Cause, ...]] | tuple[Cause, ...]:
        """The causes of each sample; see `Model.explain`."""
        check_top(top)
        spec = self._spec
        batch = InputBatch(x, spec.shape, self._dtype, what="explain", columns=spec.features, invalid=invalid)
        rows = max(1, BLOCK_BYTES // (8 * max(1, spec.size)))  # what is known of each value is float64
        found: list[tuple[Cause, ...]] = []
        for start in range(0, len(batch), rows):
            block = batch.block(start, min(start + rows, len(batch)))
            filled = block if spec.missing is None else fill_missing(block, spec)[0]
            broken = batch.nonfinite_rows(filled, start)
            found += self._explained(block, filled, broken, int(top))
        return found[0] if batch.single else found

    def _explained(
        self, given: Block, block: Block, broken: NDArray[np.bool_] | None, top: int
    ) -> list[tuple[Cause, ...]]:
        """Causes of the samples of a block; `given` has missing values as they came."""
        if broken is None:
            return self._ranked(given, block, top)
        whole = np.flatnonzero(~broken)
        causes = dict(zip(whole.tolist(), self._ranked(given[whole], block[whole], top))) if len(whole) else {}
        return [causes[i] if i in causes else self._broken(given[i], block[i], top) for i in range(len(block))]

    def _ranked(self, given: Block, block: Block, top: int) -> list[tuple[Cause, ...]]:
        """Causes of samples that are finite."""
        tried = self._candidates(block)
        pairs = np.repeat(np.arange(len(block)), tried.shape[1]), tried.reshape(-1)
        expected, after = np.empty((len(pairs[0]), self._parts(block).shape[2])), np.empty(len(pairs[0]))
        step = max(1, _TRIED_BYTES // max(1, block[0].nbytes))
        for first in range(0, len(after), step):
            row, part = (which[first : first + step] for which in pairs)
            samples = block[row]
            expected[first : first + step] = self._expected(samples, (np.arange(len(row)), part))
            after[first : first + step] = self._scores(samples)
        expected = expected.reshape(*tried.shape, -1)
        residual = (self._of(block, tried) - expected) / self._scale[tried]
        worst = np.abs(residual).argmax(axis=2)[..., np.newaxis]
        values = [np.take_along_axis(v, worst, 2)[..., 0] for v in (residual, self._of(given, tried), expected)]
        shares = _shares(self._scores(block), after.reshape(tried.shape))
        order = np.lexsort((-np.abs(values[0]), -shares))[:, :top]
        fields = tried, worst[..., 0], shares, *values
        return [tuple(self._cause(*(of[i, k] for of in fields)) for k in order[i]) for i in range(len(block))]

    def _broken(self, given: Block, sample: Block, top: int) -> tuple[Cause, ...]:
        """Causes of a sample with NaN or infinity: these values, or the channels that hold some."""
        samples = sample[np.newaxis].copy()
        at = np.nonzero(~np.isfinite(self._parts(samples)))
        expected, actual = self._expected(samples, at), self._parts(given[np.newaxis])[at]
        parts, first = np.unique(at[1], return_index=True)
        return tuple(
            self._cause(part, at[2][i], 1 / len(parts), math.nan, actual[i], expected[i])
            for part, i in zip(parts[:top], first)
        )

    def _candidates(self, block: Block) -> NDArray[np.intp]:
        """The parts that are tried, (n, k): all but the calendar, or those of the largest residuals."""
        n, parts, _ = self._parts(block).shape
        parts = self._parts.explained or parts
        if parts <= CANDIDATES:
            return np.broadcast_to(np.arange(parts), (n, parts))
        with np.errstate(all="ignore"):
            residual = self._parts(np.ascontiguousarray(block - self._reconstructed(block))) / self._scale
            error = np.nan_to_num((residual * residual).sum(axis=2)[:, :parts], nan=np.inf)
        return np.sort(np.argpartition(-error, CANDIDATES, axis=1)[:, :CANDIDATES], axis=1)

    def _expected(self, samples: Block, at: tuple[NDArray[np.intp], ...]) -> NDArray[Any]:
        """What the other values say that those `at` (sample, part, …) should be; put in their place in `samples`."""
        start = self._typical[at[1:]]
        expected: NDArray[Any] = start
        self._parts(samples)[at] = expected
        for _ in range(ROUNDS):
            found = self._parts(self._reconstructed(samples))[at]
            expected = self._as_input(np.where(np.isfinite(found), found, start))
            self._parts(samples)[at] = expected
        return expected

    def _reconstructed(self, samples: Block) -> Floats:
        found: Floats = self._denoise(samples, invalid="propagate")
        return found

    def _scores(self, samples: Block) -> NDArray[np.float64]:
        """Scores that can be compared: what is too large for float32 is its largest number."""
        scores = np.asarray(self._score(samples, invalid="propagate"), np.float64)
        return np.nan_to_num(scores, nan=_LARGEST, posinf=_LARGEST)

    def _as_input(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values as the model takes them: integers are rounded, and clipped to the dtype's range."""
        if self._dtype.kind == "f":
            return np.asarray(values, self._dtype, order="C")
        limits = np.iinfo(self._dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
        return np.asarray(values, self._dtype, order="C")

    def _of(self, block: Block, tried: NDArray[np.intp]) -> NDArray[np.float64]:
        """Values of the parts that are tried, (n, k, values)."""
        row = np.arange(len(block))[:, np.newaxis]
        found: NDArray[np.float64] = np.array(self._parts(block)[row, tried], np.float64)
        return found

    def _cause(self, part: Any, position: Any, *numbers: Any) -> Cause:
        """With share, residual, actual and expected value."""
        index = self._parts.index(int(part), int(position))
        return Cause(self._parts.name(index), index, *map(float, numbers))


class FeatureExplainer:
    """Explains windows by the features that a front end makes of them: by their squared residuals.

    Args:
        spec: of one raw window.
        names: of the features; those of one name are one cause.
        scale: in the features' units, broadcasts to those of one window.
        typical: a raw window that is typical value by value.
        features, reconstruct: the model's methods, which take samples and `invalid`.
    """

    def __init__(
        self,
        spec: InputSpec,
        names: tuple[str, ...],
        scale: NDArray[np.float32],
        typical: NDArray[Any],
        features: Call,
        reconstruct: Call,
    ) -> None:
        self._spec, self._scale, self._typical = spec, scale, typical
        self._features, self._reconstruct = features, reconstruct
        self._names = list(dict.fromkeys(names))
        place = {name: i for i, name in enumerate(self._names)}
        self._group = np.array([place[name] for name in names])

    def __call__(self, x: ArrayLike, top: int, invalid: str) -> list[tuple[Cause, ...]] | tuple[Cause, ...]:
        """The causes of each window; see `Model.explain`."""
        check_top(top)
        spec = self._spec
        batch = InputBatch(x, spec.shape, np.dtype(spec.dtype), what="explain", invalid=invalid)
        rows = max(1, BLOCK_BYTES // (8 * max(1, spec.size)))
        found: list[tuple[Cause, ...]] = []
        for start in range(0, len(batch), rows):
            block = batch.block(start, min(start + rows, len(batch)))
            block = block if spec.missing is None else fill_missing(block, spec)[0]
            broken = batch.nonfinite_rows(block, start)
            ranked = self._ranked(block, int(top))
            found += (
                ranked
                if broken is None
                else [
                    self._broken(sample, int(top)) if bad else causes
                    for sample, bad, causes in zip(block, broken, ranked)
                ]
            )
        return found[0] if batch.single else found

    def _ranked(self, block: Block, top: int) -> list[tuple[Cause, ...]]:
        actual, expected = (call(block, invalid="propagate") for call in (self._features, self._reconstruct))
        shape, n = actual.shape[1:], len(block)
        with np.errstate(all="ignore"):
            residual = ((actual - expected) / self._scale).reshape(n, -1).astype(np.float64)
        size = np.nan_to_num(np.abs(residual), nan=_LARGEST, posinf=_LARGEST)
        parts = np.zeros((len(self._names), n))
        np.add.at(parts, self._group, np.square(size).T)
        total = parts.sum(axis=0)
        shares = np.divide(parts, total, out=np.zeros_like(parts), where=total > 0).T
        found = []
        for i in range(n):
            causes = []
            for part in np.argsort(-shares[i], kind="stable")[:top]:
                members = np.flatnonzero(self._group == part)
                at = int(members[size[i, members].argmax()])
                numbers = shares[i, part], residual[i, at], actual[i].flat[at], expected[i].flat[at]
                index = tuple(int(k) for k in np.unravel_index(at, shape))
                causes.append(Cause(self._names[part], index, *map(float, numbers)))
            found.append(tuple(causes))
        return found

    def _broken(self, sample: Block, top: int) -> tuple[Cause, ...]:
        """Causes of a window with NaN or infinity: the channels that have some, the last axis."""
        signal, wrong = self._spec.signal, ~np.isfinite(sample)
        channels = np.flatnonzero(wrong.reshape(-1, sample.shape[-1]).any(axis=0)).tolist()
        causes = []
        for channel in channels[:top]:
            index = tuple(int(k) for k in np.argwhere(wrong & (np.arange(sample.shape[-1]) == channel))[0])
            name = f"channel {channel}" if signal is None else signal.names[channel]
            actual, expected = float(sample[index]), float(self._typical[index])
            causes.append(Cause(name, index, 1 / len(channels), math.nan, actual, expected))
        return tuple(causes)


def check_top(top: int) -> None:
    """Refuse what is no number of causes.

    Raises:
        InputError: it is none.
    """
    if isinstance(top, (bool, np.bool_)) or not isinstance(top, (int, np.integer)) or top < 1:
        raise InputError(f"top: expected a whole number of at least 1, got {top!r}")


def _shares(score: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each replacement takes from a score: (n,) and (n, k) to (n, k), from 0 on, with a sum of at most 1."""
    loss = np.maximum(score[:, np.newaxis] - after, 0.0)
    whole = np.maximum(score, loss.sum(axis=1))[:, np.newaxis]
    shares: NDArray[np.float64] = np.divide(loss, whole, out=np.zeros_like(loss), where=whole > 0)
    return shares
