"""Makes and continues runs: from raw rows to a trained network. The steps behind `fit`, `resume` and `partial_fit`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from aeedge.errors import InputError
from aeedge_export.data.corruption import corruption
from aeedge_export.data.rows import place_rows, split
from aeedge_export.data.scaling import Statistics, check_finite, crowded, fit_scaler, fit_statistics
from aeedge_export.networks import CUSTOM, build
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.linear import Principal
from aeedge_export.run import Run
from aeedge_export.training.defaults import Facts, Resolved, resolve
from aeedge_export.training.devices import pick_device
from aeedge_export.training.loop import State, evaluate, train, trial_step
from aeedge_export.training.progress import Progress, Silence
from aeedge_export.training.threads import multiply_adds

RunHook = Callable[[Run], None]

_NOT_KEPT = ("random_state", "verbose", "encoder", "decoder")  # parameters that a run does not hold
_SAMPLE_ROWS, _SAMPLE_BYTES = 512, 2**24
_START_ROWS, _START_BYTES = 20_000, 2**28  # for PCA and the balance of latents


def fit(
    X: NDArray[Any], params: Mapping[str, Any], features: Sequence[str] | None, on_epoch: RunHook | None = None
) -> Run:
    """Train a new network.

    Args:
        X: raw rows (n, *shape), n >= 2.
        params: the estimator's parameters, by name.
        features: names of the columns, None without.
        on_epoch: called with the run after each epoch.

    Raises:
        InputError: rows or parameters that do not fit; the message names them.
    """
    held_out = _validation_share(params)
    run, resolved = _begin(X, params, features, held_out)
    _train(run, X, resolved, params, held_out, on_epoch)
    return run


def resume(run: Run, X: NDArray[Any], params: Mapping[str, Any], on_epoch: RunHook | None = None) -> None:
    """Train a run further, on the rows that it was fitted to.

    Args:
        run: changed in place.
        X: raw rows (n, *shape).
        params: the estimator's parameters, by name; those of the training may differ from the run's.
        on_epoch: called with the run after each epoch.

    Raises:
        InputError: other rows than before, or no epochs left.
    """
    held_out = _validation_share(params)
    train_rows, _ = split(len(X), held_out, run.seed)
    statistics = fit_statistics(X, train_rows)
    scaler = fit_scaler(params["scaling"], statistics, X.dtype)
    if not (np.array_equal(scaler.mean, run.scaler.mean) and np.array_equal(scaler.scale, run.scaler.scale)):
        raise InputError("resume: expected the rows that the run was trained on, got others; fit anew instead")
    resolved = resolve(params, Facts(scaler, statistics, crowded(X, train_rows, statistics)), run.seed)
    if run.state.epoch >= resolved.settings.epochs:
        raise InputError(
            f"resume: all {run.state.epoch} epochs are done; ask for more (--epochs, resume(X, epochs=...))"
        )
    run.params = _kept(params)
    _train(run, X, resolved, params, held_out, on_epoch)


def partial_fit(
    run: Run | None, X: NDArray[Any], params: Mapping[str, Any], features: Sequence[str] | None = None
) -> Run:
    """Train for one epoch on a portion of the rows, none of them held out; without a run, make one from this portion.

    Args:
        run: changed in place, and returned.
        X: raw rows (n, *shape).
        params: the estimator's parameters, by name.
        features: names of the columns, None without.

    Raises:
        InputError: rows or parameters that do not fit; the message names them.
    """
    if run is None:
        run, resolved = _begin(X, params, features, 0.0)
    else:
        everything = np.arange(len(X))
        statistics = fit_statistics(X)
        resolved = resolve(params, Facts(run.scaler, statistics, crowded(X, everything, statistics)), run.seed)
    one_pass = replace(resolved.settings, epochs=run.state.epoch + 1, schedule="constant", patience=None)
    run.state.best_loss = np.inf  # losses of different rows do not compare: the last weights count
    _train(run, X, replace(resolved, settings=one_pass), params, 0.0, None, finish=False)
    return run


def _validation_share(params: Mapping[str, Any]) -> float:
    share: float = params["validation"]
    if not 0 <= share <= 0.9:
        raise InputError(f"validation: expected a share from 0 to 0.9, got {share!r}")
    return share


def _kept(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in _NOT_KEPT}


def _begin(
    X: NDArray[Any], params: Mapping[str, Any], features: Sequence[str] | None, held_out: float
) -> tuple[Run, Resolved]:
    """Everything before the first step: scaler, settings, fresh weights, a sample of the rows."""
    seed = int(check_random_state(params["random_state"]).randint(2**31 - 1))
    train_rows, validation_rows = split(len(X), held_out, seed)
    names = None if features is None else tuple(map(str, features))
    check_finite(X, names)
    statistics = fit_statistics(X, train_rows)
    scaler = fit_scaler(params["scaling"], statistics, X.dtype)
    resolved = resolve(params, Facts(scaler, statistics, crowded(X, train_rows, statistics)), seed)
    network = build(params["family"], resolved.design, seed, (params["encoder"], params["decoder"]))
    sample_rows = _sample_rows(X, validation_rows if len(validation_rows) else train_rows)
    dtype = X.dtype.name if X.dtype in (np.uint8, np.int16) else "float32"
    run = Run(
        params=_kept(params),
        design=_measured_design(network) if params["family"] == CUSTOM else network.design,
        network=network,
        scaler=scaler,
        seed=seed,
        dtype=dtype,
        features=names,
        rows=len(X),
        noise=resolved.noise,
        sample_rows=sample_rows,
        sample=np.array(X[sample_rows], dtype),
    )
    constant = [] if scaler.mean.ndim == 0 else _constant_columns(statistics, names)
    _warn(run, *resolved.notes, *constant)
    return run, resolved


def _measured_design(network: Network) -> Design:
    """The design of custom modules, with the latent size that the encoder turns out to have."""
    with torch.no_grad():
        latent: Any = network.eval().encoder(torch.zeros(2, *network.design.input_shape))
    if not isinstance(latent, torch.Tensor) or latent.ndim != 2:
        raise InputError("encoder: expected a module from rows (n, ...) to latents (n, k), got something else")
    return replace(network.design, latent=int(latent.shape[1]), hidden=())


def _train(
    run: Run,
    X: NDArray[Any],
    resolved: Resolved,
    params: Mapping[str, Any],
    held_out: float,
    on_epoch: RunHook | None,
    *,
    finish: bool = True,
) -> None:
    """Train on the rows that are not held out; `finish` balances the latents, after which training is complete."""
    run.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    device = pick_device(params["device"])
    train_rows, validation_rows = split(len(X), held_out, run.seed)
    network = run.network
    if isinstance(network, Principal):
        work = float(X.size) * run.design.size  # of the covariance
        with run.threads.during(resolved.settings.threads, torch.device("cpu"), None, work, 1), run.threads.kept():
            run.state = _solve(network, run, X, train_rows, validation_rows)
        return
    rows = place_rows(X, train_rows, validation_rows, run.scaler, device)
    spread = torch.from_numpy(run.scaler(X[_spread(X, train_rows)]))
    low, high = (torch.tensor(np.asarray(bound, np.float32)).to(device) for bound in resolved.bounds)
    corrupt = corruption(resolved.noise, low, high) if resolved.noise else None
    progress: Progress | Silence = Progress(resolved.settings.epochs) if params["verbose"] else Silence()

    def after_epoch(state: State) -> None:
        show(state)
        if on_epoch is not None:
            on_epoch(run)

    settings, batch = resolved.settings, spread[: resolved.settings.batch_size]
    steps = (settings.epochs - run.state.epoch) * -(-rows.count // settings.batch_size)
    work = math.inf if params["family"] == CUSTOM else multiply_adds(network) * len(batch)
    trial = partial(trial_step, network, batch, corrupt)
    with run.threads.during(settings.threads, device, trial, work, steps):
        if run.state.epoch == 0:
            network.start(spread)  # on the CPU: it computes in float64, which not every accelerator has
        network.to(device)
        with progress as show:
            train(network, rows, settings, run.state, run.threads, corrupt, after_epoch)
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
    shown = [names[i[0]] if names else str(i[0] if len(i) == 1 else tuple(map(int, i))) for i in constant[:5]]
    more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
    return [
        f"{len(constant)} of {statistics.constant.size} columns never change and were given scale 1: "
        f"{', '.join(shown)}{more}"
    ]


def _warn(run: Run, *notes: str) -> None:
    for note in notes:
        run.notes.append(note)
        warnings.warn(note, UserWarning, stacklevel=6)  # the caller of the estimator's fit


def _sample_rows(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Indices of the rows to keep for export and report: a few, spread over all."""
    most = max(2, min(_SAMPLE_ROWS, _SAMPLE_BYTES // max(1, X[0].nbytes)))
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return np.repeat(chosen, 2) if len(chosen) == 1 else chosen


def _spread(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Some of these rows, spread over all: enough for statistics, few enough for memory."""
    most = max(2, min(_START_ROWS, _START_BYTES // max(1, 4 * X[0].size)))
    return rows[:: max(1, -(-len(rows) // most))]
