"""Drift: whether latents and scores, over many windows, are still those of the reference.

Three statistics of non-overlapping windows, each an exponentially weighted moving average (EWMA):

- the mean of the whitened latents: MEWMA (Lowry, Woodall, Champ and Rigdon, Technometrics 34, 1992);
- their second moments: squared differences from the reference's, each in units of its own variance;
- the distribution of scores: the share of them below each of the reference's quantiles, of which the first three
  components are compared, location, spread and skew (Durbin and Knott, Journal of the Royal Statistical Society B 34,
  1972).

The limits come from simulation, when the reference is made: windows like those of the reference, autocorrelated as they
are (the sieve bootstrap of Bühlmann, Bernoulli 3, 1997), are compared with references that are drawn in the same way,
so that the error of a short reference counts as well (Gandy and Kvaløy, Scandinavian Journal of Statistics 40, 2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.drift_reference import LEVELS, WAVES, DriftReference
from aeedge.bundle.manifest import LARGEST_SCORE, MOST_DRIFT_LATENTS
from aeedge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

LEAST_WINDOWS, MOST_WINDOWS = 50, 2048  # of a reference
AVERAGE_RUN_LENGTH = 100_000  # windows to a false alarm: a day of windows of a second
_LEAST_EFFECTIVE = 15  # independent windows that tell as much; a component with less than half of that is left out
_PER_COMPONENT = 10  # windows of the reference for each component
_WEIGHT = 0.01  # of a new window
_LEVELS = np.array(LEVELS)
_WAVES = np.sin(np.pi * np.outer(np.arange(1, WAVES + 1), _LEVELS))  # components of a difference of distributions
_ROUNDING = 1e-3  # of a latent's largest magnitude: less than this differs from machine to machine
_RAISED, _FLOOR = 1.00001, 1e-9  # quantiles of scores, as calibration scores are
_REFERENCES, _PATHS, _STEPS, _EVERY = 64, 12, 512, 4  # of the simulation
_BURN_IN = 100
_ASSURANCE = 0.95  # the share of references whose average run length is at least the stated one
_MOST_LAGS = 8
_MOST_ALIKE = 0.98  # autocorrelation
_MARGIN = 1.1  # times the largest value on the reference itself


class DriftMonitor:
    """Compares windows with a reference, as they come.

    Args:
        reference: of `fit_reference`.
    """

    average_run_length = AVERAGE_RUN_LENGTH
    """How many windows pass on average until drift is found where there is none; see docs/how-to/drift.md."""

    def __init__(self, reference: DriftReference) -> None:
        r = {name: np.asarray(values, np.float64) for name, values in reference._asdict().items()}
        self._index = np.asarray(reference.index, np.intp)
        self._projection, self._offset, self._second = r["projection"], r["offset"], r["second"]
        self._edges, self._shares = r["edges"], r["shares"]
        mean_limit, second_limit, score_limit = r["limits"]
        self._mean_unit = 1 / (mean_limit * r["mean_scale"])
        self._second_unit = 1 / (second_limit * r["second_scale"])
        self._share_unit = _WAVES / (score_limit * r["share_scale"])[:, np.newaxis]
        m = len(self._offset)
        self._longest = _longest(m)
        self._moved_mean, self._moved_second = np.zeros(m), np.zeros((m, m))  # from the reference's
        self._moved_shares = np.zeros(len(self._edges))
        self.parts = (0.0, 0.0, 0.0)

    @property
    def value(self) -> float:
        """The largest statistic divided by its limit: at 1 and above it is drift."""
        return max(self.parts)

    parts: tuple[float, float, float]
    """The statistics of mean, second moments and scores, each divided by its limit."""

    def update(self, latent: NDArray[Any], score: float) -> float:
        """Take a window that does not overlap with the last one; one with NaN or infinity is passed over.

        Args:
            latent: the window's latents, flattened, (k,).
            score: its score.

        Returns:
            `value`.
        """
        x = latent[self._index].astype(np.float64)
        if not math.isfinite(float(x @ x) + score):
            return self.value
        y = self._projection @ x - self._offset
        length = math.sqrt(y @ y)
        if length > self._longest:
            y *= self._longest / length
        mean, second, shares = self._moved_mean, self._moved_second, self._moved_shares
        change = np.multiply(y[:, np.newaxis], y)
        change -= self._second
        change -= second
        change *= _WEIGHT
        second += change
        y -= mean
        y *= _WEIGHT
        mean += y
        below = (score <= self._edges) - self._shares
        below -= shares
        below *= _WEIGHT
        shares += below
        self._compare()
        return self.value

    def _compare(self) -> None:
        mean = self._moved_mean * self._mean_unit
        second = (self._moved_second * self._second_unit).ravel()
        shares = self._share_unit @ self._moved_shares
        self.parts = (
            math.sqrt(mean @ mean / len(mean)),
            math.sqrt(second @ second / len(second)),
            math.sqrt(shares @ shares / len(shares)),
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """What is to be kept over a restart, less than 50 KB: arrays by name."""
        arrays = {"mean": self._moved_mean, "second": self._moved_second, "shares": self._moved_shares}
        return {name: values.copy() for name, values in arrays.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where `state` was called.

        Raises:
            InputError: a state of another reference, or none.
        """
        found = {}
        for name, values in self.state().items():
            given = np.asarray(state.get(name))
            if given.shape != values.shape or given.dtype != values.dtype or not np.isfinite(given).all():
                raise InputError(
                    f"state: expected {name!r} of shape {values.shape}, float64 and finite, "
                    f"got {given.dtype} {given.shape}; is it of another bundle?"
                )
            found[name] = given.copy()
        self._moved_mean, self._moved_second, self._moved_shares = found["mean"], found["second"], found["shares"]
        self._compare()


