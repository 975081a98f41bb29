"""The scores of the Numenta Anomaly Benchmark (Lavin and Ahmad, "Evaluating real-time anomaly detection algorithms: the
Numenta Anomaly Benchmark", 2015), standard profile: what its own scorer computes, in numpy.

A detection counts once per window, more where it is early; one outside of all windows costs little soon after a window
and more later. One threshold for all files is chosen for the best sum. 0 is a detector that finds nothing, 100 one that
finds each window at its first row and raises no false alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE = 1.0, 1.0, 0.11  # standard profile; a true negative's weight is not used
Floats = NDArray[np.float64]
Window = tuple[int, int]  # first and last row


@dataclass(frozen=True)
class Scored:
    """A file with a detector's scores.

    Attributes:
        name: for people.
        scores: of each row, (n,), higher is more anomalous.
        windows: of anomalies, in order.
        probation: rows at the start that do not count.
        days: that the file spans, for rates.
        seconds: of each row since the first, (n,).
    """

    name: str
    scores: Floats
    windows: list[Window]
    probation: int
    seconds: Floats


@dataclass(frozen=True)
class Outcome:
    """What a threshold gives over files.

    Attributes:
        score: normalised, 100 is perfect.
        threshold: the best one; a row whose score is at least as large is a detection.
        found, windows: how many.
        false_alarms: rows outside of all windows that are detections.
        days: that count, without probation.
        delay: median of the rows from a window's start to its first detection, divided by its length.
    """

    score: float
    threshold: float
    found: int
    windows: int
    false_alarms: int
    days: float
    delay: float


def probationary(rows: int) -> int:
    """Rows at the start that do not count: 15 %, at most 750."""
    return int(min(0.15 * rows, 0.15 * 5_000))


def sigmoid(position: NDArray[np.float64] | float) -> Floats:
    """1 well before the end of a window, 0 at its end, -1 well behind it; positions in lengths of a window."""
    at = np.asarray(position, dtype=np.float64)
    return np.where(at > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(at, 3))) - 1)


def row_weights(rows: int, windows: list[Window]) -> tuple[Floats, NDArray[np.int64]]:
    """What a detection at each row is worth, and in which window it is, -1 for none."""
    weights, inside = np.full(rows, -FALSE_POSITIVE), np.full(rows, -1)
    for first, last in windows:
        width = last - first + 1
        weights[last + 1 :] = FALSE_POSITIVE * sigmoid(np.arange(1, rows - last) / max(width - 1, 1))
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        at = np.arange(first, last + 1)
        weights[first : last + 1] = TRUE_POSITIVE * sigmoid(-(last - at + 1) / width) / sigmoid(-1.0)
        inside[first : last + 1] = number
    return weights, inside


def gains(file: Scored) -> tuple[Floats, Floats]:
    """Scores of rows that count, descending, and what each adds to the sum once it becomes a detection."""
    weights, inside = row_weights(len(file.scores), file.windows)
    order = np.argsort(-file.scores, kind="stable")
    order = order[order >= file.probation]
    added = np.where(inside[order] < 0, weights[order], 0.0)
    for number in range(len(file.windows)):
        rows = np.flatnonzero(inside[order] == number)
        if len(rows):
            best = np.maximum.accumulate(weights[order[rows]])
            added[rows] = np.diff(best, prepend=-FALSE_NEGATIVE)
    return file.scores[order], added


def best_outcome(files: list[Scored]) -> Outcome:
    """The best threshold for all files, and what it gives."""
    parts = [gains(file) for file in files]
    scores, added = (np.concatenate(column) for column in zip(*parts))
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(added[order])
    last = np.append(np.flatnonzero(np.diff(scores) != 0), len(scores) - 1)  # of rows with equal scores
    best = last[int(np.argmax(total[last]))]
    if total[best] <= 0:
        return outcome(files, np.inf)
    return outcome(files, float(scores[best]))


def outcome(files: list[Scored], threshold: float) -> Outcome:
    """What a threshold gives."""
    total, found, windows, false_alarms, days = 0.0, 0, 0, 0, 0.0
    delays = []
    for file in files:
        scores, added = gains(file)
        total += float(added[scores >= threshold].sum())
        _, inside = row_weights(len(file.scores), file.windows)
        raised = np.flatnonzero(file.scores >= threshold)
        raised = raised[raised >= file.probation]
        false_alarms += int((inside[raised] < 0).sum())
        for number, (first, last) in enumerate(file.windows):
            windows += 1
            hits = raised[inside[raised] == number]
            if len(hits):
                found += 1
                delays.append((int(hits[0]) - first) / (last - first + 1))
        days += float(file.seconds[-1] - file.seconds[file.probation]) / 86_400
    perfect = (TRUE_POSITIVE + FALSE_NEGATIVE) * windows
    score = 100 * total / perfect if windows else 0.0
    return Outcome(score, threshold, found, windows, false_alarms, days, float(np.median(delays)) if delays else np.nan)
