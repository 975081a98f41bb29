"""Replaces "auto" by settings for the shape and scaling of the data, and checks what depends on the data.

Two recipes, both chosen by measurement (docs/decisions/0007, benchmarks/quality.py):

- values that share one scale (pixels, ADC counts): normalised hidden layers beside a linear path that starts at PCA, a
  bounded output with cross-entropy where values crowd at their bounds, a high learning rate with strong weight decay;
- tables of features with different units: a plain network with dropout on its inputs during training, so that it learns
  how features depend on each other instead of copying them. This makes its reconstruction error an anomaly score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import InputError
from aeedge_export.data.corruption import parse_noise
from aeedge_export.data.scaling import Scaler, Statistics
from aeedge_export.networks.base import Design
from aeedge_export.networks.dense import parse_sparsity
from aeedge_export.training.loop import Settings

_LINEAR_PATH_SIZE = 4096  # values in a row; beyond, a linear path and its PCA cost more than they gain
_CROWDED = 0.05  # with this share of values at their bounds, the output is bounded
_LEAST_ROWS = 32  # for normalisation over batches
_FEW_WINDOWS = 100  # lengths of a window in a recording: fewer show hardly more than linear relations
_PASSES = 300  # over each sample of such a recording
_LONG = 128  # samples of a signal from which conv1d shrinks it by four first (docs/decisions/0025)
_EARLY = ((16, 32, 64), (4, 2, 2))  # its channels and strides then


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on: the training rows.

    Attributes:
        scaler: fitted to the rows.
        statistics: of the raw rows.
        crowded: share of values at the common bounds.
        channels_last: whether the channels of signals and images are the last axis of a row.
        span: how many rows on from a row the first one is that shares no sample with it, in a recording that is too
            short to hold out some of it; 0 otherwise.
    """

    scaler: Scaler
    statistics: Statistics
    crowded: float
    channels_last: bool = False
    span: int = 0

    @property
    def rows(self) -> int:
        """Number of training rows."""
        return self.statistics.rows

    @property
    def few_windows(self) -> bool:
        """Whether rows are windows of a recording that is so short that they show hardly more than linear relations."""
        return self.rows < few_windows(self.span)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.statistics.mean.shape

    @property
    def size(self) -> int:
        """Number of values in one row."""
        return self.statistics.mean.size

    @property
    def scaled_bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Minimum and maximum of each value in scaled units, both of the shape of one row."""
        low = (self.statistics.min - self.scaler.mean) / self.scaler.scale
        high = (self.statistics.max - self.scaler.mean) / self.scaler.scale
        return low, high

    @property
    def scaled_range(self) -> tuple[float, float]:
        """Minimum and maximum of all values in scaled units."""
        low, high = self.scaled_bounds
        return float(low.min()), float(high.max())

    @property
    def unit_range(self) -> bool:
        """Whether scaled values lie within 0 to 1, as far as a scaler of float32 can say."""
        low, high = self.scaled_range
        step = 1e-6 + float(np.finfo(np.float32).eps * np.max(np.abs(self.scaler.mean) / self.scaler.scale))
        return low >= -step and high <= 1 + step

    @property
    def bounded(self) -> bool:
        """Whether values share a scale and crowd at its bounds, as pixels do."""
        return self.scaler.kind == "shared" and self.unit_range and self.crowded >= _CROWDED


@dataclass(frozen=True)
class Resolved:
    """Parameters with every "auto" replaced.

    Attributes:
        design: the architecture.
        settings: how to train.
        noise: name and strength of each corruption, in order.
        bounds: minimum and maximum of each value in scaled units.
        notes: what was changed, in sentences.
    """

    design: Design
    settings: Settings
    noise: tuple[tuple[str, float], ...]
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]]
    notes: tuple[str, ...]


def few_windows(span: int) -> int:
    """How many windows are as many as a recording may have to be short; `span` as in `Facts`."""
    return _FEW_WINDOWS * span


def resolve(params: Mapping[str, Any], facts: Facts, seed: int, design: Design | None = None) -> Resolved:
    """Replace every "auto" and check that the rest fits the data.

    Args:
        params: the estimator's parameters, checked (`parameters.check_parameters`).
        facts: about the training rows.
        seed: for the order of rows.
        design: of a network that exists already; None for a new one.

    Raises:
        InputError: a parameter that does not fit the data.
    """
    notes = []
    batch_size = int(_given(params["batch_size"], 64 if facts.rows < 20_000 else 256))
    if batch_size > facts.rows:
        if params["batch_size"] != "auto":
            notes.append(f"{facts.rows} training rows are fewer than a batch of {batch_size}: each epoch is one step")
        batch_size = facts.rows
    design = design or _design(params, facts, batch_size)
    noise = params["noise"]
    if noise == "auto":
        # A dropped value becomes 0, the mean or median.
        standardised = _is_table(facts) and facts.scaler.kind in ("standard", "robust")
        detects = params["goal"] == "detect" and params["family"] in ("dense", "sparse", "contractive")
        noise = "dropout:0.4" if standardised and detects else None
    settings = _settings(params, facts, design, batch_size, seed)
    return Resolved(design, settings, parse_noise(noise), facts.scaled_bounds, tuple(notes))


def _is_table(facts: Facts) -> bool:
    return len(facts.input_shape) == 1 and facts.scaler.kind != "shared"


def _design(params: Mapping[str, Any], facts: Facts, batch_size: int) -> Design:
    family, loss, output = params["family"], params["loss"], params["output"]
    latent = _latent(params, facts.size)
    shared, bounded = facts.scaler.kind == "shared", facts.bounded
    if output == "auto":
        output = "sigmoid" if loss == "bce" or (loss == "auto" and bounded) else "linear"
    if loss == "auto":
        loss = "bce" if output == "sigmoid" and bounded else "mse"
    if (loss == "bce" or output == "sigmoid") and not facts.unit_range:
        (low, high), (name, got, instead) = facts.scaled_range, ("output", "sigmoid", "linear")
        if loss == "bce":
            name, got, instead = "loss", "bce", "mse"
        raise InputError(
            f"{name} {got!r} needs values from 0 to 1 after scaling, got {low:.4g} to {high:.4g}; "
            f"use scaling='minmax', or {name}={instead!r}"
        )
    early = (
        family == "conv1d" and _is_auto(params["hidden"]) and _is_auto(params["strides"]) and _samples(facts) >= _LONG
    )
    hidden = _EARLY[0] if early else _hidden(params, facts, latent)
    convolutional = family in ("conv1d", "conv2d")
    rich = bool(hidden) and not _is_table(facts) and facts.rows >= _LEAST_ROWS and batch_size > 1
    normalization = params["normalization"]
    linear_path = params["linear_path"]
    if linear_path == "auto":
        wanted = rich or (params["goal"] == "compress" and family == "dense" and bool(hidden))
        linear_path = wanted and facts.size <= _LINEAR_PATH_SIZE and family not in ("pca", "custom")
    latent_activation = params["latent_activation"]
    if family == "sparse" and latent_activation == "linear":
        latent_activation = {"l1": "relu", "kl": "sigmoid"}[parse_sparsity(params["sparsity"])[0]]
    return Design(
        input_shape=facts.input_shape,
        latent=latent,
        hidden=hidden,
        activation=params["activation"],
        latent_activation=latent_activation,
        output=output,
        loss=loss,
        normalization=("batch" if rich else "none") if normalization == "auto" else normalization,
        linear_path=bool(linear_path),
        centered=shared and (bool(hidden) or convolutional) and family not in ("pca", "custom"),
        ordered=bool(params["ordered"]),
        channels_last=facts.channels_last,
        options={name: params[name] for name in ("sparsity", "contraction", "beta", "free_bits", "kl_warmup")}
        | (
            {"separable": bool(params["separable"]), "strides": _strides(params, hidden, early=early)}
            if convolutional
            else {}
        ),
    )


def _settings(params: Mapping[str, Any], facts: Facts, design: Design, batch_size: int, seed: int) -> Settings:
    convolutional = params["family"] in ("conv1d", "conv2d")
    steps = max(1, facts.rows // batch_size)
    wanted = 1700 if convolutional else 5000 if _is_table(facts) else 2800
    most = 100 if _is_table(facts) else 60
    enough = np.clip(round(wanted / steps), 10, most)
    if facts.few_windows:  # nothing is held out to stop by
        enough = np.clip(round(_PASSES / facts.span), 5, most)
    epochs = int(_given(params["epochs"], enough))
    rate, decay = (2e-3, 1e-4) if _is_table(facts) else (4e-3, 1.0) if convolutional else (8e-3, 0.5)
    if not _is_table(facts) and design.output == "linear":
        decay *= 4 if not convolutional else 1
    if design.normalization == "none":
        rate, decay = min(rate, 2e-3), min(decay, 1e-4)
    clip, patience = params["gradient_clip"], params["patience"]
    return Settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=float(_given(params["learning_rate"], rate)),
        weight_decay=float(_given(params["weight_decay"], decay)),
        schedule=params["schedule"],
        gradient_clip=None if clip is None else float(clip),
        from_pca=_from_pca(params, facts, design),
        patience=None if patience is None else int(_given(patience, max(15, epochs // 4))),
        seed=seed,
        threads=int(_given(params["threads"], 0)) or None,
        precision=params["precision"],
        compile=bool(params["compile"]),
    )


def default_latent(size: int) -> int:
    """The number of latents for rows of `size` values that is not asked for."""
    return min(32, max(2, round(size / 3)), max(1, size - 1))


def _from_pca(params: Mapping[str, Any], facts: Facts, design: Design) -> bool:
    if facts.few_windows:
        return design.linear_path or not design.hidden
    linear = not design.hidden and params["family"] == "dense" and design.latent_activation == "linear"
    if params["goal"] == "compress":
        return design.linear_path or linear
    return linear and not _is_table(facts)


def _latent(params: Mapping[str, Any], size: int) -> int:
    latent = int(_given(params["latent"], default_latent(size)))
    asked = params["noise"]
    overcomplete = params["family"] == "sparse" or (asked != "auto" and parse_noise(asked))
    if latent > size and not overcomplete:
        raise InputError(
            f"latent: expected at most {size}, the number of values in a row, got {latent}; with more, an autoencoder "
            "can copy its input and learns nothing: use fewer, or family='sparse', or noise='dropout:0.4'"
        )
    return latent


def _hidden(params: Mapping[str, Any], facts: Facts, latent: int) -> tuple[int, ...]:
    value, family = params["hidden"], params["family"]
    if not isinstance(value, str):
        return tuple(int(width) for width in np.atleast_1d(value))
    if family == "conv2d":
        return (16, 32)
    if family == "dense" and facts.few_windows:
        return ()
    if family == "conv1d":
        return (16, 32, 32)[: max(1, int(np.log2(max(2, _samples(facts)))) - 1)]
    return _widths(facts, latent)


def _widths(facts: Facts, latent: int) -> tuple[int, ...]:
    """The smallest that lose little in benchmarks/widths.py (docs/decisions/0024)."""
    if _is_table(facts):  # they disagree
        return (int(np.clip(2 ** round(np.log2(4 * facts.size)), 128, 512)),)
    if facts.size < 64:
        return (128,)
    if not facts.bounded or latent < 16:
        return (256, 128)
    return (max(256, 8192 // latent // 16 * 16),)


def _samples(facts: Facts) -> int:
    """Length of a signal."""
    return facts.input_shape[0 if facts.channels_last else -1]


def _strides(params: Mapping[str, Any], hidden: tuple[int, ...], *, early: bool) -> list[int]:
    """One for each convolution, as a list: a run that was saved and loaded has the same."""
    given = _given(params["strides"], _EARLY[1] if early else 2)
    strides = [int(given)] * len(hidden) if np.ndim(given) == 0 else [int(stride) for stride in given]
    if len(strides) != len(hidden):
        raise InputError(
            f"strides: expected one for each of the {len(hidden)} hidden layers {hidden}, got {tuple(strides)}; give "
            "as many, or hidden= with as many channels"
        )
    return strides


def _given(value: Any, auto: Any) -> Any:
    return auto if _is_auto(value) else value


def _is_auto(value: Any) -> bool:
    return isinstance(value, str)