def fit_reference(latents: ArrayLike, scores: ArrayLike) -> DriftReference:
    """What to compare with, from windows that are normal.

    Args:
        latents: (n, k) or (n, *latent_shape), of non-overlapping windows in the order of time that had no say in
            training.
        scores: (n,), of the same windows.

    Raises:
        InputError: fewer than `LEAST_WINDOWS` windows, or windows that change so slowly that they tell too little; or
            numbers that are not finite.
    """
    x, s = np.asarray(latents, np.float64), np.asarray(scores, np.float64)
    x = x.reshape(len(x), -1)
    if len(x) != len(s) or len(x) < LEAST_WINDOWS:
        raise InputError(
            f"latents: expected those of {LEAST_WINDOWS} windows or more that do not overlap, and as many scores, "
            f"got {len(x)} and {len(s)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(s).all()):
        raise InputError("latents: expected finite latents and scores, got NaN or infinity")
    index = np.sort(np.argsort(-x.var(axis=0), kind="stable")[:MOST_DRIFT_LATENTS])
    x = x[:, index]
    mean, scale = x.mean(axis=0), np.sqrt(x.var(axis=0) + (_ROUNDING * np.abs(x).max(axis=0)) ** 2)
    scale[scale == 0] = 1.0
    standard = (x - mean) / scale
    rotation, normal = _whitening(standard.T @ standard / len(x), len(x)), _normal_scores(s)
    effective = _effective(np.column_stack([standard @ rotation.T, normal]))
    least = min(float(np.median(effective[:-1])), effective[-1])
    if least < _LEAST_EFFECTIVE:
        raise InputError(
            f"latents: of {len(x)} windows, which change slowly, there are as few as {least:.1f} independent ones, "
            f"expected {_LEAST_EFFECTIVE} or more; take a longer reference"
        )
    rotation = rotation[effective[:-1] >= _LEAST_EFFECTIVE / 2]
    axes = rotation / np.linalg.norm(rotation, axis=1, keepdims=True)
    rotation = rotation[: max(1, len(x) // _PER_COMPONENT)]
    y = standard @ rotation.T
    edges = np.quantile(s, _LEVELS)
    edges = np.minimum(edges + np.abs(edges) * (_RAISED - 1) + _FLOOR, LARGEST_SCORE)
    fitted = {
        "index": index.astype(np.int64),
        "projection": rotation / scale,
        "offset": rotation @ (mean / scale),
        "second": _second(y),
        "edges": edges,
        "shares": (s[:, np.newaxis] <= edges).mean(axis=0),
    }
    limits = _simulated(np.column_stack([standard @ axes.T, normal]), len(rotation))
    reference = DriftReference(
        **{name: values if name == "index" else values.astype(np.float32) for name, values in (fitted | limits).items()}
    )
    return reference._replace(limits=_at_least_seen(reference, np.asarray(latents).reshape(len(x), -1), s))


def _whitening(covariance: Array, count: int) -> Array:
    """Rows that make components of variance 1, those of the largest variance first; matrices (..., q, q) to the same.

    The covariance of `count` windows is drawn towards the identity, more so for few windows.
    """
    q = covariance.shape[-1]
    share = q / (q + count)
    values, vectors = np.linalg.eigh((1 - share) * covariance + share * np.eye(q))
    found: Array = (vectors / np.sqrt(values)[..., np.newaxis, :])[..., ::-1].swapaxes(-1, -2)
    return found


def _longest(m: int) -> float:
    """The length of m components beyond which they are shortened: a single window must not count for many."""
    return math.sqrt(m) + 2.0


def _shortened(y: Array) -> Array:
    """Components (..., m) of the longest length or less."""
    length = np.sqrt((y * y).sum(axis=-1, keepdims=True))
    longest = y.dtype.type(_longest(y.shape[-1]))
    found: Array = y * (longest / np.maximum(length, longest))
    return found


def _second(y: Array) -> Array:
    """Means of products of shortened components: (..., n, m) to (..., m, m)."""
    y = _shortened(y)
    found: Array = y.swapaxes(-1, -2) @ y / y.shape[-2]
    return found


def _normal_scores(scores: Array) -> Array:
    """Scores as a normal distribution has them, by their ranks; equal ones in any order."""
    from statistics import NormalDist

    ranks = np.argsort(np.lexsort((np.random.default_rng(0).random(len(scores)), scores)))
    inverse = NormalDist().inv_cdf
    return np.array([inverse((rank + 0.5) / len(scores)) for rank in ranks.tolist()])


# --- the simulation


class _Process:
    """Autoregressive components, each with lags of its own, driven by what their fit to the reference leaves.

    Args:
        x: the reference (n, d), of mean about 0.
    """

    def __init__(self, x: Array) -> None:
        most = min(_MOST_LAGS, len(x) // 20)
        x = x - x.mean(axis=0)
        reflections = np.stack([_reflections(column, most) for column in x.T], axis=-1)  # (lags, d)
        self.coefficients = _coefficients(reflections)
        lags = len(self.coefficients)
        left = x[lags:].copy()
        for lag, coefficient in enumerate(self.coefficients, start=1):
            left -= coefficient * x[lags - lag : len(x) - lag]
        left -= left.mean(axis=0)
        variance = x.var(axis=0) * (1 - reflections**2).prod(axis=0)
        self.noise = left * np.sqrt(variance / np.maximum(left.var(axis=0), 1e-300))

    def paths(self, count: int, rng: np.random.Generator) -> Iterator[Array]:
        """Windows (count, d), one after the other, for ever."""
        lags, d = self.coefficients.shape
        past = [np.zeros((count, d)) for _ in range(lags)]
        step = -_BURN_IN
        while True:
            x = self.noise[rng.integers(len(self.noise), size=count)]
            for coefficient, before in zip(self.coefficients, past):
                x += coefficient * before
            past = [x, *past[:-1]]
            step += 1
            if step > 0:
                yield x


def _reflections(x: Array, most: int) -> Array:
    """Partial autocorrelations (most,) by Burg's method, up to the lag that Akaike's corrected criterion prefers.

    The first is raised by its bias and two standard errors: few windows often seem to be more independent than they
    are, and false alarms follow from that.
    """
    n, found, best, keep = len(x), np.zeros(most), 0.0, 1
    forward, backward, loss = x[1:], x[:-1], 0.0
    for lag in range(1, most + 1):
        energy = float(forward @ forward + backward @ backward)
        found[lag - 1] = 2 * float(forward @ backward) / energy if energy > 0 else 0.0
        r = found[lag - 1]
        forward, backward = (forward - r * backward)[1:], (backward - r * forward)[:-1]
        loss += n * math.log(max(1 - r * r, 1e-9))
        criterion = loss + 2 * lag * n / (n - lag - 1)
        if criterion < best:
            best, keep = criterion, lag
    found[keep:] = 0.0
    r = found[0]
    found[0] = min(r + (1 + 3 * r) / n + 2 * math.sqrt((1 - r * r) / n), max(r, _MOST_ALIKE))
    return found


def _coefficients(reflections: Array) -> Array:
    """Autoregressive coefficients of partial autocorrelations, (lags, d) to the same (Levinson and Durbin)."""
    found = np.zeros((0, reflections.shape[1]))
    for r in reflections:
        found = np.concatenate([found - r * found[::-1], r[np.newaxis]])
    return found


def _effective(x: Array) -> Array:
    """How many independent windows tell as much of the mean as these, (d,), of each column of (n, d)."""
    process = _Process(x)
    variance = np.maximum(x.var(axis=0), 1e-300)
    alone = process.noise.var(axis=0) / (1 - process.coefficients.sum(axis=0)) ** 2  # at frequency 0
    found: Array = len(x) * np.minimum(1.0, variance / np.maximum(alone, 1e-300))
    return found


def _simulated(x: Array, components: int) -> dict[str, Array]:
    """Standard deviations of the EWMAs, and limits.

    Args:
        x: latents along their principal axes, and the scores as normal ones, (n, d).
        components: how many are looked at.
    """
    process, rng = _Process(x), np.random.default_rng(0)
    drawn = _Drawn(process, len(x), components, rng)
    spreads: list[tuple[NDArray[Any], ...]] = []
    for moved in _moved(process, drawn, 2, rng):
        spreads.append(tuple((values**2).mean(axis=(0, 1)) for values in moved))
    half = len(spreads) // 4
    mean, second, share = (np.mean(values, axis=0) for values in zip(*spreads[half:]))
    least = _WEIGHT / (2 - _WEIGHT)  # of independent windows: where a latent is dead, one must not count for more
    apart = _WAVES @ (np.minimum(_LEVELS, _LEVELS[:, np.newaxis]) - np.outer(_LEVELS, _LEVELS)) @ _WAVES.T
    mean, second = np.maximum(mean, least), np.maximum(second, least)
    share = np.maximum(share, least * np.diag(apart))
    most = np.zeros((3, _REFERENCES, _PATHS))
    for z, s, f in _moved(process, drawn, _PATHS, rng):
        found = (z**2 / mean).mean(axis=-1), (s**2 / second).mean(axis=(-1, -2)), (f**2 / share).mean(axis=-1)
        np.maximum(most, found, out=most)
    limits = np.array([max(_limit(values), 1.0) for values in np.sqrt(most)])
    return {
        "mean_scale": np.sqrt(mean),
        "second_scale": np.sqrt(second),
        "share_scale": np.sqrt(share),
        "limits": limits,
    }


class _Drawn:
    """References of n windows, drawn from a process: what each of them makes the monitor compare with."""

    def __init__(self, process: _Process, n: int, components: int, rng: np.random.Generator) -> None:
        x = np.empty((_REFERENCES, n, process.noise.shape[1]), np.float32)
        for t, windows in zip(range(n), process.paths(_REFERENCES, rng)):
            x[:, t] = windows
        self.edges = np.quantile(x[..., -1], _LEVELS, axis=1).T[:, np.newaxis]
        x = x[..., :-1]
        self.mean = x.mean(axis=1, keepdims=True)
        x = x - self.mean
        rotation = _whitening(x.swapaxes(1, 2) @ x / np.float32(n), n)[:, :components]
        self.rotation = rotation.swapaxes(1, 2).astype(np.float32)
        self.second = _second(x @ self.rotation)[:, np.newaxis]


def _moved(
    process: _Process, drawn: _Drawn, paths: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The EWMAs' distances from each of the references, every few windows, for several paths of each."""
    count, _, components = drawn.rotation.shape
    z, s = np.zeros((count, paths, components)), np.zeros((count, paths, components, components), np.float32)
    f = np.zeros((count, paths, len(_LEVELS)))
    for step, windows in zip(range(1, _STEPS + 1), process.paths(count * paths, rng)):
        x = windows.reshape(count, paths, -1)
        y = _shortened((x[..., :-1] - drawn.mean).astype(np.float32) @ drawn.rotation)
        change = y[..., np.newaxis] * y[..., np.newaxis, :]
        change -= drawn.second
        change -= s
        change *= np.float32(_WEIGHT)
        s += change
        z += _WEIGHT * (y - z)
        f += _WEIGHT * ((x[..., -1:] <= drawn.edges) - _LEVELS - f)
        if step % _EVERY == 0:
            yield z, s, f @ _WAVES.T


def _limit(largest: Array) -> float:
    """The level that a statistic exceeds so rarely that all three have the average run length, for most references.

    Args:
        largest: the largest values of paths of `_STEPS` windows, (references, paths), which have a Gumbel distribution.
    """
    chance = _STEPS / AVERAGE_RUN_LENGTH / 3
    deviations = math.sqrt(6) / math.pi * (-math.log(-math.log1p(-chance)) - np.euler_gamma)
    spread = math.sqrt(largest.var(axis=1, ddof=1).mean())  # of one reference alone, it would be too uncertain
    return float(np.quantile(largest.mean(axis=1), _ASSURANCE)) + deviations * spread


def _at_least_seen(reference: DriftReference, latents: NDArray[Any], scores: Array) -> NDArray[np.float32]:
    """Limits that the reference itself stays below, where it changes more slowly than an autoregression knows."""
    monitor, most = DriftMonitor(reference), np.zeros(3)
    for latent, score in zip(latents, scores.tolist()):
        monitor.update(latent, score)
        np.maximum(most, monitor.parts, out=most)
    found: NDArray[np.float32] = reference.limits * np.maximum(1.0, _MARGIN * most).astype(np.float32)
    return found
