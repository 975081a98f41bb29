"""From raw rows to a trained network: the steps behind the estimator's `fit`, `resume` and `partial_fit`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import nn

from aeedge.errors import InputError
from aeedge_export.data.corruption import corruption
from aeedge_export.data.rows import place_rows, split
from aeedge_export.data.scaling import Statistics, check_finite, crowded, fit_scaler, survey
from aeedge_export.networks import CUSTOM, build
from aeedge_export.networks.base import Design
from aeedge_export.networks.linear import Principal
from aeedge_export.training.defaults import Facts, Resolved, resolve
from aeedge_export.training.devices import pick_device
from aeedge_export.training.loop import EpochHook, State, evaluate, train

if TYPE_CHECKING:
    from aeedge_export.autoencoder import Autoencoder

_SAMPLE_ROWS, _SAMPLE_BYTES = 512, 2**24
_START_ROWS, _START_BYTES = 20_000, 2**28  # for PCA and the balance of latents


def begin(ae: Autoencoder, X: NDArray[Any], features: Sequence[str] | None, held_out: float) -> Resolved:
    """Everything before the first step: scaler, settings, fresh weights, a few rows to keep."""
    if features is not None and X.ndim == 2:
        ae.feature_names_in_ = np.array(features, dtype=object)
    ae.seed_ = int(check_random_state(ae.random_state).randint(2**31 - 1))
    ae.input_shape_ = tuple(int(size) for size in X.shape[1:])
    ae.input_dtype_ = X.dtype.name if X.dtype in (np.uint8, np.int16) else "float32"
    train_rows, validation_rows = split(len(X), held_out, ae.seed_)
    check_finite(X, ae._features())
    statistics = survey(X, train_rows)
    ae.scaler_ = fit_scaler(ae.scaling, statistics, X.dtype)
    resolved = resolved_for(ae, X, train_rows, statistics, ae.get_params(deep=False))
    _take_notes(ae, resolved, statistics)
    ae.design_, ae.rows_ = resolved.design, len(X)
    ae.network_ = build(ae.family, ae.design_, ae.seed_, (ae.encoder, ae.decoder))
    ae.design_ = _measured_design(ae)
    ae.sample_rows_ = _sample_rows(X, validation_rows if len(validation_rows) else train_rows)
    sample = np.array(X[ae.sample_rows_])
    ae.sample_ = sample if sample.dtype in (np.uint8, np.int16) else sample.astype(np.float32)
    ae.noise_ = resolved.noise
    ae.labels_, ae.evaluation_ = None, {}
    ae.state_ = State()
    return resolved


def resolved_for(
    ae: Autoencoder, X: NDArray[Any], train_rows: NDArray[np.intp], statistics: Statistics, params: dict[str, Any]
) -> Resolved:
    """Parameters with every "auto" replaced, for these training rows."""
    share = crowded(X, train_rows, statistics)
    ae._low = (statistics.min - ae.scaler_.mean) / ae.scaler_.scale
    ae._high = (statistics.max - ae.scaler_.mean) / ae.scaler_.scale
    facts = Facts(ae.input_shape_, len(train_rows), ae.scaler_, statistics, share)
    return resolve(params, facts, ae.seed_)


def _measured_design(ae: Autoencoder) -> Design:
    """The design, with the latent size that modules of one's own turn out to have."""
    if ae.family != CUSTOM:
        return ae.network_.design
    with torch.no_grad():
        encode: nn.Module = ae.network_.eval().encoder
        latent = encode(torch.zeros(2, *ae.input_shape_))
    if not isinstance(latent, torch.Tensor) or latent.ndim != 2:
        raise InputError("encoder: expected a module from rows (n, ...) to latents (n, k), got something else")
    return replace(ae.network_.design, latent=int(latent.shape[1]), hidden=())


