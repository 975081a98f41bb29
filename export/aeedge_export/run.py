"""A trained autoencoder as plain data: what saving, evaluation, reports, export and further training work on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from aeedge.bundle.manifest import InputSpec, Missing, SignalSpec
from aeedge.detection.calibration import ThresholdRule
from aeedge.detection.scores import Scoring
from aeedge_export.data.rows import Split, split, split_options
from aeedge_export.data.scaling import Scaler
from aeedge_export.networks.base import Design, Network
from aeedge_export.networks.front_ends import FrontEnd, features
from aeedge_export.training.loop import State
from aeedge_export.training.threads import ThreadChoice

_BLOCK_ROWS, _TILE_ROWS = 4096, 32
STOPPED = {  # values of `State.stopped`, for people
    "epochs": "all epochs done",
    "patience": "validation loss no longer improved",
    "interrupted": "interrupted",
    "diverged": "loss no longer finite",
    "solved": "solved in closed form",
}


@dataclass(frozen=True)
class Alarm:
    """The threshold of a run, and what it promises.

    Attributes:
        threshold: scores above it are anomalous.
        rate: the false-alarm rate that the calibration rows promise.
        rows: the number of calibration scores that it follows from.
        drift: the alarms of a later stretch of time: "rows", "alarms", "low" and "high" ends of the band that chance
            explains, and whether there is "drift"; empty where there is none.
    """

    threshold: float
    rate: float
    rows: int
    drift: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """The fitted state of an autoencoder.

    Attributes:
        params: the estimator's parameters that a run keeps, by name.
        design: what the network was built from; its rows are features where there is a front end.
        network: the torch module, in scaled units.
        scaler: maps raw to scaled units.
        seed: as `random_state` it repeats the training: the one that was given, or one drawn for it.
        drawn_seed: drawn from `seed`; fixes weights, split and order of rows.
        dtype: of the raw rows: "uint8", "int16" or "float32".
        features: names of the columns, None without.
        rows: number of rows it was fitted to, validation rows included.
        noise: name and strength of each corruption of the training inputs, in order.
        sample_rows: indices of the kept rows, (m,).
        fingerprint: of all rows it was fitted to (`aeedge_export.data.rows.fingerprint`), None where they came in
            portions.
        sample_weight: of all rows it was fitted to, (rows,), None where all count alike.
        sample: these rows, raw, (m, *input_shape), for export and report; held-out rows where there are any.
        calibration: raw rows to set thresholds by, (m, *input_shape), at most 4 096 and 64 MB, which had no say in the
            training; None without.
        later: of rows in time order some after those, likewise, half as many at most; None without.
        reference: raw windows of a signal that do not overlap, in time order, which drift is found by: those that had
            no say in the weights where they are enough, at most 2 048 and 64 MB; None without.
        left_out: indices of rows with gross outliers or codes for missing values, left out of training and comparison.
        notes: findings about the data and the training, in sentences.
        state: progress of training, with the best weights.
        created: start of the last training, ISO 8601, UTC.
        labels: classes of the kept rows, (m,), None without.
        evaluation: result of `aeedge_export.reporting.evaluation.evaluate`; empty before.
        units: of the columns, None where they are not known.
        missing: how missing values are told and treated, None where there were none; the rows above are without.
        dialect: of the text files that the rows were read from, None where there were none.
        signal: what a row is where rows are windows of a recording; None otherwise.
        front_end: what makes features of raw rows, for scaler and network; None where these take the rows themselves.
        scoring: the fitted score; None before training is complete.
        score_part: the kind that rows are scored by, a part of `scoring`; None for all of it.
        calibration_given: whether the calibration rows came from `calibrate`, so that nothing is known of their order.
        calibration_spacing: of calibration rows in time order, rows of the data from one to the next.
        calibration_left_out: how many calibration rows had gross outliers and were left out.
        calibration_inflation: of calibration by cross-validation, what scores of each kind are multiplied by, because
            all rows were trained on; empty where calibration rows had no say in the training.
        rule: how the threshold was asked for; None for the default, a false-alarm rate of 1 % or the smallest possible.
        alarm: the threshold; None without rows to calibrate with.
        launch: which launch of torchrun saved it after an epoch; "" for none.
        threads: what was measured about torch's threads; not saved.
    """

    params: dict[str, Any]
    design: Design
    network: Network
    scaler: Scaler
    seed: int
    drawn_seed: int
    dtype: str
    features: tuple[str, ...] | None
    rows: int
    noise: tuple[tuple[str, float], ...]
    sample_rows: NDArray[np.intp]
    sample: NDArray[Any]
    calibration: NDArray[Any] | None = None
    later: NDArray[Any] | None = None
    reference: NDArray[Any] | None = None
    left_out: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    fingerprint: dict[str, Any] | None = None
    sample_weight: NDArray[np.float32] | None = None
    notes: list[str] = field(default_factory=list)
    state: State = field(default_factory=State)
    created: str = ""
    labels: NDArray[Any] | None = None
    evaluation: dict[str, Any] = field(default_factory=dict)
    units: tuple[str, ...] | None = None
    missing: Missing | None = None
    dialect: Mapping[str, Any] | None = None
    signal: SignalSpec | None = None
    front_end: FrontEnd | None = None
    scoring: Scoring | None = None
    score_part: str | None = None
    calibration_given: bool = False
    calibration_left_out: int = 0
    calibration_spacing: float = 1.0
    calibration_inflation: Mapping[str, float] = field(default_factory=dict)
    rule: ThresholdRule | None = None
    alarm: Alarm | None = None
    launch: str = ""
    threads: ThreadChoice = field(default_factory=ThreadChoice)

    @property
    def family(self) -> str:
        """The kind of network."""
        return str(self.params["family"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one raw row."""
        return self.design.input_shape if self.front_end is None else self.front_end.input_shape

    @property
    def row_bytes(self) -> int:
        """Size of one raw row."""
        return math.prod(self.input_shape) * np.dtype(self.dtype).itemsize

    @property
    def time_ordered(self) -> bool:
        """Whether the rows are in time order, and validation, calibration and later rows are blocks of them."""
        return bool(self.params["time_ordered"])

    def split(self, count: int) -> Split:
        """How `count` rows, all that it is fitted to, are split."""
        return split(
            count,
            seed=self.drawn_seed,
            left_out=self.left_out,
            weights=self.sample_weight,
            row_bytes=self.row_bytes,
            **split_options(self.params),
        )

    @property
    def input_spec(self) -> InputSpec:
        """What is known of one row, as a bundle's manifest has it."""
        return InputSpec(
            self.input_shape, self.dtype, self.features, self.units, self.missing, self.dialect, self.signal
        )

    def extract(self, X: NDArray[Any]) -> NDArray[Any]:
        """What scaler and network take: features of raw rows, or the rows themselves without a front end."""
        return X if self.front_end is None else features(self.front_end, X)

    def encode(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Latents of raw rows: (n, *input_shape) to (n, latent)."""
        return self.encode_features(self.extract(X))

    def encode_features(self, F: NDArray[Any]) -> NDArray[np.float32]:
        """Latents of what `extract` gives, (n, *design.input_shape)."""
        return _in_blocks(self.network.encoder, F, self.scaler)

    def decode(self, Z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reconstructions in raw units, of features in theirs: (n, latent) to (n, *design.input_shape)."""
        return (_in_blocks(self.network.decoder, Z) * self.scaler.scale + self.scaler.mean).astype(np.float32)

    def reconstruction_error(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Mean squared reconstruction error of raw rows in scaled units: (n, *input_shape) to (n,)."""
        return _in_blocks(lambda x: (self.network(x) - x).square().flatten(1).mean(dim=1), self.extract(X), self.scaler)

    @property
    def scored_as(self) -> Scoring:
        """How rows are scored: by `scoring` or a part of it; by the mean squared error before there is one."""
        scoring = self.scoring or Scoring("mse", self.scaler.scale)
        return scoring if self.score_part is None else scoring.part(self.score_part, self.scaler.scale)

    def scores(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Anomaly scores of raw rows, higher is more anomalous: (n, *input_shape) to (n,)."""
        return self.score_features(self.extract(X))

    def score_features(self, F: NDArray[Any]) -> NDArray[np.float32]:
        """Anomaly scores of what `extract` gives, (n, *design.input_shape), to (n,)."""
        scoring = self.scored_as
        units = self.scaler.scale / scoring.scale

        def scored(rows: torch.Tensor) -> torch.Tensor:
            latent = self.network.encoder(rows)
            residual = rows - self.network.decoder(latent)
            return torch.from_numpy(scoring.combined(residual.numpy() * units, latent.numpy()))

        return _in_blocks(scored, F, self.scaler)

    @property
    def inflation(self) -> float:
        """What scores of the calibration rows are multiplied by, from 1."""
        return self.calibration_inflation.get(self.scored_as.kind, 1.0)

    def calibration_scores(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Scores of calibration rows (n, *input_shape), as if they had no say in the training, (n,)."""
        return (self.inflation * self.scores(X).astype(np.float64)).astype(np.float32)

    def summary(self) -> dict[str, Any]:
        """The training in a few numbers, for a bundle's manifest."""
        return {
            "rows": self.rows,
            "epochs": self.state.epoch,
            "best_epoch": self.state.best_epoch,
            "validation_loss": self.state.best_loss,
            "stopped": self.state.stopped,
            "loss": self.design.loss,
            "hidden": list(self.design.hidden),
            "activation": self.params["activation"],
            "normalization": self.design.normalization,
            "linear_path": self.design.linear_path,
            "scaling": self.scaler.kind,
            "channels": "last" if self.design.channels_last else "first",
            "seed": self.seed,
            "threads": self.state.threads or "unknown",
        }


@torch.inference_mode()
def _in_blocks(
    function: Callable[[torch.Tensor], torch.Tensor], X: NDArray[Any], scaler: Scaler | None = None
) -> NDArray[np.float32]:
    """Apply a torch function to rows, a block at a time, so that memory stays bounded.

    Blocks are filled up to whole tiles: matrix products round a single row, or the last few, differently, and a row's
    result should not depend on the others (scikit-learn compares to seven digits).
    """
    found = []
    for part in gen_batches(len(X), _BLOCK_ROWS):
        block = X[part] if scaler is None else scaler(X[part])
        tiles = -(-len(block) // _TILE_ROWS) * _TILE_ROWS
        rows = np.require(np.resize(block, (tiles, *block.shape[1:])), requirements=("C", "W"))
        found.append(function(torch.from_numpy(rows)).numpy()[: len(block)])
    return np.concatenate(found)
