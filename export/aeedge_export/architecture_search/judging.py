"""Which rows select and which judge, and how good a bundle is on them, as the device runtime computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import aeedge
from aeedge.errors import InputError
from aeedge_export.data.labels import UNLABELLED, anomalous_class
from aeedge_export.data.windows import windows_per_span
from aeedge_export.run import Run

OBJECTIVES = ("error", "auc", "probe")
_JUDGING = 0.15  # share of the rows
_MOST_ROWS = 50_000  # that a search works on
_LEAST = 20  # rows to select with, and to judge with
_PROBE_ROWS, _JUDGED_ROWS = 5000, 10_000
_MOST_CLASSES = 50


@dataclass(frozen=True)
class Parts:
    """What rows are for.

    Attributes:
        objective: "error", "auc" or "probe".
        fitted: indices of the rows that candidates are fitted to; each holds out some of them, its validation rows.
        judging: indices of the rows that judge in the end, and have no say in anything else.
        anomalous: for "auc", indices of anomalous rows that select, and that judge.
        anomaly: the class that counts as anomalous.
    """

    objective: str
    fitted: NDArray[np.intp]
    judging: NDArray[np.intp]
    anomalous: tuple[NDArray[np.intp], NDArray[np.intp]] = (np.zeros(0, np.intp), np.zeros(0, np.intp))
    anomaly: str = ""


def parts_of(
    X: NDArray[Any], labels: NDArray[Any] | None, objective: str, *, seed: int, span: int | None, time_ordered: Any
) -> Parts:
    """Split rows: the last ones judge where rows are in time order, otherwise some at random.

    Args:
        X: rows (n, *shape).
        labels: a class for each row, None without.
        objective: one of OBJECTIVES, or "auto": "auc" where labels have two classes of which one is anomalous by its
            name or rare, "probe" with other labels, "error" without.
        seed: for the split.
        span: how many rows on the first one is that shares no sample with a row; None to find out.
        time_ordered: True, False, or "auto" for whether rows overlap.

    Raises:
        InputError: labels that the objective needs are missing or do not fit, or too few rows.
    """
    objective, anomaly = _objective(objective, labels)
    span = windows_per_span(X) if span is None else span
    if time_ordered == "auto":
        time_ordered = span > 0
    normal, bad = np.arange(len(X)), np.zeros(0, np.intp)
    if objective == "auc":
        assert labels is not None
        texts = labels.astype(str)
        normal, bad = np.flatnonzero((texts != anomaly) & (texts != UNLABELLED)), np.flatnonzero(texts == anomaly)
    order = normal if time_ordered else np.random.default_rng([seed, 1]).permutation(normal)
    order = order[-_MOST_ROWS:]
    judging = max(_LEAST, round(_JUDGING * len(order)))
    kept = len(order) - judging
    fitted = order[: kept - (max(span, 1) if time_ordered else 0)]
    if len(fitted) < 5 * _LEAST:
        raise InputError(
            f"X: expected {7 * _LEAST} {'normal ' if objective == 'auc' else ''}rows or more, of which some train, "
            f"some select and {judging} judge, got {len(normal)}"
        )
    half = len(bad) // 2
    anomalous = (bad[:half], bad[half:]) if time_ordered else (bad[0::2], bad[1::2])
    return Parts(objective, np.sort(fitted), np.sort(order[kept:]), anomalous, anomaly)


def _objective(asked: str, labels: NDArray[Any] | None) -> tuple[str, str]:
    """The objective, and the class that is anomalous."""
    if asked not in ("auto", *OBJECTIVES):
        raise InputError(f"objective: expected auto, {', '.join(OBJECTIVES)}, got {asked!r}")
    if labels is None or asked == "error":
        if asked in ("auc", "probe"):
            raise InputError(f"objective: {asked!r} needs labels, got none; give a class for each row")
        return "error", ""
    classes, counts = np.unique(labels[labels.astype(str) != UNLABELLED].astype(str), return_counts=True)
    anomaly = anomalous_class(classes.tolist(), counts.tolist()) or ""
    if asked == "auc" or (asked == "auto" and anomaly):
        if not anomaly:
            raise InputError(f"labels: expected two classes for objective 'auc', one anomalous, got {len(classes)}")
        if counts[classes.tolist().index(anomaly)] < 4:
            raise InputError("labels: expected four anomalous rows or more, two to select and two to judge, got fewer")
        return "auc", anomaly
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise InputError(f"labels: expected 2 to {_MOST_CLASSES} classes for a probe, got {len(classes)}")
    return "probe", ""


@dataclass(frozen=True)
class Judge:
    """Losses of candidates: squared error in scaled units, 1 - ROC AUC, or 1 - accuracy of a linear probe.

    Attributes:
        X: all rows.
        labels: of all rows, None without.
        parts: what they are for.
    """

    X: NDArray[Any]
    labels: NDArray[Any] | None
    parts: Parts

    def selection(self, run: Run) -> NDArray[np.intp]:
        """Indices of the rows that select: those that the run held out to choose its weights."""
        return self.parts.fitted[run.split(len(self.parts.fitted)).validation]

    def losses(self, bundle: Path, run: Run) -> tuple[float, float]:
        """Loss on the selecting rows and on the judging rows, by the device runtime."""
        with aeedge.load(bundle, threads=1) as model:
            fitted = self.parts.fitted[run.split(len(self.parts.fitted)).train]
            selecting, judging = self.selection(run), self.parts.judging
            if self.parts.objective == "error":
                return self._error(model, run, selecting), self._error(model, run, judging)
            if self.parts.objective == "auc":
                first, second = self.parts.anomalous
                return self._auc(model, selecting, first), self._auc(model, judging, second)
            one, two = self._probe(model.encode, fitted, (selecting, judging))
            return one, two

    def probe(self, run: Run, latents: int) -> float | None:
        """Accuracy of a linear probe on a run's first latents of the selecting rows; None without labels."""
        if self.labels is None:
            return None
        fitted = self.parts.fitted[run.split(len(self.parts.fitted)).train]
        return 1 - self._probe(lambda rows: run.encode(rows)[:, :latents], fitted, (self.selection(run),))[0]

    def _rows(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return self.X[_spread(indices, _JUDGED_ROWS)]

    def _error(self, model: aeedge.Model, run: Run, indices: NDArray[np.intp]) -> float:
        rows = self._rows(indices)
        residual = (run.extract(rows) - model.reconstruct(rows)) / run.scaler.scale
        return float(np.square(residual, dtype=np.float64).mean())

    def _auc(self, model: aeedge.Model, normal: NDArray[np.intp], anomalous: NDArray[np.intp]) -> float:
        scores = [model.score(self._rows(part)) for part in (normal, anomalous)]
        truth = np.repeat([0, 1], [len(part) for part in scores])
        return 1 - float(roc_auc_score(truth, np.concatenate(scores)))

    def _probe(
        self,
        encode: Callable[[NDArray[Any]], NDArray[np.float32]],
        fitted: NDArray[np.intp],
        judged: Sequence[NDArray[np.intp]],
    ) -> list[float]:
        """1 - accuracy on each of several parts of the rows."""
        latents, classes = self._encoded(encode, _spread(fitted, _PROBE_ROWS))
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(latents, classes)
        return [1 - float(probe.score(*self._encoded(encode, _spread(part, _JUDGED_ROWS)))) for part in judged]

    def _encoded(
        self, encode: Callable[[NDArray[Any]], NDArray[np.float32]], indices: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Latents and classes of the rows that have one."""
        assert self.labels is not None
        classes = self.labels[indices].astype(str)
        known = classes != UNLABELLED
        return encode(self.X[indices[known]]).reshape(int(known.sum()), -1), classes[known]


def _spread(indices: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    chosen: NDArray[np.intp] = indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)]
    return chosen