def run(
    ae: Autoencoder,
    X: NDArray[Any],
    resolved: Resolved,
    held_out: float,
    on_epoch: EpochHook | None,
    *,
    whole: bool = True,
) -> None:
    """Train on what is not held out; `whole` says whether this ends training, so that latents are balanced."""
    ae.created_ = datetime.now(timezone.utc).isoformat(timespec="seconds")
    device = pick_device(ae.device)
    train_rows, validation_rows = split(len(X), held_out, ae.seed_)
    if isinstance(ae.network_, Principal):
        _solve(ae, X, train_rows, validation_rows)
        return
    rows = place_rows(X, train_rows, validation_rows, ae.scaler_, device)
    ae.network_.to(device)
    first = torch.from_numpy(ae.scaler_(X[_spread(X, train_rows)])).to(device)
    if ae.state_.epoch == 0:
        ae.network_.start(first)
    low, high = (torch.tensor(np.asarray(v, np.float32)).to(device) for v in (ae._low, ae._high))
    corrupt = corruption(resolved.noise, low, high) if resolved.noise else None
    with _progress(ae.verbose, resolved.settings.epochs) as show:

        def after_epoch(state: State) -> None:
            publish(ae)
            show(state)
            if on_epoch is not None:
                on_epoch(state)

        train(ae.network_, rows, resolved.settings, ae.state_, corrupt, after_epoch)
    if ae.state_.stopped == "diverged":
        _warn(
            ae, f"training diverged in epoch {ae.state_.epoch + 1}: the best weights before were kept; use a lower rate"
        )
    if whole:
        ae.network_.finish(first)
    ae.network_.cpu()
    ae.state_.best_weights = {name: t.detach().clone() for name, t in ae.network_.state_dict().items()}
    publish(ae)


def _solve(ae: Autoencoder, X: NDArray[Any], train_rows: NDArray[np.intp], held_out: NDArray[np.intp]) -> None:
    """Closed form instead of training; the history has one entry, so that runs look alike."""
    network, began = ae.network_, time.perf_counter()
    assert isinstance(network, Principal)
    network.solve(X, train_rows, ae.scaler_)
    network.eval()
    losses = [
        evaluate(network, torch.from_numpy(ae.scaler_(X[_spread(X, part)])))
        for part in (train_rows, held_out if len(held_out) else train_rows)
    ]
    seconds = round(time.perf_counter() - began, 4)
    entry = {"epoch": 1, "train_loss": losses[0], "validation_loss": losses[1], "learning_rate": 0.0}
    weights = {name: t.detach().clone() for name, t in network.state_dict().items()}
    ae.state_ = State(
        epoch=1,
        best_epoch=1,
        best_loss=losses[1],
        stopped="solved",
        best_weights=weights,
        last_weights=weights,
        history=[entry | {"seconds": seconds}],
    )
    publish(ae)


def publish(ae: Autoencoder) -> None:
    """Bring the public attributes up to the state."""
    ae.history_, ae.stopped_ = ae.state_.history, ae.state_.stopped
    ae.n_iter_ = ae.state_.epoch


def _take_notes(ae: Autoencoder, resolved: Resolved, statistics: Statistics) -> None:
    ae.notes_ = list(resolved.notes)
    constant = np.argwhere(statistics.constant)
    if len(constant) and ae.scaler_.mean.ndim != 0:
        names = ae._features()
        shown = [names[i[0]] if names else str(i[0] if len(i) == 1 else tuple(map(int, i))) for i in constant[:5]]
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        ae.notes_.append(
            f"{len(constant)} of {statistics.constant.size} columns never change and were given scale 1: "
            f"{', '.join(shown)}{more}"
        )
    for note in ae.notes_:
        warnings.warn(note, UserWarning, stacklevel=5)


def _warn(ae: Autoencoder, note: str) -> None:
    ae.notes_.append(note)
    warnings.warn(note, UserWarning, stacklevel=5)


def _sample_rows(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Which rows to keep for export and report: a few, spread over all."""
    most = max(2, min(_SAMPLE_ROWS, _SAMPLE_BYTES // max(1, X[0].nbytes)))
    chosen = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return np.repeat(chosen, 2) if len(chosen) == 1 else chosen


def _spread(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Some of these rows, spread over all: enough for statistics, few enough for memory."""
    most = max(2, min(_START_ROWS, _START_BYTES // max(1, 4 * X[0].size)))
    return rows[:: max(1, -(-len(rows) // most))]


def _progress(verbose: bool, epochs: int) -> Any:
    from aeedge_export.training.progress import Progress, Silence  # rich is needed only here

    return Progress(epochs) if verbose else Silence()
