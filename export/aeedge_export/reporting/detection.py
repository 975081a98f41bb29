"""How a run detects anomalies: scores of normal rows, the worst rows and why, and with labels what is found.

Computed while the rows are at hand, and kept with the run for its report.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.utils import gen_batches

from aeedge.detection.calibration import Calibration
from aeedge.detection.explain import Cause, Explainer, FeatureExplainer
from aeedge.errors import printable
from aeedge_export.alarms import described_drift, rows_word
from aeedge_export.data.axes import channels_first
from aeedge_export.data.labels import UNLABELLED, anomalous_class
from aeedge_export.reporting.pictures import of_residual
from aeedge_export.run import Run

_BLOCK_ROWS, _MOST_ROWS, _WORST, _CAUSES, _BINS, _CURVE = 4096, 200_000, 10, 3, 40, 60
_LEAST_OF_A_CLASS = 5  # held-out rows, for rates to say something


def detection(
    run: Run, X: NDArray[Any], labels: NDArray[Any] | None = None, held_out: NDArray[np.intp] | None = None
) -> dict[str, Any]:
    """Measure a trained run on rows.

    Args:
        run: with its scoring.
        X: raw rows (n, *shape).
        labels: a class for each row, (n,).
        held_out: indices of the rows that had no say in the training; None for all. Labels are compared with these
            alone, unless there are too few of a class.

    Returns:
        "rows" measured; "worst": a list of the highest scores with "row", "score", "p_value" (None without
        calibration), "causes" and what `pictures.of_residual` shows; with labels "labels", see `_against_labels`.
    """
    rows = np.linspace(0, len(X) - 1, min(len(X), _MOST_ROWS)).astype(np.intp)
    scores = np.concatenate([run.scores(X[rows[part]]) for part in gen_batches(len(rows), _BLOCK_ROWS)])
    found: dict[str, Any] = {"rows": len(rows)}
    known = None if run.calibration is None else Calibration(run.calibration_scores(run.calibration))
    worst = np.argsort(-scores, kind="stable")[:_WORST]
    shown = X[rows[worst]]
    causes: Any = explainer(run)(shown, _CAUSES, "raise")
    last = run.design.channels_last
    pairs = [channels_first(part, last) for part in (run.extract(shown), run.decode(run.encode(shown)))]
    scale = channels_first(np.broadcast_to(run.scored_as.scale, (1, *run.design.input_shape)), last)[0]
    if run.front_end is not None:  # features are shown as a curve
        pairs, scale = [part[:, np.newaxis] for part in pairs], scale[np.newaxis]
    found["worst"] = [
        {
            "row": int(rows[i]),
            "score": _short(scores[i]),
            "p_value": None if known is None else _short(known.p_value(scores[i])),
            "causes": [_document(cause) for cause in why],
            **of_residual(row, back, scale, run.features),
        }
        for i, why, row, back in zip(worst, causes, *pairs)
    ]
    if labels is not None:
        compared = _against_labels(run, scores, np.asarray(labels)[rows].astype(str), rows, held_out)
        found |= {} if compared is None else {"labels": compared}
    return found


INFLATED = (
    "what the highest score of another such stretch stays below in 9 of 10 cases; so short a recording promises no "
    "false-alarm rate"
)
"""What a threshold by cross-validation means."""


def described(run: Run) -> list[str]:
    """What is to know of the alarms of a run, in a few lines."""
    alarm, labels = run.alarm, run.evaluation.get("detection", {}).get("labels", {})
    rows = rows_word(run.signal)
    if alarm is None:
        lines = [f"score {run.scored_as.kind}; no threshold, for no {rows} were held out to calibrate it"]
    else:
        promised = f"a false-alarm rate of {100 * alarm.rate:.3g} %, from {alarm.rows:,} calibration {rows}"
        if run.inflation > 1:
            promised = INFLATED
        lines = [
            f"score {run.scored_as.kind}, threshold {alarm.threshold:.4g}: {promised}"
            + (f" ({run.calibration_left_out:,} with gross outliers left out)" if run.calibration_left_out else "")
        ]
        if alarm.drift and not alarm.drift["drift"]:
            lines.append(described_drift(alarm.drift, rows))
    if labels and "roc_auc" not in labels:
        lines.append(
            f"labels: {len(labels['classes'])} classes, so no ROC AUC, which needs two; alarms by class in the report"
        )
    if "roc_auc" in labels:
        lines.append(
            f"labels: class '{printable(labels['anomalous'])}' counts as anomalous; ROC AUC {labels['roc_auc']:.3f}, "
            f"PR AUC {labels['pr_auc']:.3f} on {labels['rows']:,} {labels['which']}"
        )
    return lines


def explainer(run: Run) -> Explainer | FeatureExplainer:
    """What explains rows with the torch network, as `aeedge.Model.explain` does with the exported one."""

    def score(rows: NDArray[Any], invalid: str = "raise") -> NDArray[np.float32]:
        return run.scores(rows)

    def denoise(rows: NDArray[Any], invalid: str = "raise") -> NDArray[np.float32]:
        return run.decode(run.encode(rows))

    def features(rows: NDArray[Any], invalid: str = "raise") -> NDArray[np.float32]:
        return run.extract(rows)

    typical = np.median(run.sample, axis=0)
    if run.front_end is not None:
        names = run.front_end.names
        return FeatureExplainer(run.input_spec, names, run.scored_as.scale, typical, features, denoise)
    return Explainer(run.input_spec, run.scored_as.scale, typical, run.design.channels_last, score, denoise)


def _against_labels(
    run: Run,
    scores: NDArray[np.float32],
    labels: NDArray[Any],
    rows: NDArray[np.intp],
    held_out: NDArray[np.intp] | None,
) -> dict[str, Any] | None:
    """Detection measured by labels; None where there are none.

    Returns:
        "rows" compared, and "which" these are; "classes": a list of dicts with "name",
        "rows" and, with a threshold, "alarms"; for two classes also "anomalous": the class that counts as such,
        "roc_auc", "pr_auc" (average precision), and "curve": "false_alarm_rate" and "detection_rate" by threshold.
    """
    known = labels != UNLABELLED
    names, counts = np.unique(labels[known], return_counts=True)
    apart = known if held_out is None else known & np.isin(rows, held_out)
    if not len(names):
        return None
    of_held_out = {name: int((labels[apart] == name).sum()) for name in names}
    enough = min(of_held_out.values()) >= _LEAST_OF_A_CLASS
    which = rows_word(run.signal)
    if held_out is not None:
        which = f"held-out {which}" if enough else f"{which}, most of which were trained on"
    chosen = apart if enough else known
    scores, labels = scores[chosen], labels[chosen]
    found: dict[str, Any] = {"rows": len(scores), "which": which, "classes": []}
    for name in names[:50].tolist():
        of_class = labels == name
        alarms = {} if run.alarm is None else {"alarms": int((scores[of_class] > run.alarm.threshold).sum())}
        found["classes"].append({"name": name, "rows": int(of_class.sum()), **alarms})
    anomalous = anomalous_class(names.tolist(), counts.tolist())
    if anomalous is None:
        return found
    truth = labels == anomalous
    false_alarms, detected, _ = roc_curve(truth, scores)
    step = np.unique(np.linspace(0, len(detected) - 1, _CURVE).astype(int))
    return found | {
        "anomalous": anomalous,
        "roc_auc": _short(roc_auc_score(truth, scores)),
        "pr_auc": _short(average_precision_score(truth, scores)),
        "curve": {
            "false_alarm_rate": [_short(value) for value in false_alarms[step]],
            "detection_rate": [_short(value) for value in detected[step]],
        },
    }


def histogram(scores: NDArray[np.float32]) -> dict[str, Any]:
    """Counts of scores, sorted, between edges that are evenly spaced in their logarithm."""
    low = max(float(scores[0]), 1e-6 * float(scores[-1]), 1e-30)
    edges = np.geomspace(low, max(float(scores[-1]), low * 1.01), min(_BINS, max(5, len(scores) // 5)) + 1)
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return {"edges": [_short(edge) for edge in edges], "counts": counts.tolist()}


def _document(cause: Cause) -> dict[str, Any]:
    numbers = {name: _short(getattr(cause, name)) for name in ("share", "residual", "actual", "expected")}
    return {"name": cause.name, "index": list(cause.index), **numbers}


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")
