"""The estimator: an autoencoder with scikit-learn's interface that trains, transforms, saves and exports."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from aeedge.errors import InputError
from aeedge_export import runs
from aeedge_export.build import export_bundle
from aeedge_export.defaults import Resolved, resolve
from aeedge_export.devices import pick_device
from aeedge_export.networks import build
from aeedge_export.rows import place_rows, split
from aeedge_export.scaling import Scaler, Statistics, check_finite, fit_scaler, survey
from aeedge_export.training import EpochHook, State, train

_BLOCK_ROWS = 4096
_SAMPLE_ROWS, _SAMPLE_BYTES = 512, 2**24


class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learn to squeeze rows through a few latents and back.

    Parameters:
        family: "dense", a symmetric multilayer perceptron.
        latent: number of latents, at most the number of values in a row, or "auto".
        hidden: widths of the encoder's hidden layers, mirrored in the decoder; () for none, or "auto".
        activation: of the hidden layers: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, softplus, linear.
        latent_activation: of the latents, the same names.
        output: "linear", "sigmoid" (for values scaled to 0..1), or "auto".
        loss: "mse" or "bce" (binary cross-entropy: needs values scaled to 0..1 and output "sigmoid").
        scaling: "standard", "minmax", "none" or "auto" (one common mapping to 0..1 where values share their bounds, as
            pixels do; else "standard"). It is exported inside the graphs.
        epochs: passes over the training rows, at most, or "auto".
        batch_size: rows a step, or "auto".
        learning_rate: highest learning rate of AdamW, or "auto".
        weight_decay: decoupled weight decay.
        schedule: "cosine", "plateau" or "constant".
        gradient_clip: largest norm of the gradient, or None.
        validation: share of rows held out to choose the best weights, 0 to 0.9; 0 for none.
        patience: epochs without improvement after which training stops, None for never, or "auto".
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        random_state: an int makes training repeatable to the byte on one machine.
        verbose: show progress.

    Attributes:
        network_: the trained torch module.
        scaler_: what maps raw to scaled units.
        history_: a list with a dict for each epoch: losses, learning rate, seconds.
        stopped_: why training ended: "epochs", "patience", "interrupted" or "diverged".
        notes_: what was noticed about the data, in sentences.
        sample_: rows that were held out, raw, kept for export.
        n_features_in_, feature_names_in_, n_iter_: as everywhere in scikit-learn.

    Rows are arrays of shape (n_samples, n_features), or (n_samples, ...) for images and signals.
    """

    def __init__(
        self,
        family: str = "dense",
        *,
        latent: int | str = "auto",
        hidden: Sequence[int] | str = "auto",
        activation: str = "relu",
        latent_activation: str = "linear",
        output: str = "auto",
        loss: str = "mse",
        scaling: str = "auto",
        epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        weight_decay: float = 0.0,
        schedule: str = "cosine",
        gradient_clip: float | None = 1.0,
        validation: float = 0.1,
        patience: int | str | None = "auto",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.family = family
        self.latent = latent
        self.hidden = hidden
        self.activation = activation
        self.latent_activation = latent_activation
        self.output = output
        self.loss = loss
        self.scaling = scaling
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.validation = validation
        self.patience = patience
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: object = None) -> Autoencoder:
        """Train on rows (n_samples, ...); `y` is ignored.

        Ctrl-C after the first epoch ends training and keeps the best weights so far.

        Raises:
            InputError: rows or parameters that do not fit; the message says which and why.
        """
        return self.fit_rows(X)

    def fit_rows(
        self, X: ArrayLike, *, features: Sequence[str] | None = None, on_epoch: EpochHook | None = None
    ) -> Autoencoder:
        """`fit`, with names for the features of an array that has none, and a function called after each epoch.

        Raises:
            InputError: as `fit`.
        """
        X = self._validated(X, fit=True)
        if features is not None and X.ndim == 2:
            self.feature_names_in_ = np.array(features, dtype=object)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.input_shape_ = tuple(int(size) for size in X.shape[1:])
        self.input_dtype_ = X.dtype.name if X.dtype in (np.uint8, np.int16) else "float32"
        train_rows, held_out = split(len(X), self._validation_share(), self.seed_)
        check_finite(X, self._features())
        statistics = survey(_pick(X, train_rows))
        self.scaler_ = fit_scaler(self.scaling, statistics, X.dtype)
        resolved = resolve(self.get_params(), self.input_shape_, len(train_rows), self.scaler_, statistics, self.seed_)
        self._take_notes(resolved, statistics)
        self.design_, self.rows_ = resolved.design, len(X)
        self.network_ = build(self.family, self.design_, self.seed_)
        self.sample_ = _sample(X, held_out if len(held_out) else train_rows)
        self.state_ = State()
        self._train(X, resolved, on_epoch)
        return self

    def resume(self, X: ArrayLike, *, epochs: int | None = None, on_epoch: EpochHook | None = None) -> Autoencoder:
        """Go on training where a fitted or loaded estimator stopped, with the same rows.

        Args:
            X: the rows it was fitted to.
            epochs: a new total of epochs; default: those it was made with.
            on_epoch: called with the state after each epoch.

        Raises:
            InputError: other rows than before, or nothing left to do.
        """
        check_is_fitted(self)
        X = self._validated(X, fit=False)
        train_rows, _ = split(len(X), self._validation_share(), self.seed_)
        statistics = survey(_pick(X, train_rows))
        scaler = fit_scaler(self.scaling, statistics, X.dtype)
        if not (np.array_equal(scaler.mean, self.scaler_.mean) and np.array_equal(scaler.scale, self.scaler_.scale)):
            raise InputError(
                "resume: expected the rows that the run was trained on, got other values; fit anew instead"
            )
        params = self.get_params() | ({} if epochs is None else {"epochs": epochs})
        resolved = resolve(params, self.input_shape_, len(train_rows), scaler, statistics, self.seed_)
        if self.state_.epoch >= resolved.settings.epochs:
            raise InputError(
                f"resume: all {self.state_.epoch} epochs are done; ask for more (--epochs, resume(X, epochs=...))"
            )
        self.epochs = params["epochs"]
        self._train(X, resolved, on_epoch)
        return self

    def _train(self, X: NDArray[Any], resolved: Resolved, on_epoch: EpochHook | None) -> None:
        self.created_ = datetime.now(timezone.utc).isoformat(timespec="seconds")
        device = pick_device(self.device)
        train_rows, held_out = split(len(X), self._validation_share(), self.seed_)
        rows = place_rows(X, train_rows, held_out, self.scaler_, device)
        self.network_.to(device)
        hooks = [on_epoch] if on_epoch is not None else []
        with _progress(self.verbose, resolved.settings.epochs) as show:

            def after_epoch(state: State) -> None:
                self._publish()
                for hook in (show, *hooks):
                    hook(state)

            train(self.network_, rows, resolved.settings, self.state_, after_epoch)
        self.network_.cpu()
        self._publish()

    def _publish(self) -> None:
        self.history_, self.stopped_ = self.state_.history, self.state_.stopped
        self.n_iter_ = self.state_.epoch

    def _take_notes(self, resolved: Resolved, statistics: Statistics) -> None:
        self.notes_ = list(resolved.notes)
        constant = np.argwhere(statistics.constant)
        if len(constant) and self.scaler_.mean.ndim != 0:
            names = self._features()
            shown = [names[i[0]] if names else str(i[0] if len(i) == 1 else tuple(map(int, i))) for i in constant[:5]]
            more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
            self.notes_.append(
                f"{len(constant)} of {statistics.constant.size} columns never change and were given scale 1: "
                f"{', '.join(shown)}{more}"
            )
        for note in self.notes_:
            warnings.warn(note, UserWarning, stacklevel=4)

    def _validated(self, X: ArrayLike, *, fit: bool) -> NDArray[Any]:
        """scikit-learn's checks; integer pixels stay integers, everything else becomes float32 when it is used."""
        keep = isinstance(X, np.ndarray) and X.dtype in (np.uint8, np.int16, np.float32, np.float64)
        checked: NDArray[Any] = validate_data(
            self,
            X,
            reset=fit,
            dtype=None if keep else "numeric",
            allow_nd=True,
            ensure_all_finite=not (fit and keep),  # check_finite goes chunk by chunk, and names the place
            ensure_min_samples=2 if fit else 1,
        )
        if not fit and checked.shape[1:] != self.input_shape_:
            raise InputError(f"X: expected rows of shape {self.input_shape_}, got {checked.shape[1:]}")
        if checked.dtype.kind not in "fiub":
            raise InputError(f"X: expected numbers, got dtype {checked.dtype}; convert it first")
        return checked

    def _validation_share(self) -> float:
        if not 0 <= self.validation <= 0.9:
            raise InputError(f"validation: expected a share from 0 to 0.9, got {self.validation!r}")
        return self.validation

    def _features(self) -> tuple[str, ...] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(str(name) for name in names)

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Latents of raw rows: (n_samples, ...) to (n_samples, latent) float32."""
        check_is_fitted(self)
        return self._run(self._validated(X, fit=False), lambda x: self.network_.encoder(x))

    def inverse_transform(self, Z: ArrayLike) -> NDArray[np.float32]:
        """Reconstructions in raw units of latents: (n_samples, latent) to (n_samples, ...) float32."""
        check_is_fitted(self)
        Z = np.asarray(Z, np.float32)
        if Z.ndim != 2 or Z.shape[1] != self._n_features_out:
            raise InputError(f"Z: expected an array of shape (n, {self._n_features_out}), got {Z.shape}")
        scaled = _in_blocks(Z, lambda z: self.network_.decoder(z))
        return (scaled * self.scaler_.scale + self.scaler_.mean).astype(np.float32)

    def reconstruction_error(self, X: ArrayLike) -> NDArray[np.float32]:
        """Mean squared reconstruction error of each raw row in scaled units, (n_samples,): `score` of the device."""
        check_is_fitted(self)
        X = self._validated(X, fit=False)
        return self._run(X, lambda x: (self.network_(x) - x).square().flatten(1).mean(dim=1))

    def score_samples(self, X: ArrayLike) -> NDArray[np.float32]:
        """The negative of `reconstruction_error`: as for scikit-learn's outlier detectors, lower is stranger."""
        return -self.reconstruction_error(X)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean of `score_samples`, for model selection: higher is better."""
        return float(self.score_samples(X).mean())

    def _run(self, X: NDArray[Any], function: Any) -> NDArray[np.float32]:
        return _in_blocks(X, lambda x: function(x), self.scaler_)

    @property
    def _n_features_out(self) -> int:
        return self.design_.latent

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save as a directory of safetensors, JSON and history; never pickle.

        Raises:
            InputError: the directory exists and `overwrite` is False, or cannot be written.
        """
        check_is_fitted(self)
        runs.save(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Autoencoder:
        """Load what `save` or `aeedge train` wrote.

        Raises:
            InputError: no run, or a damaged one.
        """
        loaded = runs.load(cls, path)
        assert isinstance(loaded, Autoencoder)
        return loaded

    def export(
        self, path: str | os.PathLike[str], *, name: str | None = None, tolerance: float = 1e-4, overwrite: bool = False
    ) -> None:
        """Write a bundle that `aeedge.load` opens; it is there only after aeedge has reproduced this network with it.

        Args:
            path: the bundle's directory, `motor.aeedge` say.
            name: the model's name; default: the stem of `path`.
            tolerance: largest error relative to an output's magnitude.
            overwrite: replace an existing bundle.

        Raises:
            InputError: `path` exists, or cannot be written.
            VerificationError: aeedge computes something else; nothing is left behind.
        """
        check_is_fitted(self)
        export_bundle(
            encoder=self.network_.encoder,
            decoder=self.network_.decoder,
            path=path,
            example=self.sample_,
            scaler=(self.scaler_.mean, self.scaler_.scale),
            family=self.family,
            name=name,
            features=self._features(),
            created=self.created_,
            training=runs.summary(self),
            tolerance=tolerance,
            overwrite=overwrite,
        )

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's checks may expect."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        return tags


def _in_blocks(X: NDArray[Any], function: Any, scaler: Scaler | None = None) -> NDArray[np.float32]:
    """Run a torch function over rows, a block at a time, without gradients."""
    with torch.inference_mode():
        parts = [
            function(torch.from_numpy(np.ascontiguousarray(block if scaler is None else scaler(block)))).numpy()
            for block in (X[start : start + _BLOCK_ROWS] for start in range(0, len(X), _BLOCK_ROWS))
        ]
    return np.concatenate(parts)


def _pick(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Training rows; of a memory-mapped file all rows, since picking would copy it."""
    return X if isinstance(X, np.memmap) else X[rows]


def _sample(X: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """A few raw rows to keep for export."""
    most = max(2, min(_SAMPLE_ROWS, _SAMPLE_BYTES // max(1, X[0].nbytes)))
    sample = np.array(X[rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]])
    return sample if sample.dtype in (np.uint8, np.int16) else sample.astype(np.float32)


def _progress(verbose: bool, epochs: int) -> Any:
    from aeedge_export.progress import Progress, Silence  # rich is needed only here

    return Progress(epochs) if verbose else Silence()
