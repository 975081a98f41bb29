"""Makes and continues runs: from raw rows to a trained network. The steps behind `fit`, `resume` and `partial_fit`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.utils import check_random_state
from torch.nn.modules.batchnorm import _BatchNorm

from aeedge.bundle.manifest import SignalSpec, missing_fault
from aeedge.detection.calibration import ThresholdRule, calibrate
from aeedge.detection.thresholds import completed
from aeedge.errors import InputError, printable
from aeedge.runtime.frames import as_rows
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.signals.drift import LEAST_WINDOWS, MOST_WINDOWS
from aeedge_export.alarms import check_rule, described_drift, rows_word, set_alarm
from aeedge_export.arguments import check_signal
from aeedge_export.conversion.graph import check_one_input
from aeedge_export.data.axes import resolve_channels
from aeedge_export.data.columns import label_notes
from aeedge_export.data.corruption import corruption
from aeedge_export.data.outliers import OutlierSearch, find_outliers
from aeedge_export.data.rows import (
    CROSS,
    LEAST_ROWS_TO_CALIBRATE,
    SPLIT,
    Split,
    fewer,
    fingerprint,
    hashed,
    kept_rows,
    most_calibration,
    place_rows,
    split,
    split_options,
)
from aeedge_export.data.scaling import (
    FiniteCheck,
    Moments,
    Scaler,
    Statistics,
    check_finite,
    crowded,
    fit_float32,
    fit_scaler,
    fit_statistics,
    nearly_constant,
    pick_rows,
    picked,
    robust_statistics,
    row_size,
    scan,
)
from aeedge_export.data.shards import LazyRows, Shards
from aeedge_export.data.tensors import without_tensor
from aeedge_export.data.windows import windows_per_span, with_reference
from aeedge_export.networks import CUSTOM, build
from aeedge_export.networks.base import Design, Network, multiply_adds
from aeedge_export.networks.front_ends import FrontEnd, front_end
from aeedge_export.networks.front_ends import features as features_of
from aeedge_export.networks.linear import Principal
from aeedge_export.run import Run
from aeedge_export.scoring import check_kind, fit_scoring
from aeedge_export.training.defaults import Facts, Resolved, few_windows, resolve
from aeedge_export.training.devices import pick_device
from aeedge_export.training.distributed import ALONE, Group
from aeedge_export.training.loop import State, evaluate, train, trial_step
from aeedge_export.training.progress import Progress, Silence

RunHook = Callable[[Run], None]

_OF_ROWS = ("channels", "axes", "front_end", "front_end_options")  # parameters that resumed training keeps
_NOT_KEPT = ("random_state", "verbose", "encoder", "decoder")  # parameters that a run does not hold
_SAMPLE_ROWS, _SAMPLE_BYTES = 512, 2**24
_SHARE = 0.2  # of few windows of a long recording, to calibrate with
_FOLDS = 4  # of a recording that is too short to hold out some of it
_MOST_INFLATION = 1e6
_BELOW = 0.9  # probability that the scores of another such stretch stay below the threshold
_START_ROWS, _START_BYTES = 20_000, 2**28  # for PCA and the balance of latents


def fit(
    X: NDArray[Any],
    params: Mapping[str, Any],
    features: Sequence[str] | None,
    on_epoch: RunHook | None = None,
    known: Mapping[str, Any] = MappingProxyType({}),
    sample_weight: ArrayLike | None = None,
    calibration_rows: ArrayLike | None = None,
    rule: ThresholdRule | None = None,
    share_of_epochs: float = 1.0,
    group: Group = ALONE,
) -> Run:
    """Train a new network.

    Args:
        X: raw rows (n, *shape), n >= 2.
        params: the estimator's parameters, by name.
        features: names of the columns, None without.
        on_epoch: called with the run after each epoch.
        known: what else is known of the rows: the run's `units`, `missing`, `dialect` and `signal`.
        sample_weight: how much each row counts, (n,), from 0; None for all alike.
        calibration_rows: raw rows (m, *shape) to set thresholds by, in the place of a share of X.
        rule: how the threshold follows from the scores of the calibration rows; None for the default.
        share_of_epochs: of the epochs that `params` mean, how many to train for.
        group: the processes that train together; each is given the same and gets the same run.

    Raises:
        InputError: rows or parameters that do not fit; the message names them.
    """
    params = _agreed(group, X, params)
    weights = None if sample_weight is None else _checked_weights(sample_weight, len(X), params["family"])
    group.check_same("all weights", {"sample_weight": None if weights is None else float(weights.sum())})
    if (signal := known.get("signal")) is not None:
        check_signal(signal, X.shape[1:])
        params = {**params, **_of_windows(signal, params)}
    order, order_notes = _time_order(X, params)
    params = {**params, **order, **({} if calibration_rows is None else {"calibration": 0.0})}
    if (signal is not None or order_notes) and _is_short(len(X), params):
        params["calibration"] = CROSS
        order_notes = [
            f"rows are windows of a recording that is as long as {len(X) / params['gap']:.0f} of them, too few to hold "
            f"some out: all are trained on, and the threshold comes from {_FOLDS} more trainings, each without a part "
            "of the recording; calibration=0.2 for held-out windows at the end"
        ]
    elif (
        signal is not None and _detects(params) and len(X) < LEAST_ROWS_TO_CALIBRATE and _leaves_enough(len(X), params)
    ):
        params["calibration"] = _SHARE  # a stream without a threshold watches nothing
    front_end = made_front_end(params, X, signal)
    run, resolved, inner = _begin(X, params, features, split_options(params), weights, front_end, group)
    run = replace(run, fingerprint=fingerprint(X, run.dtype), **known)
    if signal is not None:
        run.signal = with_reference(signal, X, run.split(len(X)).fitted)
    run.reference = _reference(run, X)
    if fault := missing_fault(run.input_spec):
        raise InputError(f"missing: expected {fault}, got {run.missing}")
    if signal is None:
        _warn(run, *order_notes)
    else:
        run.notes.extend(order_notes)  # nothing was guessed
    if calibration_rows is not None:
        run.calibration = _given_calibration(run, calibration_rows)
    run.rule = rule
    check_rule(run)  # before the training, not after
    epochs = max(1, round(share_of_epochs * resolved.settings.epochs))
    resolved = replace(resolved, settings=replace(resolved.settings, epochs=epochs))
    _train(run, inner, resolved, params, run.split(len(X)), on_epoch, group)
    return run


def _agreed(group: Group, X: NDArray[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with the seed of process 0, once it is known that all processes have the same and the same rows.

    Raises:
        InputError: they have not.
    """
    if group is ALONE:
        return dict(params)
    group.check_same("all rows", {"X": fingerprint(X, X.dtype.name)})
    group.check_same("the same parameters", {name: repr(params[name]) for name in _kept(params)})
    asked = params["random_state"]
    return {**params, "random_state": group.shared(asked if isinstance(asked, (int, np.integer)) else _draw(asked))}


