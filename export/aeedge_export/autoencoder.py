"""The estimator: an autoencoder with scikit-learn's interface that trains, transforms, saves and exports."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import nn

from aeedge.bundle.manifest import Manifest, Missing, SignalSpec
from aeedge.detection.calibration import ThresholdRule
from aeedge.errors import InputError, shortened
from aeedge.runtime.frames import as_rows, named_rows
from aeedge.runtime.missing import fill_missing
from aeedge.runtime.nonfinite import all_finite
from aeedge_export import fitting, run_files
from aeedge_export.alarms import normal_of, scored_by
from aeedge_export.bundle import export_bundle
from aeedge_export.data.labels import as_classes
from aeedge_export.data.scaling import check_finite
from aeedge_export.data.shards import LazyRows, Shards
from aeedge_export.data.tensors import without_tensor
from aeedge_export.detector import Detector
from aeedge_export.reporting.detection import detection
from aeedge_export.reporting.evaluation import evaluate
from aeedge_export.run import Run
from aeedge_export.training.devices import pick_device, torch_defaults
from aeedge_export.training.distributed import joined
from aeedge_export.training.loop import EpochHook
from aeedge_export.training.parameters import check_parameters


class Autoencoder(Detector, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """An autoencoder: compresses rows to a few latents and reconstructs them.

    Parameters:
        family: "dense", "sparse", "contractive", "vae" (multilayer perceptrons), "conv2d" (images), "conv1d" (signals),
            "pca", or "custom" with `encoder` and `decoder`.
        goal: what a table is encoded for: "detect" (anomaly scores: inputs are dropped out in training, which costs
            reconstruction) or "compress" (reconstruction: no noise, and a start at PCA); other data does well at both.
        latent: number of latents, or "auto"; more than the values in a row only for "sparse" or with `noise`.
        hidden: widths of the encoder's hidden layers (channels of convolutions), mirrored in the decoder; one number
            for one layer, () for none, or "auto": one or two layers of 128 to 512, by the kind of the data and the
            number of latents (docs/decisions/0024-widths.md).
        activation: of the hidden layers: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, softplus, linear.
        latent_activation: of the latents, the same names.
        output: "linear", "sigmoid" (for values scaled to 0..1), or "auto".
        loss: "mse", "bce" (binary cross-entropy: needs values scaled to 0..1 and output "sigmoid"), "huber" (squared up
            to an error of 1 in scaled units, linear beyond: rows with large errors pull less), or "auto".
        channels: where the channels of signals and images are: "first", rows (channels, samples) or (channels, height,
            width); "last", rows (samples, channels) or (height, width, channels); or "auto", decided by shape and
            statistics, with a note where that is no matter of course. The exported graphs take rows as they were given.
        axes: the same spelled out, with n for the rows: "nct", "ntc", "nchw" or "nhwc"; None to go by `channels`.
        front_end: of windows (n, window, channels) of a signal, what the network is given of them: "spectrum"
            (magnitudes of frequencies), "log_mel" (of sound), "envelope" (spectrum of the envelope, of bearings), or
            "none" for the samples themselves. It is exported inside the graphs; reconstructions are of its features.
        front_end_options: by name, see docs/how-to/front-ends.md; None for the defaults.
        scaling: "standard", "robust" (median and interquartile range), "minmax", "none" or "auto" (one common mapping
            to 0..1 for images, and where values share bounds and spread, as flattened pixels do; per channel for
            signals and unlike bands of images; otherwise "standard"). It is exported inside the graphs.
        noise: corruption of the training inputs such as "gaussian:0.2" or "masking:0.3,salt_pepper:0.1", "none", or
            "auto" ("dropout:0.4" for standardised tables and goal "detect", otherwise none); see
            aeedge_export.data.corruption.
        normalization: "batch" or "none" in hidden layers, or "auto". It is folded into other layers at export.
        linear_path: whether a linear encoder and decoder, initialised with PCA, are added to the network, or "auto".
        ordered: train any prefix of the latents as a smaller code: the first j latents are the best j.
        strides: of "conv1d" and "conv2d": by how much each convolution shrinks its input, such as (4, 2), one number
            for all, or "auto": 2 each, but 4 first for signals of 128 samples or more where `hidden` is "auto", too. A
            large first stride makes all that follows cheaper.
        separable: of "conv1d" and "conv2d": whether convolutions after the first are depthwise and pointwise ones
            (Howard et al. 2017, MobileNets), which takes fewer multiply-adds.
        sparsity: of "sparse": "l1:WEIGHT" or "kl:TARGET:WEIGHT".
        contraction: of "contractive": weight of the Jacobian's squared norm.
        beta: of "vae": weight of the KL divergence.
        free_bits: of "vae": bits per latent that are not penalised.
        kl_warmup: of "vae": share of training over which the weight rises from 0.
        encoder: of "custom": a torch module, scaled rows to latents. A copy of it is trained.
        decoder: of "custom": the same, latents to scaled rows.
        epochs: maximum number of passes over the training rows, or "auto".
        batch_size: rows per step, of all processes together (docs/how-to/scale.md), or "auto".
        learning_rate: peak learning rate of AdamW, or "auto".
        weight_decay: decoupled weight decay, or "auto".
        schedule: "cosine", "plateau" or "constant".
        gradient_clip: maximum norm of the gradient, or None.
        validation: share of rows held out to choose the best weights, 0 to 0.9; 0 for none, as with calibration
            "cross".
        calibration: share of rows held out to set thresholds by, 0 to 0.5, which have no say in the training; or
            "auto": a tenth, 105 to 4 096 rows, of fewer than 495 rows none, or a fifth where they are windows of a
            signal; none for goal "compress". A run keeps at most 4 096 of them. "cross": all rows are trained on, and
            four more trainings, each without a stretch of the rows, tell how much higher the scores of such a stretch
            are; "auto" does so where windows overlap and a recording is shorter than 100 of them. Then "auto" for
            `hidden` and `epochs` is a network that is linear (family "dense") or starts at PCA, and few epochs.
        time_ordered: whether the rows are in time order. Validation and calibration rows are then blocks at the end
            instead of random rows, and half as many rows after the calibration rows show whether scores drift. "auto":
            where rows are windows that overlap, with a note.
        gap: of rows in time order, number of rows before each of these blocks that are left out; "auto": as many as a
            window spans where windows overlap, otherwise 1.
        score_kind: how rows are scored: "mse" (squared reconstruction error in scaled units), "robust" (the same in
            units of each value's own residuals), "mahalanobis" (distance of the latents), "both" (the sum of these
            two), or "auto": "both", with more than 256 latents "robust"; for windows of a signal "mse", because a
            channel that hardly changes in training may change slowly afterwards.
        patience: epochs without improvement after which training stops, None for never, or "auto".
        precision: of the matrix products in a step of the training: "fp32", or "bf16" (torch's autocast), which is
            faster on GPUs and on CPUs with instructions for it. Weights, statistics, validation and export are float32.
        compile: whether torch.compile makes the step, which takes a minute at the start, and on the CPU a C++ compiler;
            for long trainings.
        device: "auto" (torch's accelerator if there is one), "cpu", "cuda", "cuda:1", "mps"; of several processes that
            train together, each takes a CUDA device of its own.
        threads: number of threads that torch uses during training on the CPU, 1 to 1024, or "auto": one, or all that
            torch and this process may use where a measurement finds them faster; it is repeated now and then, because
            other processes come and go. The caller's number is restored afterwards.
        random_state: an int from 0 makes training repeatable to the byte on one machine with the same number of
            threads. Set `threads`, because "auto" may decide otherwise another time; `history_` has the number of each
            epoch.
        verbose: show progress.

    Attributes:
        network_: the trained torch module, in scaled units.
        scaler_: maps raw to scaled units.
        design_: the design of the network, with every "auto" replaced.
        history_: a list with a dict for each epoch: losses, learning rate, seconds, threads at its end. The validation
            loss is a mean in which no row counts more than 10 times the 90 % quantile of all.
        stopped_: why training ended: "epochs", "patience", "interrupted", "diverged", or "solved" for PCA.
        evaluation_: the result of `evaluate`; empty before.
        notes_: findings about the data and the training, in sentences: codes for missing values and gross outliers,
            whose rows are left out of training and comparison, constant columns, and others.
        sample_: raw rows kept for export and report, held out from training where rows were.
        noise_: name and strength of each corruption of the training inputs.
        seed_: as `random_state` it repeats the training; drawn where none was given.
        run_: all of this as an `aeedge_export.run.Run`.
        n_features_in_, feature_names_in_, n_iter_: as everywhere in scikit-learn.

    Rows are arrays of shape (n_samples, n_features), or (n_samples, ...) for images and signals; or frames (pandas,
    polars, pyarrow), which after `fit` are taken by name: columns in any order, others are ignored; or `Shards`, files
    that together are larger than memory (docs/how-to/scale.md).
    """

    def __init__(
        self,
        family: str = "dense",
        *,
        goal: str = "detect",
        latent: int | str = "auto",
        hidden: Sequence[int] | str = "auto",
        activation: str = "relu",
        latent_activation: str = "linear",
        output: str = "auto",
        channels: str = "auto",
        axes: str | None = None,
        front_end: str = "none",
        front_end_options: Mapping[str, Any] | None = None,
        loss: str = "auto",
        scaling: str = "auto",
        noise: str | None = "auto",
        normalization: str = "auto",
        linear_path: bool | str = "auto",
        ordered: bool = False,
        strides: Sequence[int] | int | str = "auto",
        separable: bool = False,
        sparsity: str = "l1:0.01",
        contraction: float = 0.01,
        beta: float = 0.2,
        free_bits: float = 0.25,
        kl_warmup: float = 0.2,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        epochs: int | str = "auto",
        batch_size: int | str = "auto",
        learning_rate: float | str = "auto",
        weight_decay: float | str = "auto",
        schedule: str = "cosine",
        gradient_clip: float | None = None,
        validation: float = 0.1,
        calibration: float | str = "auto",
        time_ordered: bool | str = "auto",
        gap: int | str = "auto",
        score_kind: str = "auto",
        patience: int | str | None = "auto",
        precision: str = "fp32",
        compile: bool = False,
        device: str = "auto",
        threads: int | str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.family = family
        self.goal = goal
        self.latent = latent
        self.hidden = hidden
        self.activation = activation
        self.latent_activation = latent_activation
        self.output = output
        self.channels = channels
        self.axes = axes
        self.front_end = front_end
        self.front_end_options = front_end_options
        self.loss = loss
        self.scaling = scaling
        self.noise = noise
        self.normalization = normalization
        self.linear_path = linear_path
        self.ordered = ordered
        self.strides = strides
        self.separable = separable
        self.sparsity = sparsity
        self.contraction = contraction
        self.beta = beta
        self.free_bits = free_bits
        self.kl_warmup = kl_warmup
        self.encoder = encoder
        self.decoder = decoder
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.validation = validation
        self.calibration = calibration
        self.time_ordered = time_ordered
        self.gap = gap
        self.score_kind = score_kind
        self.patience = patience
        self.precision = precision
        self.compile = compile
        self.device = device
        self.threads = threads
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Autoencoder:
        """Train on rows (n_samples, ...).

        Ctrl-C after the first epoch ends training and keeps the best weights so far.

        Args:
            X: raw rows; `Shards` are streamed.
            y: ignored.
            sample_weight: how much each row counts in the training and the validation loss, (n_samples,), from 0: a row
                of weight 2 is drawn twice as often. Rows of weight 0 are left out altogether; the scaler and the start
                at PCA count all others alike.

        Raises:
            InputError: rows or parameters that do not fit; the message names them and the reason.
        """
        return self.fit_rows(X, sample_weight=sample_weight)

    def fit_rows(
        self,
        X: ArrayLike,
        *,
        features: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        missing: Missing | None = None,
        dialect: Mapping[str, Any] | None = None,
        signal: SignalSpec | None = None,
        sample_weight: ArrayLike | None = None,
        calibration_rows: ArrayLike | None = None,
        rule: ThresholdRule | None = None,
        share_of_epochs: float = 1.0,
        on_epoch: EpochHook | None = None,
    ) -> Autoencoder:
        """`fit`, with what is known of the rows besides their numbers, and a function called after each epoch.

        Args:
            X: rows (n_samples, ...).
            features: names for the columns of an array, which has none.
            units: of the columns.
            missing: how missing values were told and treated in `X`, which has none left. It is exported, and rows that
                are given later are treated likewise.
            dialect: of the text files that `X` was read from; exported.
            signal: what `X` is where its rows are windows of a recording, (n, window, channels), in the order of time:
                see `aeedge_export.window`. Held-out rows are then blocks at the end that share no sample with others.
            calibration_rows: rows (m, ...) to set thresholds by, in the place of a share of `X`.
            rule: how the threshold follows from their scores, see `calibrate`.
            share_of_epochs: how many of the epochs to train for, 0 to 1: a whole training in less time, with the
                learning rate falling to its end.
            on_epoch: called with the state after each epoch.

        Raises:
            InputError: as `fit`.
        """
        params = self._checked_params()
        X = self._validated(X, fit=True)
        if features is None or X.ndim != 2:
            features = getattr(self, "feature_names_in_", None)
        known: dict[str, Any] = {"units": None if units is None else tuple(units), "missing": missing}
        known |= {"dialect": dialect, "signal": signal}
        hook = self._after_epoch(on_epoch)
        asked = (sample_weight, calibration_rows, rule, share_of_epochs)
        with torch_defaults(), joined(pick_device(self.device)) as group:
            return self._adopt(fitting.fit(X, params, features, hook, known, *asked, group))

    def evaluate(self, X: ArrayLike, labels: ArrayLike | None = None) -> dict[str, Any]:
        """Compare with PCA of as many latents and check the latents for collapse; kept for `save` and the report.

        Args:
            X: the rows that the estimator was fitted to.
            labels: a class for each row, for linear probe, k-means and the map of the latents.

        Returns:
            See `aeedge_export.reporting.evaluation.evaluate`.

        Raises:
            InputError: other rows, or labels of another length.
        """
        check_is_fitted(self)
        run = self.run_
        X = self._own_rows(X)
        with run.threads.kept():
            run.evaluation = evaluate(run, X, labels)
        if labels is not None:
            run.labels = as_classes(labels, len(X))[run.sample_rows]
        return self._adopt(run).evaluation_

    def evaluate_detection(
        self, X: ArrayLike, labels: ArrayLike | None = None, *, held_out: NDArray[np.intp] | None = None
    ) -> dict[str, Any]:
        """Score rows that need not be those of the training; kept for `save` and the report.

        Args:
            X: rows (n_samples, ...).
            labels: a class for each row, of which one is anomalous.
            held_out: indices of the rows that had no say in the training, with which alone labels are compared; None
                where that is not known.

        Returns:
            See `aeedge_export.reporting.detection.detection`.

        Raises:
            InputError: rows of another shape, or labels of another length.
        """
        check_is_fitted(self)
        X = self._own_rows(X)
        check_finite(X, self.run_.features)
        found = detection(self.run_, X, None if labels is None else as_classes(labels, len(X)), held_out)
        self.run_.evaluation = {**self.run_.evaluation, "detection": found}
        self._adopt(self.run_)
        return found

    def partial_fit(self, X: ArrayLike, y: object = None) -> Autoencoder:
        """One pass over rows (n_samples, ...) at a constant learning rate, for rows that arrive in portions.

        The first call fits the scaler and draws the weights, so its rows should be typical. No row is held out, early
        stopping is off, and latents are not balanced.

        Raises:
            InputError: as `fit`; or family "pca", which has no passes.
        """
        if self.family == "pca":
            raise InputError("partial_fit: family 'pca' is solved in closed form; use fit, it streams mapped files")
        params = self._checked_params()
        run: Run | None = getattr(self, "run_", None)
        X = self._validated(X, fit=run is None)
        features = getattr(self, "feature_names_in_", None)
        with torch_defaults(), joined(pick_device(self.device)) as group:
            return self._adopt(fitting.partial_fit(run, X, params, features, group))

    def resume(self, X: ArrayLike, *, epochs: int | None = None, on_epoch: EpochHook | None = None) -> Autoencoder:
        """Continue the training of a fitted or loaded estimator, with the same rows, split as before.

        Args:
            X: the rows it was fitted to.
            epochs: a new total of epochs; default: the parameter `epochs`.
            on_epoch: called with the state after each epoch.

        Raises:
            InputError: other rows than before, or no epochs left.
        """
        check_is_fitted(self)
        params = self._checked_params(**({} if epochs is None else {"epochs": epochs}))
        X = self._own_rows(X) if isinstance(X, Shards) else self._validated(X, fit=False)  # files are checked there
        with torch_defaults(), joined(pick_device(self.device)) as group:
            fitting.resume(self.run_, X, params, self._after_epoch(on_epoch), group)
        self.epochs = params["epochs"]
        return self._adopt(self.run_)

    def _checked_params(self, **changed: Any) -> dict[str, Any]:
        """The parameters by name, checked; some of them replaced."""
        params: dict[str, Any] = self.get_params(deep=False) | changed
        signature = inspect.signature(Autoencoder.__init__).parameters
        check_parameters(params, {name: parameter.default for name, parameter in signature.items()})
        return params

    def _adopt(self, run: Run) -> Autoencoder:
        """Set every fitted attribute, all of them derived from the run."""
        self.run_ = run
        self.network_, self.scaler_, self.design_, self.seed_ = run.network, run.scaler, run.design, run.seed
        self.history_, self.stopped_, self.n_iter_ = run.state.history, run.state.stopped, run.state.epoch
        self.sample_, self.noise_, self.notes_, self.evaluation_ = run.sample, run.noise, run.notes, run.evaluation
        self.n_features_in_ = run.input_shape[0]
        if run.features is not None:
            self.feature_names_in_ = np.array(run.features, dtype=object)
        return self

    def _after_epoch(self, on_epoch: EpochHook | None) -> Callable[[Run], None]:
        """A hook that keeps the fitted attributes up to date, so that `on_epoch` may save the estimator."""

        def after_epoch(run: Run) -> None:
            self._adopt(run)
            if on_epoch is not None:
                on_epoch(run.state)

        return after_epoch

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a network, if only after one epoch."""
        return hasattr(self, "run_")

    def _validated(self, X: ArrayLike, *, fit: bool) -> NDArray[Any]:
        """scikit-learn's checks; integer pixels stay integers, everything else becomes float32 when it is used.

        Frames are taken by name, as `aeedge.Model` takes them.
        """
        if isinstance(X, LazyRows):
            return self._validated_lazily(X, fit=fit)
        X = without_tensor(X, "X")
        if fit:
            X, names = named_rows(X, "X")
        else:
            given, names = X, self.run_.features
            X = as_rows(X, "X", names)
            names = None if X is given else names
        shape = getattr(X, "shape", ())
        if not fit and len(shape) > 2 and tuple(shape[1:]) != self.run_.input_shape:
            raise InputError(f"X: expected rows of shape {self.run_.input_shape}, got {tuple(shape[1:])}")
        keep = isinstance(X, np.ndarray) and X.dtype in (np.uint8, np.int16, np.float32, np.float64)
        # A frame's names have been seen to; an array without names is what scikit-learn warns of.
        check = partial(validate_data, self, reset=fit) if fit or names is None else check_array
        try:
            checked: NDArray[Any] = check(
                X,
                dtype=None if keep else "numeric",
                allow_nd=True,
                ensure_all_finite=False,  # check_finite goes chunk by chunk, and names the place
                ensure_min_samples=2 if fit else 1,
            )
        except (ValueError, RuntimeError) as error:  # a list of tensors with gradients is a RuntimeError
            raise InputError(f"X: {_one_sentence(error, X)}") from None
        if fit and names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        if not fit and checked.shape[1:] != self.run_.input_shape:
            raise InputError(f"X: expected rows of shape {self.run_.input_shape}, got {checked.shape[1:]}")
        if checked.dtype.kind not in "fiub":
            raise InputError(f"X: expected numbers, got dtype {checked.dtype}; convert it first")
        if not fit and self.run_.missing is not None:
            checked, _ = fill_missing(checked, self.run_.input_spec)  # by NaN, where the policy is to refuse them
        if not fit and checked.dtype.kind == "f" and not all_finite(checked):
            check_finite(checked, self.run_.features)
        return checked

    def _validated_lazily(self, X: Any, *, fit: bool) -> NDArray[Any]:
        """Rows that stay in files, taken as they are; those to train on are checked while statistics are made of them.

        Raises:
            InputError: rows of another shape or of other columns than those of the training, or not finite.
        """
        names = getattr(X, "features", None)
        if fit:
            self.n_features_in_ = X.shape[1]
            self.__dict__.pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = np.array(names, dtype=object)
            return X  # type: ignore[no-any-return]
        if X.shape[1:] != self.run_.input_shape:
            raise InputError(f"X: expected rows of shape {self.run_.input_shape}, got {X.shape[1:]}")
        known = self.run_.features
        if names is not None and known is not None and names != known:
            raise InputError(
                f"X: expected the columns {shortened(known)} in this order, got {shortened(names)}; name them "
                "(columns=...)"
            )
        check_finite(X, self.run_.features)
        return X  # type: ignore[no-any-return]

    def _own_rows(self, X: ArrayLike) -> NDArray[Any]:
        """An array as it is, for its columns are those of the training; anything else by name."""
        fits = isinstance(X, (np.ndarray, LazyRows)) and X.shape[1:] == self.run_.input_shape
        return X if fits else self._validated(X, fit=False)  # type: ignore[return-value]

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Latents of raw rows: (n_samples, ...) to (n_samples, latent) float32."""
        check_is_fitted(self)
        return self.run_.encode(self._validated(X, fit=False))

    def inverse_transform(self, Z: ArrayLike) -> NDArray[np.float32]:
        """Reconstructions of latents in raw units: (n_samples, latent) to (n_samples, ...) float32.

        Of ordered latents a prefix (n_samples, j) is enough.
        """
        check_is_fitted(self)
        Z = np.asarray(as_rows(without_tensor(Z, "Z"), "Z"), np.float32)
        if self.design_.ordered and Z.ndim == 2 and 0 < Z.shape[1] < self._n_features_out:
            Z = np.pad(Z, ((0, 0), (0, self._n_features_out - Z.shape[1])))
        if Z.ndim != 2 or Z.shape[1] != self._n_features_out:
            raise InputError(f"Z: expected an array of shape (n, {self._n_features_out}), got {Z.shape}")
        return self.run_.decode(Z)

    @property
    def _n_features_out(self) -> int:
        return self.design_.latent

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save as a directory of safetensors, JSON and history; never pickle.

        Raises:
            InputError: the directory exists and `overwrite` is False, holds files that are no part of a run, or cannot
                be written.
        """
        check_is_fitted(self)
        run_files.save(self.run_, path, overwrite=overwrite)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, encoder: nn.Module | None = None, decoder: nn.Module | None = None
    ) -> Autoencoder:
        """Load what `save` or `aeedge train` wrote.

        Args:
            path: the run's directory.
            encoder: of family "custom": the module, whose code a run does not hold; its weights are replaced.
            decoder: the same.

        Raises:
            InputError: no run, a damaged one, or a custom one without its modules.
        """
        with torch_defaults():
            run = run_files.load(path, encoder, decoder)
        unknown = sorted(run.params.keys() - set(cls._get_param_names()))
        if unknown:
            raise InputError(f"{path}: expected parameters of an Autoencoder, got {', '.join(unknown)}; upgrade aeedge")
        return cls(**run.params, encoder=encoder, decoder=decoder)._adopt(run)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        variants: Sequence[str] | str = ("fp32",),
        calibration: ArrayLike | None = None,
        qat: bool = False,
        compress: str | float | None = None,
        max_error_ratio: float | None = None,
        with_scorer: bool = True,
        score_kind: str | None = None,
        name: str | None = None,
        tolerance: float = 1e-4,
        overwrite: bool = False,
        on_progress: Callable[[str], None] | None = None,
    ) -> Manifest:
        """Write a bundle for `aeedge.load`; it appears only after aeedge has reproduced this network's outputs with it.

        Args:
            path: the bundle's directory, for example `motor.aeedge`.
            variants: "fp32" and "int8", the preferred one first; see `export_bundle`.
            calibration: raw rows, best such that had no say in training, on which int8 and compression are calibrated
                and their quality is measured (192 or more), and the steps of codes (20 or more); by default codes are
                of the held-out rows that the run keeps.
            qat: fine-tune int8 where the quality limits would keep layers in fp32.
            compress: make the network smaller first: "auto", or the share of the multiply-adds that may stay; see
                `export_bundle`.
            max_error_ratio: how much compression may enlarge the reconstruction error, in the place of 1.01.
            with_scorer: also write encoder, decoder and score as one graph; see `export_bundle`.
            score_kind: another kind of score than that of the training, which must be a part of it: of "both" also
                "robust", "mahalanobis" and "mse".
            name: the model's name; default: the stem of `path`.
            tolerance: maximum error of fp32 relative to an output's magnitude.
            overwrite: replace an existing bundle that holds no other files; anything else is never replaced.
            on_progress: called with a line for each smaller network that compression tries.

        Raises:
            InputError: `path` exists, or cannot be written; no calibration rows for int8 or compression, or rows that
                do not fit.
            VerificationError: aeedge's outputs differ from torch's; nothing is left behind.
        """
        check_is_fitted(self)
        if variants != "all" and "int8" in variants and calibration is None:
            raise InputError("calibration: expected rows of raw input for int8, got none; pass calibration=rows")
        if compress is not None and calibration is None:
            raise InputError("calibration: expected rows of raw input for compression, got none; pass calibration=rows")
        run = self.run_ if score_kind is None else scored_by(self.run_, score_kind)
        encoder, decoder = run.network.exportable()
        return export_bundle(
            encoder=encoder,
            decoder=decoder,
            path=path,
            example=run.sample,
            score_kind=run.scored_as,
            normal=normal_of(run),
            scaler=(run.scaler.mean, run.scaler.scale),
            family=run.family,
            name=name,
            features=run.features,
            units=run.units,
            missing=run.missing,
            dialect=run.dialect,
            signal=run.signal,
            front_end=run.front_end,
            created=run.created,
            training=run.summary(),
            ordered=run.design.ordered,
            variants=variants,
            calibration=calibration,
            qat=qat,
            compress=compress,
            max_error_ratio=max_error_ratio,
            with_scorer=with_scorer,
            tolerance=tolerance,
            overwrite=overwrite,
            on_progress=on_progress,
        )

    def sample(self, n: int, *, random_state: int | None = None) -> NDArray[np.float32]:
        """Rows decoded from latents drawn from the prior N(0, 1), in raw units: (n, ...). For "vae" only.

        Raises:
            InputError: another family, whose latents have no prior.
        """
        check_is_fitted(self)
        if self.family != "vae":
            raise InputError(f"sample: only family 'vae' has a prior to draw latents from, this is {self.family!r}")
        return self.inverse_transform(np.random.default_rng(random_state).normal(size=(n, self.design_.latent)))

    def __sklearn_tags__(self) -> Any:
        """Capabilities, for scikit-learn's checks."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        return tags


def _one_sentence(error: Exception, X: Any) -> str:
    """What scikit-learn has against rows, without its dumps of the data."""
    text, kind = str(error), getattr(X, "dtype", None)
    if "Reshape your data" in text:
        return (
            f"expected rows, an array of two or more axes, got shape {np.shape(X)}. Reshape your data: "
            "X.reshape(-1, 1) for one column, X.reshape(1, -1) for one row"
        )
    if isinstance(kind, np.dtype) and kind.kind in "US":
        return f"expected numbers, got text (dtype {kind}); convert it to numbers first"
    if text.startswith("Complex data not supported"):
        return "Complex data not supported; pass real and imaginary parts as columns of their own"
    if " while a minimum of " in text and np.ndim(X) > 1 and len(X) < 2:
        return f"expected two or more rows to train on, got {len(X)} sample{'' if len(X) == 1 else 's'}"
    if text.startswith("could not convert"):
        return f"expected numbers, but {text}; leave such columns out, or encode them as numbers"
    if "1 sample(s)" in text:
        return "expected two or more rows to train on, got 1 sample"
    if text.startswith("The feature names"):
        return text
    return text.splitlines()[0].replace("Input X contains", "contains").replace(" by Autoencoder", "")
