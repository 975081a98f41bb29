"""The half of the estimator that detects anomalies: scores, thresholds, and scikit-learn's outlier detectors."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from aeedge.detection.calibration import ThresholdRule
from aeedge.errors import InputError
from aeedge_export.alarms import set_alarm
from aeedge_export.arguments import as_samples
from aeedge_export.data.rows import fingerprint, kept_rows, most_calibration
from aeedge_export.run import Run


class Detector(OutlierMixin):  # type: ignore[misc]
    """What `Autoencoder` detects anomalies with; see there."""

    run_: Run
    score_kind: str

    def _validated(self, X: ArrayLike, *, fit: bool) -> NDArray[Any]:
        raise NotImplementedError

    def _adopt(self, run: Run) -> Any:
        raise NotImplementedError

    def reconstruction_error(self, X: ArrayLike) -> NDArray[np.float32]:
        """Mean squared reconstruction error of each raw row in scaled units, (n_samples,)."""
        check_is_fitted(self)
        return self.run_.reconstruction_error(self._validated(X, fit=False))

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """The negative of the device's `score`: (n_samples, ...) to (n_samples,).

        As for scikit-learn's outlier detectors, lower is more anomalous.
        """
        check_is_fitted(self)
        return -self.run_.scores(self._validated(X, fit=False)).astype(np.float64)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The negative of the mean reconstruction error, for model selection: higher is better."""
        return -float(self.reconstruction_error(X).mean())

    def calibrate(
        self,
        X: ArrayLike | None = None,
        *,
        false_alarm_rate: float | None = None,
        quantile: float | None = None,
        threshold: float | None = None,
        contamination: float = 0.0,
    ) -> Detector:
        """Set the threshold by rows of normal operation that had no say in the training.

        The score may be changed before, `set_params(score_kind=…)`, from "both" to a part of it, or to "mse".

        Args:
            X: such rows (n_samples, ...), of which at most 4 096 are kept; None for those of the last time, at first
                those that `fit` held out.
            false_alarm_rate: the largest share of normal rows that may raise an alarm: guaranteed by split conformal
                prediction where rows are exchangeable (see `aeedge.detection.calibration`). Default: 0.01, or the
                smallest that so few rows support.
            quantile: instead, the quantile of the scores that is the threshold.
            threshold: instead, a score (of fp32; int8 raises as many alarms).
            contamination: the share of these rows that may be anomalous, 0 to 0.5: as many are left out first.

        Raises:
            InputError: no rows, rows of another shape, more than one rule, or a rate that needs more rows.
        """
        check_is_fitted(self)
        rule = ThresholdRule(false_alarm_rate, quantile, threshold, contamination)
        evaluation = {name: found for name, found in self.run_.evaluation.items() if name != "detection"}
        run = replace(self.run_, rule=None if rule == ThresholdRule() else rule.checked(), evaluation=evaluation)
        run.score_part = None if self.score_kind == "auto" else self.score_kind
        if X is not None:
            rows = self._validated(X, fit=False)
            if run.fingerprint == fingerprint(rows, run.dtype):
                warnings.warn("X: these rows were trained on, so no false-alarm rate holds", UserWarning, stacklevel=2)
            kept = kept_rows(np.arange(len(rows)), most_calibration(run.row_bytes), run.drawn_seed, time_ordered=False)
            run.calibration, run.later = as_samples(rows[kept], run.input_spec, "X"), None
            run.calibration_given, run.calibration_left_out, run.calibration_inflation = True, 0, {}
        elif run.calibration is None:
            raise InputError("X: expected rows of normal operation, for fit held none out; pass calibrate(X)")
        set_alarm(run)
        for name in ("decision_scores_", "labels_"):  # of another threshold
            self.__dict__.pop(name, None)
        self._adopt(run)
        return self

    @property
    def offset_(self) -> float:
        """What `decision_function` subtracts from `score_samples`: the negative of the threshold.

        Without calibration rows the highest score of the held-out rows is the threshold: no rate is promised.
        """
        check_is_fitted(self)
        run = self.run_
        threshold = run.scores(run.sample).max() if run.alarm is None else np.float32(run.alarm.threshold)
        return -float(threshold)  # of float32, as the device compares

    @property
    def threshold_(self) -> float:
        """The threshold of the device's score, above which a row is anomalous (PyOD's name)."""
        return -self.offset_

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """`score_samples(X) - offset_`: below 0 is anomalous, (n_samples,)."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """+1 for normal rows, -1 for anomalous ones, (n_samples,); the device's `detect` is True for these."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X: ArrayLike, y: object = None, **fit_params: Any) -> NDArray[np.int64]:
        """`fit`, then `predict` of the same rows.

        Sets PyOD's `decision_scores_` (higher is more anomalous) and `labels_` (1 is anomalous) too.
        """
        self.fit(X, **fit_params)
        self.decision_scores_ = -self.score_samples(X)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return np.where(self.labels_ == 1, -1, 1)
