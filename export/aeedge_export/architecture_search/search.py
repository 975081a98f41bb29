"""`search`: which network fits a device, found within a time limit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aeedge.errors import InputError
from aeedge.runtime.frames import named_rows
from aeedge_export.architecture_search.budget import Budget
from aeedge_export.architecture_search.judging import Judge, parts_of
from aeedge_export.architecture_search.measuring import read_measurements
from aeedge_export.architecture_search.result import Search
from aeedge_export.architecture_search.session import Progress, Session
from aeedge_export.architecture_search.space import candidates
from aeedge_export.architecture_search.state import State
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.data.labels import as_classes
from aeedge_export.data.rows import fingerprint
from aeedge_export.data.tensors import without_tensor
from aeedge_export.fitting import made_front_end
from aeedge_export.training.defaults import default_latent

METHODS = ("encode", "score", "denoise")


def search(
    X: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    budget: Budget | None = None,
    max_error_vs_best: float | None = None,
    families: Sequence[str] | str = "auto",
    latents: Sequence[int] | str = "auto",
    variants: Sequence[str] = ("fp32", "int8"),
    objective: str = "auto",
    method: str = "encode",
    time_limit: float = 600.0,
    directory: str | Path | None = None,
    resume: bool = False,
    remote: str | None = None,
    measured: str | Path | None = None,
    threads: int | str = "auto",
    params: Mapping[str, Any] | None = None,
    random_state: int = 0,
    on_progress: Progress | None = None,
    **known: Any,
) -> Search:
    """Train candidates, measure them on a device, and keep the front of loss against latency, size and memory.

    All candidates are trained for a ninth of their epochs, the better half further for a third, and the better half of
    these to the end (see `halving`); those that cost too much are dropped after the first ninth. Every finished one is
    exported, measured through the device runtime, and judged on rows that had no say in anything.

    Args:
        X: raw rows (n, ...), 140 or more; of more than 50 000 some are taken. Windows of a recording, with
            `signal=...` as in `Autoencoder.fit_rows`, are in the order of time.
        labels: a class for each row, (n,), for `objective`.
        budget: what a network may cost; None for no limit.
        max_error_vs_best: how much larger than the smallest loss of all finished networks that of the best one may be:
            a share of an error, such as 0.05, and the difference of an AUC or accuracy. The best network is then the
            cheapest within; None for the most accurate one that meets the budget, or without a budget for 0.01.
        families: some of "dense", "conv1d", "conv2d", "pca", or "auto" for those that take such rows.
        latents: numbers of latents, or "auto" for the one of `Autoencoder`.
        variants: "fp32", "int8", or both; int8 is left out where it breaks its quality limits.
        objective: "error" (mean squared reconstruction error in scaled units), "auc" (of the anomaly scores; only
            normal rows are trained on), "probe" (accuracy of a linear classifier on latents), or "auto", as labels are.
        method: what is timed: "encode", "score" or "denoise".
        time_limit: seconds. What is finished by then counts.
        directory: where runs, bundles and the state are kept; None for a temporary folder that goes with the result.
        resume: go on with the search in `directory`; only `budget`, `max_error_vs_best`, `time_limit`, `remote` and
            `measured` may differ.
        remote: a command that runs another one on the device, such as "ssh pi@gateway"; None to measure here.
        measured: file of `aeedge bench --batch DIRECTORY/bundles --json` that was run on the device; with `resume`.
        threads: of the device runtime while it is measured.
        params: of every candidate's `Autoencoder`, such as {"goal": "detect"}; tables are encoded for "compress"
            where this does not say otherwise, but for objective "auc".
        random_state: seed of the split and of all trainings.
        on_progress: called with the number of trainings done, that of all planned, what comes next, and seconds left.
        **known: `features`, `units`, `missing`, `dialect`, `signal` as in `Autoencoder.fit_rows`.

    Raises:
        InputError: rows, labels or parameters that do not fit; another search in `directory`.
        DeviceError: the device does not answer; the state is kept.
    """
    budget = Budget() if budget is None else budget
    _check(max_error_vs_best, variants, method, time_limit)
    if measured is not None and not resume:
        raise InputError("measured: expected resume=True with it: the bundles of an earlier search were measured")
    if measured is not None and remote is not None:
        raise InputError("measured, remote: both say how a device is measured; give one of them")
    if resume and directory is None:
        raise InputError("resume: expected the directory of the search to go on with, got none")
    X, names = named_rows(without_tensor(X, "X"), "X")
    X = np.asarray(X)
    if names is not None:
        known.setdefault("features", names)
    classes = None if labels is None else as_classes(labels, len(X))
    signal = known.get("signal")
    span = None if signal is None else signal.span
    fixed = dict(params or {})
    parts = parts_of(
        X, classes, objective, seed=random_state, span=span, time_ordered=fixed.get("time_ordered", "auto")
    )
    if X.ndim == 2 and parts.objective != "auc":
        fixed.setdefault("goal", "compress")
    whole = Autoencoder(**fixed).get_params()
    front_end = made_front_end(whole, X[:2], signal)
    shape = X.shape[1:] if front_end is None else (len(front_end.names),)
    asked = [default_latent(int(np.prod(shape)))] if isinstance(latents, str) else list(latents)
    last = signal is not None or whole["channels"] == "last" or whole["axes"] in ("ntc", "nhwc")
    tried = candidates(shape, families, asked, channels_last=last or _looks_channels_last(shape))
    settings = {
        "data": fingerprint(X, "float32" if X.dtype.kind not in "iu" else X.dtype.name),
        "objective": parts.objective,
        "candidates": [candidate.name for candidate in tried],
        "variants": list(variants),
        "method": method,
        "params": {name: repr(value) for name, value in fixed.items()},
        "random_state": random_state,
    }
    kept = None
    if directory is None:
        kept = tempfile.TemporaryDirectory(prefix="aeedge-search-")
        directory = kept.name
    place = Path(directory)
    state = State(settings)
    if resume:
        state = State.load(place)
        state.check(settings)
    place.mkdir(exist_ok=True)
    session = Session(
        judge=Judge(X, classes, parts),
        state=state,
        candidates=tried,
        directory=place,
        params={**fixed, "random_state": random_state},
        known=known,
        budget=budget,
        time_limit=time_limit,
        remote=remote,
        threads=threads,
        measured=None if measured is None else read_measurements(measured),
        on_progress=on_progress,
    )
    session.run()
    found = Search.of(session, max_error_vs_best, kept)
    found.write()
    return found


def _looks_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether the last axis is the shortest; what is tried is what such rows have room for."""
    return len(shape) in (2, 3) and shape[-1] < min(shape[:-1])


def _check(tolerance: float | None, variants: Sequence[str], method: str, time_limit: float) -> None:
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 <= tolerance < 10):
        raise InputError(f"max_error_vs_best: expected a share from 0, such as 0.05, got {tolerance!r}")
    if isinstance(variants, str) or not variants or set(variants) - {"fp32", "int8"}:
        raise InputError(f"variants: expected 'fp32', 'int8' or both in a sequence, got {variants!r}")
    if method not in METHODS:
        raise InputError(f"method: expected {', '.join(METHODS)}, got {method!r}")
    if not time_limit > 0:
        raise InputError(f"time_limit: expected seconds above 0, got {time_limit!r}")