def resume(
    run: Run, X: NDArray[Any], params: Mapping[str, Any], on_epoch: RunHook | None = None, group: Group = ALONE
) -> None:
    """Train a run further, on the rows that it was fitted to, which are split as before.

    Args:
        run: changed in place.
        X: raw rows (n, *shape).
        params: the estimator's parameters, by name; those of the training may differ from the run's.
        on_epoch: called with the run after each epoch.
        group: the processes that train together.

    Raises:
        InputError: other rows than before, or no epochs left.
    """
    params = {**params, **{name: run.params[name] for name in (*SPLIT, *_OF_ROWS) if name in run.params}}
    if len(X) != run.rows:
        raise InputError(f"resume: expected the {run.rows} rows that the run was trained on, got {len(X)}; fit anew")
    params = _agreed(group, X, params)
    group.check_same("the same run", {"epoch": run.state.epoch})
    parts, X = run.split(len(X)), run.extract(X)
    train_rows = parts.train
    moments = Moments(X.shape[1:], train_rows)
    scan(X, FiniteCheck(X, run.features), moments, group=group)
    statistics, sample, last = moments.statistics, pick_rows(X, train_rows), run.design.channels_last
    scaler = fit_scaler(_scaling(params), statistics, sample, channels_last=last)
    if not (np.array_equal(scaler.mean, run.scaler.mean) and np.array_equal(scaler.scale, run.scaler.scale)):
        raise InputError("resume: expected the rows that the run was trained on, got others; fit anew instead")
    facts = Facts(scaler, statistics, crowded(sample, statistics), last, _span(params))
    resolved = resolve(params, facts, run.drawn_seed, run.design)
    if run.state.epoch >= resolved.settings.epochs and run.state.stopped != "running":
        raise InputError(
            f"resume: all {run.state.epoch} epochs are done; ask for more (--epochs, resume(X, epochs=...))"
        )
    run.params = _kept(params)
    _train(run, X, resolved, params, parts, on_epoch, group)


