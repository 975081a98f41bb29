"""Drift: how long until it is found where there is none, and where there is?

false alarms: latents and scores that do not change, independent, autocorrelated, heavy-tailed or seasonal, after
references of four sizes. The average run length (ARL) is that of an exponential distribution, from the windows
until the first alarm of each path, or all of them; what is stated is `AVERAGE_RUN_LENGTH` windows.

delays: windows from a change until it is found, after references of two sizes.

Beside the monitor stand two peers that look at the score alone: the test of Page and Hinkley on its mean (two-sided,
slack of a quarter of a standard deviation), and the two-sample test of Kolmogorov and Smirnov of the last 100 scores
against the reference, every 20 windows. Their limits are those with which they have the stated ARL in this very process
after references of this very size, which nobody knows in practice; the monitor has to find its limits by itself.

    python benchmarks/drift.py [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common import Table, fingerprint, kept_as, progress, publish_all
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge.signals import drift
from aeedge.signals.drift import AVERAGE_RUN_LENGTH, DriftMonitor, DriftReference, fit_reference

Array = NDArray[np.float64]
Change = Callable[[Array, Array], tuple[Array, Array]]  # of latents (n, paths, K) and scores (n, paths), before mixing

K = 6  # latents
SIZES = (50, 100, 400, 2000)  # windows of the reference
PATHS, LONG, LIMIT_PATHS, LIMIT_LONG = 40, 10_000, 400, 2000
BEFORE, AFTER = 200, 2000  # windows before a change, and after it
SLACK, LAST, EVERY = 0.25, 100, 20  # of the peers
SEED = 2027
MIX = np.linalg.qr(np.random.default_rng(SEED).normal(size=(K, K)))[0] * np.geomspace(0.2, 5, K)


# --- processes


def independent(rng: np.random.Generator, n: int, paths: int) -> Array:
    return rng.normal(size=(n, paths, K + 1))


def heavy(rng: np.random.Generator, n: int, paths: int) -> Array:
    return rng.standard_t(3, size=(n, paths, K + 1)) / np.sqrt(3)


def autocorrelated(phi: float) -> Callable[[np.random.Generator, int, int], Array]:
    def make(rng: np.random.Generator, n: int, paths: int) -> Array:
        x, noise = rng.normal(size=(n, paths, K + 1)), np.sqrt(1 - phi**2)
        for t in range(1, n):
            x[t] = phi * x[t - 1] + noise * x[t]
        return x

    return make


def seasonal(rng: np.random.Generator, n: int, paths: int) -> Array:
    """A cycle of 96 windows (a day of quarters of an hour), half of the variance, and independent noise."""
    phase = rng.uniform(0, 2 * np.pi, size=(1, paths, 1)) + np.arange(K + 1)
    cycle = np.sin(2 * np.pi * np.arange(n)[:, np.newaxis, np.newaxis] / 96 + phase)
    return cycle + np.sqrt(0.5) * rng.normal(size=(n, paths, K + 1))


PROCESSES = {
    "independent": independent,
    "AR(1) 0.5": autocorrelated(0.5),
    "AR(1) 0.9": autocorrelated(0.9),
    "Student t, 3": heavy,
    "seasonal": seasonal,
}


def measured(x: Array) -> tuple[Array, Array]:
    """Latents (n, paths, K) and scores (n, paths) of independent parts (n, paths, K + 1)."""
    return x[..., :K] @ MIX, np.exp(0.5 * x[..., K])


# --- detectors, many at once


def monitored(references: Sequence[DriftReference], latents: Array, scores: Array) -> NDArray[np.bool_]:
    """Whether `DriftMonitor` finds drift: (n, paths), one reference for each path."""
    found = np.zeros(scores.shape, np.bool_)
    for shape in {reference.projection.shape for reference in references}:
        same = [i for i, reference in enumerate(references) if reference.projection.shape == shape]
        found[:, same] = _monitored([references[i] for i in same], latents[:, same], scores[:, same])
    return found


def _monitored(references: Sequence[DriftReference], latents: Array, scores: Array) -> NDArray[np.bool_]:
    r = {name: np.stack([getattr(of, name) for of in references]).astype(float) for name in DriftReference._fields}
    mean, second, shares = np.zeros_like(r["offset"]), np.zeros_like(r["second"]), np.zeros_like(r["shares"])
    found = np.zeros(scores.shape, np.bool_)
    for t, (latent, score) in enumerate(zip(latents, scores)):
        y = drift._shortened((r["projection"] @ latent[..., np.newaxis])[..., 0] - r["offset"])
        mean += drift._WEIGHT * (y - mean)
        second += drift._WEIGHT * (y[:, :, np.newaxis] * y[:, np.newaxis] - r["second"] - second)
        shares += drift._WEIGHT * ((score[:, np.newaxis] <= r["edges"]) - r["shares"] - shares)
        parts = [
            np.square(mean / r["mean_scale"]).mean(axis=1),
            np.square(second / r["second_scale"]).mean(axis=(1, 2)),
            np.square(shares @ drift._WAVES.T / r["share_scale"]).mean(axis=1),
        ]
        found[t] = (np.sqrt(parts).T / r["limits"]).max(axis=1) >= 1
    return found


def check_monitored(references: Sequence[DriftReference], latents: Array, scores: Array) -> None:
    """Whether that is what the monitor itself does."""
    found = monitored(references, latents, scores)
    for path, reference in enumerate(references[:3]):
        monitor = DriftMonitor(reference)
        one = [monitor.update(z, s) >= 1 for z, s in zip(latents[:, path], scores[:, path].tolist())]
        assert np.array_equal(one, found[:, path])


def page_hinkley(known: Array, scores: Array) -> Array:
    """The larger of the sums of both sides, (n, paths); reference scores (m, paths)."""
    z, total, found = (scores - known.mean(axis=0)) / known.std(axis=0), np.zeros((2, scores.shape[1])), []
    for value in z:
        total = np.maximum(total + np.stack([value, -value]) - SLACK, 0)
        found.append(total.max(axis=0))
    return np.array(found)


def kolmogorov_smirnov(known: Array, scores: Array) -> Array:
    """The distance between the distributions of the last scores and the reference scores, (n, paths)."""
    found, share = np.zeros(scores.shape), np.arange(1, len(known) + 1) / len(known)
    for path, reference in enumerate(np.sort(known, axis=0).T):
        value = 0.0
        for t in range(len(scores)):
            if t + 1 >= LAST and (t + 1) % EVERY == 0:
                last = np.sort(scores[t + 1 - LAST : t + 1, path])
                above = np.searchsorted(last, reference, side="right") / LAST
                below = np.searchsorted(last, reference, side="left") / LAST
                value = max(np.abs(above - share).max(), np.abs(below - share + 1 / len(known)).max())
            found[t, path] = value
    return found


PEERS = {"Page-Hinkley": page_hinkley, "Kolmogorov-Smirnov": kolmogorov_smirnov}


def peer_limits(make: Callable[..., Array], size: int, rng: np.random.Generator, paths: int) -> dict[str, float]:
    """Limits that give the stated ARL in this process."""
    _, scores = measured(make(rng, size + LIMIT_LONG, paths))
    share = np.exp(-LIMIT_LONG / AVERAGE_RUN_LENGTH)
    return {
        name: float(np.quantile(peer(scores[:size], scores[size:]).max(axis=0), share)) for name, peer in PEERS.items()
    }


# --- what is measured


def references_of(latents: Array, scores: Array) -> list[DriftReference | None]:
    """A reference for each path, None where it is refused."""
    found: list[DriftReference | None] = []
    for path in range(latents.shape[1]):
        try:
            found.append(fit_reference(latents[:, path].astype(np.float32), scores[:, path]))
        except InputError:
            found.append(None)
    return found


def false_alarms(quick: bool) -> list[dict[str, Any]]:
    found = []
    for number, (name, make) in enumerate(PROCESSES.items()):
        for size in SIZES[1:3] if quick else SIZES:
            progress(f"false alarms: {name}, reference of {size}")
            rng = np.random.default_rng([SEED, number, size])
            latents, scores = measured(make(rng, size + (LONG // 5 if quick else LONG), PATHS))
            references = references_of(latents[:size], scores[:size])
            kept = [i for i, reference in enumerate(references) if reference is not None]
            row: dict[str, Any] = {"process": name, "windows": size, "refused": PATHS - len(kept)}
            if kept:
                use = [reference for reference in references if reference is not None]
                check_monitored(use, latents[size : size + 50, kept], scores[size : size + 50, kept])
                row |= run_length(monitored(use, latents[size:, kept], scores[size:, kept]))
            found.append(row)
    return found


def run_length(alarms: NDArray[np.bool_]) -> dict[str, Any]:
    """The average run length from paths (n, paths) that may end before an alarm; at least the one-sided 95 % bound."""
    first = np.where(alarms.any(axis=0), alarms.argmax(axis=0) + 1, len(alarms))
    count, seen = int(alarms.any(axis=0).sum()), int(first.sum())
    return {
        "paths": alarms.shape[1],
        "alarmed": count,
        "in the first 1000": int(alarms[:1000].any(axis=0).sum()),
        "ARL": seen / count if count else None,
        "watched": seen,
        "share of time": float(alarms.mean()),
    }


def _latents(change: Callable[[Array], Array]) -> Change:
    return lambda x, s: (change(x), s)


def _scores(change: Callable[[Array], Array]) -> Change:
    return lambda x, s: (x, change(s))


def _added(x: Array, by: Array | float) -> Array:
    return np.concatenate([x[..., :1] + by, x[..., 1:]], axis=-1)


def _scaled(x: Array, by: float, count: int) -> Array:
    return np.concatenate([x[..., :count] * by, x[..., count:]], axis=-1)


def _tied(x: Array) -> Array:
    return np.concatenate([x[..., :1], 0.8 * x[..., :1] + 0.6 * x[..., 1:2], x[..., 2:]], axis=-1)


def _ramp(x: Array) -> Array:
    return np.minimum(np.arange(len(x)) / 500, 1).reshape(-1, *[1] * (x.ndim - 1))


CHANGES: dict[str, Change] = {
    "a latent's mean +0.5 σ": _latents(lambda x: _added(x, 0.5)),
    "a latent's mean +1 σ": _latents(lambda x: _added(x, 1.0)),
    "a latent's mean +2 σ": _latents(lambda x: _added(x, 2.0)),
    "a latent's mean, ramp to +1 σ in 500": _latents(lambda x: _added(x, _ramp(x))),
    "a latent's variance ×1.5": _latents(lambda x: _scaled(x, 1.5**0.5, 1)),
    "a latent's variance ×3": _latents(lambda x: _scaled(x, 3**0.5, 1)),
    "all latents' variance ×1.5": _latents(lambda x: _scaled(x, 1.5**0.5, K)),
    "correlation of two latents 0 to 0.8": _latents(_tied),
    "the score's mean +0.5 σ": _scores(lambda s: s + 0.5),
    "the score's mean +1 σ": _scores(lambda s: s + 1.0),
    "the score's mean +2 σ": _scores(lambda s: s + 2.0),
    "the score's mean, ramp to +1 σ in 500": _scores(lambda s: s + _ramp(s)),
    "the score's variance ×3": _scores(lambda s: s * 3**0.5),
}


def delays(quick: bool) -> list[dict[str, Any]]:
    found = []
    for number, name in enumerate(("independent", "AR(1) 0.5")):
        for size in (400,) if quick else (100, 2000):
            progress(f"delays: {name}, reference of {size}")
            rng, make = np.random.default_rng([SEED + 1, number, size]), PROCESSES[name]
            limits = peer_limits(make, size, rng, LIMIT_PATHS // 10 if quick else LIMIT_PATHS)
            parts = make(rng, size + BEFORE + AFTER, PATHS)
            latents, scores = measured(parts[:size])
            references = references_of(latents, scores)
            kept = [i for i, reference in enumerate(references) if reference is not None]
            use, known = [reference for reference in references if reference is not None], scores[:, kept]
            for change, apply in CHANGES.items():
                rest = parts[size:, kept].copy()
                x, s = apply(rest[BEFORE:, :, :K], rest[BEFORE:, :, K])
                rest[BEFORE:] = np.concatenate([x, s[..., np.newaxis]], axis=-1)
                z, score = measured(rest)
                alarms = {"monitor": monitored(use, z, score)}
                if "score" in change:
                    alarms |= {peer: of(known, score) > limits[peer] for peer, of in PEERS.items()}
                row = {detector: delay(of) for detector, of in alarms.items()}
                found.append({"process": name, "windows": size, "change": change, "delay": row})
    return found


def delay(alarms: NDArray[np.bool_]) -> dict[str, Any]:
    """Median delay and the share that is never found, of the paths without an alarm before the change."""
    quiet = alarms[:, ~alarms[:BEFORE].any(axis=0)][BEFORE:]
    first = np.where(quiet.any(axis=0), quiet.argmax(axis=0) + 1.0, np.inf)
    median = float(np.median(first))
    return {
        "median": median if np.isfinite(median) else None,
        "missed": float(np.isinf(first).mean()),
        "paths": quiet.shape[1],
    }


# --- tables


def tables(result: dict[str, Any]) -> dict[str, Table]:
    head = ["process", "reference", "refused", "paths", "alarmed", "in the first 1 000", "ARL"]
    body = []
    for row in result["false alarms"]:
        cells = [row["process"], str(row["windows"]), str(row["refused"])]
        if "paths" in row:
            arl = f"above {row['watched']:,}" if row["ARL"] is None else f"{row['ARL']:,.0f}"
            cells += [str(row["paths"]), str(row["alarmed"]), str(row["in the first 1000"]), arl]
        body.append(cells + [""] * (len(head) - len(cells)))
    found: dict[str, Table] = {f"Windows to a false alarm; stated: {AVERAGE_RUN_LENGTH:,}": (head, body)}
    head = ["process", "reference", "change", "monitor", *PEERS]
    rows = []
    for row in result["delays"]:
        cells = [_delay(row["delay"].get(detector)) for detector in ("monitor", *PEERS)]
        rows.append([row["process"], str(row["windows"]), row["change"], *cells])
    return found | {f"Median windows until a change is found (missed within {AFTER:,})": (head, rows)}


def _delay(found: dict[str, Any] | None) -> str:
    if found is None:
        return "cannot"
    missed = f" ({found['missed']:.0%})" if found["missed"] else ""
    return ("never" if found["median"] is None else f"{found['median']:.0f}") + missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and shorter paths, under another name")
    asked = parser.parse_args()
    result: dict[str, Any] = {"machine": fingerprint(), "stated": AVERAGE_RUN_LENGTH}
    result["false alarms"] = false_alarms(asked.quick)
    result["delays"] = delays(asked.quick)
    publish_all(kept_as("drift", asked.quick), result, tables(result))


if __name__ == "__main__":
    main()
