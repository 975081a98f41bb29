"""Alarms of files: columns of scores, p-values, alarms and causes, and what is shown of them on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import SignalSpec
from aeedge.cli.reading import Result
from aeedge.detection.calibration import alarm_band
from aeedge.errors import InputError
from aeedge.files.writing import Layout
from aeedge.model import Model
from aeedge.table import columns, pairs

NO_ALARMS = "none, for the bundle has no calibration; give --threshold, or aeedge recalibrate it"
_CONTEXT = 40  # characters of a kept value in a table


class Detector:
    """Alarms of a model at the bundle's threshold or another one.

    Args:
        model: with or without a calibration.
        false_alarm_rate, threshold: in place of the bundle's threshold; None for that.
        top: how many causes of an alarm are named; None for one, where there can be alarms.

    Attributes:
        limit: the threshold; None where there is none.
        has_p_values: whether the model has a calibration.
        promises: whether the threshold is that of a false-alarm rate; of any other the rate is an estimate.
        top, listed_top: how many causes are named in a file, and in the lists of a summary.
        outputs: what of `aeedge.arrow.OUTPUTS` an archive gets.

    Raises:
        InputError: a rate or threshold that does not fit, causes without alarms.
        IncompatibleBundleError: a rate, and no calibration.
    """

    def __init__(self, model: Model, false_alarm_rate: float | None, threshold: float | None, top: int | None) -> None:
        self.model, self.has_p_values = model, model.calibration_size > 0
        self.limit: float | None = None
        if false_alarm_rate is not None and threshold is not None:
            raise InputError("expected --false-alarm-rate or --threshold, got both; leave one out")
        if self.has_p_values or false_alarm_rate is not None or threshold is not None:
            model.detect_iter((), false_alarm_rate=false_alarm_rate, threshold=threshold)  # refuses what does not fit
            given = threshold if false_alarm_rate is None else model.calibration.threshold(false_alarm_rate)
            self.limit = model.threshold if given is None else given
        if top and self.limit is None:
            raise InputError(
                "top: the bundle has no calibration, and so no alarms to name the causes of; give a threshold"
            )
        spec = model.manifest.calibration
        own = threshold is None and spec is not None and "false_alarm_rate" in spec.rule
        self.promises = own or false_alarm_rate is not None
        can_explain = self.limit is not None and model.has_decoder
        self.top = int(can_explain) if top is None else top
        self.listed_top = max(int(can_explain), self.top)
        self.outputs = ("score",) + ("p_value",) * self.has_p_values + ("alarm",) * (self.limit is not None)

    def p_values(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Conformal p-values (n,), NaN where a score is."""
        return self.model.calibration.p_value(scores)

    def alarms(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether scores (n,) are above the threshold; NaN is."""
        assert self.limit is not None
        return ~(scores <= np.float32(self.limit))

    def causes(self, samples: NDArray[Any], top: int) -> list[list[tuple[str, float]]]:
        """Names of the values that cause the scores of samples, and their shares of it, most first."""
        if not len(samples):
            return []
        found: Any = self.model.explain(samples, top=top, invalid="propagate")
        return [[(cause.name, float(f"{cause.share:.4g}")) for cause in causes] for causes in found]

    def layout(self, keep: Mapping[str, str]) -> Layout:
        """The columns of `table`; `keep`: kinds of those that are kept."""
        kinds = dict(keep)
        found = {"score": "<f4"} | ({"p_value": "<f8"} if self.has_p_values else {})
        found |= {} if self.limit is None else {"alarm": "|b1"}
        for i in range(1, self.top + 1):
            found |= {f"cause_{i}": "text", f"share_{i}": "number"}
        twice = next((name for name in keep if name in found), None)
        if twice is not None:
            raise InputError(f"keep: a column of the result is called '{twice}', too; rename the input's")
        kinds |= found
        return Layout(list(kinds), list(kinds.values()), () if len(kinds) == 1 else None)

    def table(self, found: Result) -> Any:
        """What is written of some rows: the scores alone, or a list of columns."""
        scores = found.values
        added: list[Any] = [self.p_values(scores)] if self.has_p_values else []
        if self.limit is not None:
            alarms = self.alarms(scores)
            added.append(alarms)
            causes: list[list[Any]] = [[None] * len(scores) for _ in range(2 * self.top)]
            if self.top:
                for i, named in zip(np.flatnonzero(alarms), self.causes(found.samples[alarms], self.top)):
                    for place, value in enumerate(value for cause in named for value in cause):
                        causes[place][i] = value
            added += causes
        return [*found.kept, scores, *added] if found.kept or added else scores


class Scored(NamedTuple):
    """A row that is shown: its number, what is kept of it, its score, and the sample."""

    number: int
    kept: list[Any]
    score: float
    sample: NDArray[Any]


class Tally:
    """Counts of scores and alarms, and the rows to show, from blocks of results.

    Args:
        detector: whose alarms are counted.
        most: rows that are kept: the highest scores, the first alarms, the first rows.

    Attributes:
        count, alarms, unscored: numbers of rows, of alarms, and of rows whose score is NaN.
        scores: all scores, block by block.
        highest, first_alarms, first: rows.
    """

    def __init__(self, detector: Detector, most: int) -> None:
        self._detector, self._most = detector, most
        self.count = self.alarms = self.unscored = 0
        self.scores: list[NDArray[np.float32]] = []
        self.highest: list[Scored] = []
        self.first_alarms: list[Scored] = []
        self.first: list[Scored] = []

    def add(self, found: Result) -> None:
        """Count some rows."""
        scores = found.values
        self.count += len(scores)
        self.unscored += int(np.isnan(scores).sum())
        self.scores.append(scores)
        highest = np.argsort(-scores, kind="stable")[: self._most]  # NaN last
        self.highest = sorted([*self.highest, *self._rows(found, highest)], key=_by_score)[: self._most]
        self.first += self._rows(found, np.arange(len(scores))[: self._most - len(self.first)])
        if self._detector.limit is not None:
            alarms = np.flatnonzero(self._detector.alarms(scores))
            self.alarms += len(alarms)
            self.first_alarms += self._rows(found, alarms[: self._most - len(self.first_alarms)])

    @staticmethod
    def _rows(found: Result, places: NDArray[np.intp]) -> list[Scored]:
        return [
            Scored(
                int(found.numbers[i]),
                [column[i] for column in found.kept],
                float(found.values[i]),
                found.samples[i].copy(),
            )
            for i in places
        ]


def _by_score(row: Scored) -> float:
    return np.inf if np.isnan(row.score) else -row.score


def shown(detector: Detector, keep: Iterable[str], rows: Sequence[Scored], top: int, are_alarms: bool = False) -> str:
    """Rows as a table on the terminal; of a list of alarms it is not said of each that it is one."""
    scores, digits = np.array([row.score for row in rows], np.float32), 4 if are_alarms else 6
    cells = [[str(row.number), *(_short(value) for value in row.kept), f"{row.score:.{digits}g}"] for row in rows]
    head = ["row" if are_alarms else "row (from 0)", *keep, "score"]
    if detector.has_p_values:
        head.append("p-value")
        cells = [[*line, f"{p:.2g}"] for line, p in zip(cells, detector.p_values(scores))]
    if detector.limit is not None:
        alarms = detector.alarms(scores)
        if not are_alarms:
            head.append("alarm")
            cells = [[*line, "yes" if alarm else ""] for line, alarm in zip(cells, alarms)]
        if top and alarms.any():
            head.append("cause")
            samples = np.stack([row.sample for row, alarm in zip(rows, alarms) if alarm])
            named: Iterator[str] = (
                ", ".join(f"{name} {share:.0%}" for name, share in causes) for causes in detector.causes(samples, top)
            )
            cells = [[*line, next(named) if alarm else ""] for line, alarm in zip(cells, alarms)]
    return columns(head, cells)


def _short(value: Any) -> str:
    text = "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _CONTEXT else text[:_CONTEXT] + "…"


def quantiles(scores: Sequence[NDArray[np.float32]]) -> str:
    """The median and two high quantiles of the scores that are finite."""
    finite = np.concatenate(scores)
    finite = finite[np.isfinite(finite)]
    median, high, highest = np.quantile(finite, [0.5, 0.9, 0.99]) if len(finite) else [np.nan] * 3
    return f"median {median:.4g}, 90 % {high:.4g}, 99 % {highest:.4g}"


def summary(detector: Detector, keep: Iterable[str], tally: Tally, signal: SignalSpec | None = None) -> str:
    """Counts, the rate of alarms against the promised one, and the first and worst alarms.

    `signal`: what rows are windows of that were cut at its hop; None for other rows.
    """
    lines = [("rows" if signal is None else "windows", f"{tally.count:,}"), ("scores", quantiles(tally.scores))]
    if tally.unscored:
        lines.append(("not scored", f"{tally.unscored:,}, for missing values, NaN or infinity; they count as alarms"))
    if detector.limit is None:
        lines.append(("alarms", NO_ALARMS))
        return pairs(lines, 80)
    rate = tally.alarms / tally.count
    lines.append(("alarms", f"{tally.alarms:,} ({100 * rate:.3g} %) above {detector.limit:.6g}"))
    lines += promised(detector, tally.count, tally.alarms, signal) if detector.has_p_values else []
    parts = [pairs(lines, 80)]
    if tally.alarms:
        worst = [row for row in tally.highest if row.score > np.float32(detector.limit)]
        for title, rows in (("first alarms", tally.first_alarms), ("worst alarms", worst)):
            listed = shown(detector, keep, rows, detector.listed_top, are_alarms=True)
            parts.append(f"{title} (rows are counted from 0)\n{listed}")
    return "\n\n".join(parts)


def promised(detector: Detector, rows: int, alarms: int, signal: SignalSpec | None) -> list[tuple[str, str]]:
    """The rate of alarms that the calibration promises for normal rows, and whether it was kept.

    Windows that overlap raise alarms together: they vary as much as so many that share no sample.
    """
    calibration, spec, what = detector.model.calibration, detector.model.manifest.calibration, "rows"
    assert detector.limit is not None
    rate, calibrated, count, overlap = calibration.rate(detector.limit), calibration.count, rows, 1.0
    if signal is not None:
        what, overlap = "windows", max(1.0, signal.window / signal.hop)
        spacing = spec.spacing if spec is not None and spec.spacing is not None else 1.0
        calibrated = max(1, round(calibrated / max(1.0, overlap / spacing)))
        count = max(1, round(count / overlap))
    low, high = (round(overlap * limit) for limit in alarm_band(rate, calibrated, count))
    chance = "99 % of the time" + (
        f"; they overlap, and vary as {count:,} do that share no sample" if overlap > 1 else ""
    )
    found = f"{100 * rate:.3g} % of normal {what}: {low:,} to {min(high, rows):,} of {rows:,} ({chance})"
    word = "promised" if detector.promises else "expected"
    if alarms > high:
        verdict = f"more than {word}: drift, or anomalies"
    elif alarms < low:
        verdict = f"fewer than {word}: these {what} are not like the calibration {what}"
    else:
        verdict = f"as {word}, within what chance explains with {calibration.count:,} calibration {what}"
    lines = [(word, found), ("", verdict)]
    drift = {} if spec is None else spec.drift
    if drift.get("drift") is True and detector.limit == detector.model.threshold:
        known = f"{drift.get('alarms')} of {drift.get('rows')} rows that came later raised an alarm"
        chance = f"chance explains {drift.get('low')} to {drift.get('high')}"
        lines.append(("drift", f"when the bundle was made {known}, {chance}: the promise may not hold"))
    return lines