def partial_fit(
    run: Run | None,
    X: NDArray[Any],
    params: Mapping[str, Any],
    features: Sequence[str] | None = None,
    group: Group = ALONE,
) -> Run:
    """Train for one epoch on a portion of the rows, none of them held out; without a run, make one from this portion.

    Args:
        run: changed in place, and returned.
        X: raw rows (n, *shape).
        params: the estimator's parameters, by name.
        features: names of the columns, None without.
        group: the processes that train together.

    Raises:
        InputError: rows or parameters that do not fit; the message names them.
    """
    params = _agreed(group, X, params)
    if run is None:
        params = {**params, "time_ordered": False, "gap": 1}
        end = made_front_end(params, X, None)
        run, resolved, X = _begin(X, params, features, {"validation": 0.0}, None, end, group)
    else:
        last = run.design.channels_last or run.front_end is not None
        outliers = find_outliers(X, run.features, channels_last=last)
        _warn(run, *outliers.notes)
        run.left_out = np.flatnonzero(outliers.mask)
        rows, X = split(len(X), 0.0, run.drawn_seed, run.left_out, run.sample_weight).train, run.extract(X)
        statistics = fit_statistics(X, rows, group)
        sample = pick_rows(X, rows)
        facts = Facts(run.scaler, statistics, crowded(sample, statistics), run.design.channels_last)
        resolved = resolve(params, facts, run.drawn_seed, run.design)
    one_pass = replace(resolved.settings, epochs=run.state.epoch + 1, schedule="constant", patience=None)
    run.state.best_loss = np.inf  # losses of different rows do not compare: the last weights count
    run.calibration = run.later = run.reference = run.rule = None  # these rows may be among them
    parts = split(len(X), 0.0, run.drawn_seed, run.left_out, run.sample_weight)
    _train(run, X, replace(resolved, settings=one_pass), params, parts, None, group, finish=False)
    return run


def _time_order(X: NDArray[Any], params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters `time_ordered` and `gap` without "auto", and a sentence where they were guessed."""
    ordered, gap = params["time_ordered"], params["gap"]
    span = windows_per_span(X) if "auto" in (ordered, gap) else 0
    resolved = {
        "time_ordered": span > 0 if ordered == "auto" else ordered,
        "gap": max(span, 1) if gap == "auto" else gap,
    }
    if ordered != "auto" or not span:
        return resolved, []
    return resolved, [
        f"rows overlap, as windows of a recording do (the next without a common sample comes {span} rows later): "
        f"validation and calibration rows are blocks at the end, {resolved['gap']} rows apart; time_ordered=False for "
        "a random split, which promises too much"
    ]


def _detects(params: Mapping[str, Any]) -> bool:
    """Whether alarms are wanted, and it was not said how many rows are to calibrate them."""
    return isinstance(params["calibration"], str) and params["goal"] == "detect"


def _leaves_enough(count: int, params: Mapping[str, Any]) -> bool:
    """Whether half of the rows that are not for validation are left to train on beside blocks of this share."""
    rest = count * (1.0 - float(params["validation"]))
    gap = int(params["gap"]) if params["time_ordered"] else 0
    return rest - 1.5 * _SHARE * count - 3 * gap >= rest / 2


def _is_short(count: int, params: Mapping[str, Any]) -> bool:
    """Whether a recording of so many windows in time order is too short for held-out ones, but not for folds."""
    asked = _detects(params) and params["family"] != CUSTOM
    gap = params["gap"]
    enough = 3 * count // _FOLDS - 2 * gap >= max(2, gap // 2)  # left beside a fold
    return asked and bool(params["time_ordered"]) and enough and count < few_windows(gap)


def _span(params: Mapping[str, Any]) -> int:
    """The `span` of `Facts`."""
    return int(params["gap"]) if params["calibration"] == CROSS else 0


def _of_windows(signal: SignalSpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for windows of a signal: held-out windows are later, and share no sample with the others."""
    span = signal.span
    if params["channels"] == "first" or params["axes"] not in (None, "ntc"):
        raise InputError("channels: windows of a signal are (window, channels), so these are last; leave it out")
    if params["time_ordered"] is False and span > 1:
        raise InputError(
            f"time_ordered: windows of {signal.window} samples with a hop of {signal.hop} overlap, so held-out ones "
            "would be known from training if they were drawn at random; leave it out"
        )
    if params["gap"] != "auto" and params["gap"] < span - 1:
        raise InputError(
            f"gap: expected {span - 1} windows or more between blocks, so that they share no sample, got "
            f"{params['gap']}; leave it out"
        )
    return {
        "channels": "last",
        "time_ordered": params["time_ordered"] is not False,
        "gap": span if params["gap"] == "auto" else params["gap"],
    }


def _reference(run: Run, X: NDArray[Any]) -> NDArray[Any] | None:
    """Windows that do not overlap, in time order, to find drift by; None where order or number do not allow it."""
    if run.signal is None or not run.time_ordered:
        return None
    parts, span = run.split(len(X)), run.signal.span
    chosen = np.concatenate([rows[::span] for rows in parts[1:]])
    if len(chosen) < LEAST_WINDOWS:
        chosen = np.concatenate([np.unique(parts.train)[::span], chosen])
    chosen = chosen[-min(MOST_WINDOWS, most_calibration(run.row_bytes)) :]
    return np.array(X[chosen], run.dtype) if len(chosen) >= LEAST_WINDOWS else None


def _kept(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in _NOT_KEPT}


def _begin(
    X: NDArray[Any],
    params: Mapping[str, Any],
    features: Sequence[str] | None,
    split_as: Mapping[str, Any],
    weights: NDArray[np.float32] | None = None,
    front_end: FrontEnd | None = None,
    group: Group = ALONE,
) -> tuple[Run, Resolved, NDArray[Any]]:
    """Everything before the first step: scaler, settings, fresh weights, a sample of the rows.

    The last result is what scaler and network take: features of the rows, or the rows themselves without a front end.
    """
    asked = params["random_state"]
    seed = int(asked) if isinstance(asked, (int, np.integer)) else _draw(asked)
    drawn = _draw(seed)
    names = None if features is None else tuple(map(str, features))
    dtype = X.dtype.name if X.dtype in (np.uint8, np.int16) else "float32"
    row_bytes = row_size(X) * np.dtype(dtype).itemsize
    whole = partial(split, len(X), seed=drawn, weights=weights, row_bytes=row_bytes, **split_as)
    free = whole()
    if isinstance(X, Shards):
        X.hold(_wanted_at_once(X, free, row_bytes, drawn))
    sample = pick_rows(X, free.fitted)
    if not fit_float32(sample).all():
        check_finite(X, names)  # names the first one
    last, layout_notes = True, list[str]()
    if front_end is None:
        last, layout_notes = resolve_channels(
            params["channels"],
            params["axes"],
            robust_statistics(sample),
            matters=params["scaling"] == "auto" or params["family"] == "conv1d",
            family=params["family"],
        )
    span = params["gap"] if params["time_ordered"] else 1
    searches = [OutlierSearch(X, names, part, span, channels_last=last) for part in (free.fitted, *free[2:])]
    moments = Moments(X.shape[1:], free.train)
    scan(X, FiniteCheck(X, names), *searches, *([moments] if front_end is None else []), group=group)
    left_out, outlier_notes = _left_out(searches)
    train_rows, validation_rows, calibration, later = whole(left_out=left_out)
    raw = X
    if front_end is not None:
        X, names, last = features_of(front_end, raw), front_end.names, False
        moments = Moments(X.shape[1:], train_rows)
        scan(X, FiniteCheck(X, names), moments, group=group)
    elif len(left_out):
        moments = Moments(X.shape[1:], train_rows)
        scan(X, moments, group=group)
    statistics = moments.statistics
    if statistics.constant.all():
        raise InputError(
            f"X: expected training rows that differ, got {len(train_rows)} without a difference: nothing can be learned"
        )
    sample = pick_rows(X, train_rows)
    scaler = fit_scaler(_scaling(params), statistics, sample, channels_last=last)
    facts = Facts(scaler, statistics, crowded(sample, statistics), last, _span({**params, **split_as}))
    resolved = resolve(params, facts, drawn)
    network = build(params["family"], resolved.design, drawn, (params["encoder"], params["decoder"]))
    check_kind(params["score_kind"], network.design.latent)
    sample_rows = _sample_rows(raw, validation_rows if len(validation_rows) else train_rows)
    held = len(free.calibration) - len(calibration)
    if split_as.get("calibration") == CROSS:
        calibration, held = np.unique(train_rows), len(left_out)
    most, time_ordered = most_calibration(row_bytes), bool(params["time_ordered"])
    found_rows, calibration = len(calibration), kept_rows(calibration, most, drawn, time_ordered=time_ordered)
    later = kept_rows(later, max(1, most // 2), drawn, time_ordered=time_ordered)
    run = Run(
        params=_kept(params),
        design=_measured_design(network) if params["family"] == CUSTOM else network.design,
        network=network,
        scaler=scaler,
        seed=seed,
        drawn_seed=drawn,
        dtype=dtype,
        features=names if front_end is None else None,
        rows=len(X),
        noise=resolved.noise,
        sample_rows=sample_rows,
        sample=np.array(raw[sample_rows], dtype),
        calibration=np.array(raw[calibration], dtype) if len(calibration) else None,
        later=np.array(raw[later], dtype) if len(later) else None,
        front_end=front_end,
        calibration_left_out=held,
        calibration_spacing=found_rows / len(calibration) if found_rows else 1.0,
        left_out=left_out,
        sample_weight=weights,
    )
    constant = [] if scaler.mean.ndim == 0 else _constant_columns(statistics, names)
    _warn(
        run,
        *layout_notes,
        *outlier_notes,
        *(() if names is None or raw.ndim != 2 else label_notes(names, sample if isinstance(X, LazyRows) else X)),
        *resolved.notes,
        *constant,
        *_nearly_constant_columns(sample, scaler, names),
    )
    return run, resolved, X


def _scaling(params: Mapping[str, Any]) -> str:
    """How to scale: features of a front end are no pixels, whatever their statistics are like."""
    auto = params["scaling"] == "auto" and params["front_end"] != "none"
    return "standard" if auto else params["scaling"]


def made_front_end(params: Mapping[str, Any], X: NDArray[Any], signal: SignalSpec | None) -> FrontEnd | None:
    """The front end that was asked for, for windows (n, window, channels); None without.

    Raises:
        InputError: no windows, or a parameter that does not fit them.
    """
    kind, options = params["front_end"], params["front_end_options"]
    if kind == "none":
        return None
    if params["family"] in ("conv1d", "conv2d"):
        raise InputError(
            f"front_end: {kind!r} makes vectors of features, which family {params['family']!r} does not take; use "
            "'dense', or leave the front end out"
        )
    if X.ndim != 3 or X.dtype == np.uint8:
        what = "bytes, as of images" if X.dtype == np.uint8 else f"rows of shape {X.shape[1:]}"
        raise InputError(
            f"front_end: {kind!r} takes windows of a recording, (n, window, channels), got {what}; cut the recording "
            "into windows first (window=...)"
        )
    if signal is None and (params["channels"] == "first" or params["axes"] not in (None, "ntc") or X.shape[1] < 8):
        raise InputError(
            f"front_end: {kind!r} takes windows (n, window, channels) of 8 samples or more, channels last, got rows of "
            f"shape {X.shape[1:]}"
        )
    if signal is not None and signal.calendar:
        raise InputError(
            f"front_end: {kind!r} makes no features of calendar channels ({', '.join(signal.calendar)}); leave one of "
            "them out"
        )
    channels = tuple(f"channel {i}" for i in range(X.shape[2])) if signal is None else signal.channels
    return front_end(kind, X.shape[1], channels, None if signal is None else signal.rate, options)


def _left_out(searches: Sequence[OutlierSearch]) -> tuple[NDArray[np.intp], list[str]]:
    """Indices of rows with gross outliers or codes for missing values, and sentences about them.

    Each part is judged by itself, fitted, calibration and later rows: those for calibration are to be what a device
    meets as normal, and have no say.
    """
    fitted, *others = (search.found() for search in searches)
    gone, notes = fitted.mask, fitted.notes
    for name, found in zip(("calibration", "comparison"), others):
        gone, notes = gone | found.mask, notes + found.sentences(name)
    return np.flatnonzero(gone), notes


def _wanted_at_once(X: Any, parts: Split, row_bytes: int, seed: int) -> NDArray[np.intp]:
    """Indices of the rows that are needed one by one before and after the training, which are read in one pass."""
    spread = (_spread(X, parts.train), _spread(X, parts.fitted), picked(X, parts.train), picked(X, parts.fitted))
    kept = (kept_rows(rows, most_calibration(row_bytes), seed, time_ordered=False) for rows in parts[2:])
    return np.concatenate([*spread, *kept, fewer(X, parts.validation), hashed(X)])


def _given_calibration(run: Run, given: ArrayLike) -> NDArray[Any]:
    """Rows that were given for calibration as a run keeps them: without missing values and gross outliers."""
    what = "calibration_rows"
    found = as_rows(without_tensor(given, what), what, run.features)
    try:
        rows = np.asarray(found)
    except ValueError as error:  # rows of unequal length
        raise InputError(f"{what}: expected rows of shape {run.input_shape}, got {error}") from None
    if rows.shape[1:] != run.input_shape or rows.dtype.kind not in "fiub":
        raise InputError(f"{what}: expected rows of shape {run.input_shape}, got an array {rows.shape} {rows.dtype}")
    rows, _ = fill_missing(rows, run.input_spec)
    if run.missing is not None:
        rows = rows[~missing_rows(rows, run.input_spec)]
    if not len(rows):
        raise InputError(f"{what}: expected rows without missing values, got none")
    try:
        check_finite(rows, run.features)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    last = run.design.channels_last or run.front_end is not None
    outliers = find_outliers(rows, run.features, channels_last=last)
    _warn(run, *(f"{what}: {note}" for note in outliers.sentences("calibration")))
    good = np.flatnonzero(~outliers.mask)
    run.calibration_left_out = len(rows) - len(good)
    kept = rows[kept_rows(good, most_calibration(run.row_bytes), run.drawn_seed, time_ordered=run.time_ordered)]
    converted = kept.astype(run.dtype)
    if run.dtype != "float32" and not np.array_equal(converted, kept):
        raise InputError(f"{what}: expected {run.dtype} as the rows to train on, got {rows.dtype}")
    return converted


def _checked_weights(sample_weight: ArrayLike, count: int, family: str) -> NDArray[np.float32] | None:
    """Weights (count,), None where they are all the same."""
    if family == "pca":
        raise InputError("sample_weight: family 'pca' counts all rows alike; leave it out, or use another family")
    if np.ma.is_masked(sample_weight):
        raise InputError("sample_weight: expected a number for each row, got masked ones; give 0 to leave a row out")
    try:
        weights = np.asarray(without_tensor(sample_weight, "sample_weight"), np.float32)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError):
        raise InputError("sample_weight: expected numbers, got something else") from None
    if weights.shape != (count,):
        raise InputError(f"sample_weight: expected one for each of the {count} rows, got shape {weights.shape}")
    wrong = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
    if len(wrong):
        raise InputError(
            f"sample_weight: expected finite numbers from 0, got {weights[wrong[0]]} for row {wrong[0]}; "
            "0 leaves a row out"
        )
    if np.count_nonzero(weights) < 2:
        raise InputError("sample_weight: expected two or more rows of a weight above 0; nearly all weights are zero")
    return None if (weights == weights[0]).all() else weights


def _draw(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


def _measured_design(network: Network) -> Design:
    """The design of custom modules, with the latent size that the encoder turns out to have."""
    for role, module in (("encoder", network.encoder), ("decoder", network.body)):
        check_one_input(module, role)
    with torch.no_grad():
        latent: Any = network.eval().encoder(torch.zeros(2, *network.design.input_shape))
    if not isinstance(latent, torch.Tensor) or latent.ndim != 2:
        got = f"the shape {tuple(latent.shape)}" if isinstance(latent, torch.Tensor) else type(latent).__name__
        raise InputError(
            f"encoder: expected a module from rows (n, ...) to latents that are vectors (n, k), got {got}; "
            "export_bundle takes latents of any shape, from modules trained elsewhere"
        )
    return replace(network.design, latent=int(latent.shape[1]), hidden=())


def _train(
    run: Run,
    X: NDArray[Any],
    resolved: Resolved,
    params: Mapping[str, Any],
    parts: Split,
    on_epoch: RunHook | None,
    group: Group,
    *,
    finish: bool = True,
) -> None:
    """Train on the training rows of `parts`, and find out how rows are scored and when they are anomalous.

    After the training, every process of the group computes the rest for itself: nothing is exchanged any more.
    """
    _train_network(run, X, resolved, params, parts, on_epoch, group, finish=finish)
    _fit_score(run, X, parts, params["score_kind"])
    if run.calibration is not None and run.params["calibration"] == CROSS and not run.calibration_given:
        run.calibration_inflation = _cross_validated(run, X, resolved, params, np.unique(parts.train))
    set_alarm(run)
    drift = {} if run.alarm is None else run.alarm.drift
    if drift.get("drift"):
        _warn(run, described_drift(drift, rows_word(run.signal)))


def _train_network(
    run: Run,
    X: NDArray[Any],
    resolved: Resolved,
    params: Mapping[str, Any],
    parts: Split,
    on_epoch: RunHook | None,
    group: Group = ALONE,
    *,
    finish: bool = True,
) -> None:
    """Train on the training rows of `parts`; `finish` balances the latents, after which training is complete."""
    run.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    device = pick_device(params["device"])
    train_rows, validation_rows = parts[:2]
    network = run.network
    normalises = any(isinstance(module, _BatchNorm) for module in network.modules())
    if normalises and resolved.settings.batch_size == 1:
        raise InputError(
            "batch_size: expected 2 or more rows a step, because this network normalises over a batch (family "
            "'sparse', or normalization='batch'), got 1; use a larger one, or more rows"
        )
    run.scoring = run.score_part = run.alarm = None  # those of other weights
    if isinstance(network, Principal):
        work = float(X.size) * run.design.size  # of the covariance
        with run.threads.during(resolved.settings.threads, torch.device("cpu"), None, work, 1), run.threads.kept():
            run.state = _solve(network, run, X, train_rows, validation_rows)
        return
    rows = place_rows(X, train_rows, validation_rows, run.scaler, device, run.sample_weight, group)
    spread = torch.from_numpy(run.scaler(X[_spread(X, train_rows)]))
    low, high = (torch.tensor(np.asarray(bound, np.float32)).to(device) for bound in resolved.bounds)
    corrupt = corruption(resolved.noise, low, high) if resolved.noise else None
    shown = params["verbose"] and group.is_main
    progress: Progress | Silence = Progress(resolved.settings.epochs, run.state.epoch) if shown else Silence()

    def after_epoch(state: State) -> None:
        show(state)
        if on_epoch is not None:
            on_epoch(run)

    settings, batch = resolved.settings, spread[: resolved.settings.batch_size]
    steps = (settings.epochs - run.state.epoch) * -(-rows.count // settings.batch_size)
    work = math.inf if params["family"] == CUSTOM else multiply_adds(network) * len(batch)
    trial = partial(trial_step, network, batch, corrupt) if group is ALONE else None
    with run.threads.during(settings.threads, device, trial, work, steps, group.local_size):
        if run.state.epoch == 0:
            network.start(spread, as_pca=settings.from_pca)  # on the CPU: float64, which not every accelerator has
        network.to(device)
        with progress as show:
            train(network, rows, settings, run.state, run.threads, corrupt, after_epoch, group)
        network.cpu()
        if finish:
            network.finish(spread)
    if run.state.stopped == "diverged":
        _warn(
            run,
            f"training diverged in epoch {run.state.epoch + 1}: the best weights before were kept; "
            "use a lower learning rate",
        )
    run.state.best_weights = _copy(network)


def _fit_score(run: Run, X: NDArray[Any], parts: Split, kind: str) -> None:
    """Fit the score to rows that had a say in the training."""
    rows = X[_spread(X, parts.fitted)]
    latent = run.encode_features(rows)
    if kind == "auto" and len(run.design.input_shape) == 2 and (run.signal is not None or _span(run.params)):
        kind = "mse"
    run.scoring = fit_scoring(kind, run.scaler.scale, rows, latent, run.decode(latent))


def _cross_validated(
    run: Run, X: NDArray[Any], resolved: Resolved, params: Mapping[str, Any], rows: NDArray[np.intp]
) -> dict[str, float]:
    """What the scores of rows in time order, all of which were trained on, are to be multiplied by, for each kind.

    Networks that are trained without a stretch of them score this stretch. The highest scores of the stretches are
    taken as log-normal: the threshold becomes the upper prediction limit of the highest score in another stretch (Hahn
    and Meeker, "Statistical Intervals", 1991), which is the farther off the fewer they are and the more they differ.

    Args:
        run: trained.
        X: what scaler and network take, of all rows.
        resolved: settings of the training.
        params: the estimator's parameters, by name.
        rows: indices of the rows, sorted.
    """
    assert run.scoring is not None
    assert run.calibration is not None
    gap, none = run.params["gap"], np.zeros(0, np.intp)
    kinds = {run.scoring.kind, "mse", *(("robust", "mahalanobis") if run.scoring.kind == "both" else ())}
    highest: dict[str, list[float]] = {kind: [] for kind in kinds}
    for fold in np.array_split(rows, _FOLDS):
        kept = rows[(rows < fold[0] - gap) | (rows > fold[-1] + gap)]
        network = build(params["family"], resolved.design, run.drawn_seed, (params["encoder"], params["decoder"]))
        other = replace(run, network=network, state=State(), notes=[], calibration=None)
        parts = Split(kept, none, none, none)
        _train_network(other, X, resolved, {**params, "verbose": False}, parts, None)
        _fit_score(other, X, parts, run.scoring.kind)
        for kind, found in highest.items():
            found.append(float(replace(other, score_part=kind).score_features(X[fold]).max()))
    inflation = {}
    for kind, found in highest.items():
        logs = np.log(np.maximum(found, np.finfo(np.float32).tiny))
        width = stats.t.ppf(_BELOW, len(logs) - 1) * logs.std(ddof=1) * math.sqrt(1 + 1 / len(logs))
        own = replace(run, score_part=kind).scores(run.calibration)
        threshold = max(calibrate(own, completed(None, len(own)))[1], float(np.finfo(np.float32).tiny))
        inflation[kind] = float(np.clip(np.exp(logs.mean() + width) / threshold, 1.0, _MOST_INFLATION))
    return inflation


def _solve(
    network: Principal, run: Run, X: NDArray[Any], train_rows: NDArray[np.intp], held_out: NDArray[np.intp]
) -> State:
    """Closed form instead of training; the history has one entry, so that all runs have the same form."""
    began = time.perf_counter()
    network.solve(X, train_rows, run.scaler)
    network.eval()
    losses = [
        evaluate(network, torch.from_numpy(run.scaler(X[_spread(X, part)])))
        for part in (train_rows, held_out if len(held_out) else train_rows)
    ]
    if not np.isfinite(losses).all():
        raise InputError("family 'pca': the reconstruction error is not finite; scale the rows, or use another scaling")
    seconds = round(time.perf_counter() - began, 4)
    entry = {"epoch": 1, "train_loss": losses[0], "validation_loss": losses[1], "learning_rate": 0.0}
    entry |= {"seconds": seconds, "threads": run.threads.number}
    weights = _copy(network)
    return State(
        epoch=1,
        best_epoch=1,
        best_loss=losses[1],
        stopped="solved",
        best_weights=weights,
        last_weights=weights,
        history=[entry],
        threads=str(run.threads),
    )


def _copy(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _constant_columns(statistics: Statistics, names: tuple[str, ...] | None) -> list[str]:
    """A note about the columns that never change, or none."""
    constant = np.argwhere(statistics.constant)
    if not len(constant):
        return []
    return [
        f"{len(constant)} of {statistics.constant.size} columns never change and were given scale 1: "
        f"{_listed(constant, names)}"
    ]


def _nearly_constant_columns(sample: NDArray[Any], scaler: Scaler, names: tuple[str, ...] | None) -> list[str]:
    """A note about the columns of a table that hardly change after scaling, or none."""
    hidden = np.argwhere(nearly_constant(scaler(sample)))
    if not len(hidden):
        return []
    return [
        f"{len(hidden)} of {row_size(sample)} columns are nearly constant beside the others after scaling "
        f"{scaler.kind!r}, so they hardly count: {_listed(hidden, names)}; "
        "scaling 'standard' or 'robust' makes columns count alike"
    ]


def _listed(columns: NDArray[np.intp], names: tuple[str, ...] | None) -> str:
    """The first of these columns, for people."""
    shown = [printable(names[i[0]]) if names else str(i[0] if len(i) == 1 else tuple(map(int, i))) for i in columns[:5]]
    return ", ".join(shown) + (f" and {len(columns) - 5} more" if len(columns) > 5 else "")


def _warn(run: Run, *notes: str) -> None:
    for note in notes:
        run.notes.append(note)
        warnings.warn(note, UserWarning, stacklevel=6)  # the caller of the estimator's fit


def _sample_rows(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices of the rows to keep for export and report: a few, spread over all."""
    most = max(2, min(_SAMPLE_ROWS, _SAMPLE_BYTES // (row_size(X) * X.dtype.itemsize)))
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return np.repeat(chosen, 2) if len(chosen) == 1 else chosen


def _spread(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Some of these rows, spread over all: enough for statistics, few enough for memory."""
    most = max(2, min(_START_ROWS, _START_BYTES // (4 * row_size(X))))
    return rows[:: max(1, -(-len(rows) // most))]
