"""Several runs as one page: what differs, which is better, and whether that can be said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from aeedge.table import human_bytes
from aeedge_export.alarms import rows_word
from aeedge_export.reporting import charts
from aeedge_export.reporting.axes import shortened_name
from aeedge_export.reporting.evaluation import parameters
from aeedge_export.reporting.figure import Plain
from aeedge_export.reporting.templates import template
from aeedge_export.reporting.verdict import comparison_with, detected, explained, health_of, loss_name, ratio
from aeedge_export.reporting.wording import date, duration, number, percent
from aeedge_export.run import Run

_LONGEST = 14  # characters of a name beside a curve
_ALIKE = 0.02  # of an error: less is no difference
_NEARLY = 0.05  # of a unit: losses that differ less in theirs are drawn over each other
_LEAST_ROWS = 20  # for an error on rows that no run was trained on

Value = Callable[[Run], float | None]


class Line(NamedTuple):
    """A line of the table: a name, a text for each run, and the indices of the best ones."""

    name: str
    texts: list[str]
    best: frozenset[int] = frozenset()


class Common(NamedTuple):
    """What runs have in common.

    Attributes:
        data: whether they were trained on the same rows.
        held_out: whether they were evaluated on the same ones of them.
        units: whether these were scaled alike.
    """

    data: bool
    held_out: bool
    units: bool

    @property
    def errors(self) -> bool:
        """Whether errors and losses can be compared as they are."""
        return self.data and self.held_out and self.units


def render(runs: Mapping[str, Run]) -> str:
    """The page of a comparison.

    Args:
        runs: at least two trained runs, by the names that the page shows.
    """
    found = list(runs.values())
    common = in_common(found)
    errors, rows = _errors(runs, common)
    return template("comparison.html").render(
        title=f"Comparison of {len(runs)} runs",
        names=list(runs),
        verdict=verdict(list(runs), errors, found),
        comparable=common.errors,
        said=said(runs, common, rows),
        lines=_results(found, common, errors, rows),
        settings=_settings(found),
        losses=_losses(runs, _least(errors)),
    )


def in_common(runs: list[Run]) -> Common:
    """Whether runs have data, held-out rows and units in common."""
    first, others = runs[0], runs[1:]
    data = first.fingerprint is not None and all(run.fingerprint == first.fingerprint for run in others)
    kept = first.split(first.rows).validation if data else None
    rows = kept is not None and all(np.array_equal(run.split(run.rows).validation, kept) for run in others)
    return Common(data, rows, all(_scaled_alike(first, run) for run in others))


def _scaled_alike(one: Run, other: Run, within: float = 1e-4) -> bool:
    """Whether two runs have the same units, up to a share of them."""
    ends = [None if run.front_end is None else run.front_end.document() for run in (one, other)]
    if one.design.input_shape != other.design.input_shape or ends[0] != ends[1]:
        return False
    shape, (scaler, its) = one.design.input_shape, (one.scaler, other.scaler)
    scale = np.broadcast_to(scaler.scale, shape)
    shifts = (scaler.mean - its.mean, scaler.scale - its.scale)
    return all(bool((np.abs(np.broadcast_to(shift, shape)) <= within * scale).all()) for shift in shifts)


def said(runs: Mapping[str, Run], common: Common, rows: int) -> str:
    """Whether errors can be compared, in a sentence; `rows` are those that they were computed again on, or 0."""
    (name, first), *others = runs.items()
    what = rows_word(first.signal)
    if silent := [one for one, run in runs.items() if run.fingerprint is None]:
        return f"Not known to be comparable: {_listed(silent)} did not record the data of the training"
    if not common.data:
        strange = [one for one, run in others if run.fingerprint != first.fingerprint]
        return (
            f"Not comparable: {_listed(strange)} had other data than {name}, so what each says counts for its own alone"
        )
    if common.errors:
        return f"Comparable: the same data, the same held-out {what}, errors in the same units"
    reasons = [] if common.held_out else [f"different held-out {what} (seed, split or goal differ)"]
    reasons += [] if common.units else ["different units (scaling or its rows differ)"]
    again = f"errors are compared on {rows:,} {what} that no run was trained on, scaled as in {name}"
    return f"The same data, but {_listed(reasons)}: {again if rows else 'their errors say little about each other'}"


def _errors(runs: Mapping[str, Run], common: Common) -> tuple[list[float] | None, int]:
    """Errors that can be compared, one for each run; None where there are none.

    Where scaling or held-out rows differ they are computed again on rows that no run was trained on, in the units of
    the first run; then the number of these rows is above 0.
    """
    found = list(runs.values())
    if common.errors and all("baseline" in run.evaluation for run in found):
        return [float(run.evaluation["baseline"][0]["error"]) for run in found], 0
    if not common.data or any(run.front_end is not None for run in found):
        return None, 0
    rows, first = np.unique(np.concatenate([run.sample_rows for run in found]), return_index=True)
    unseen = ~np.isin(rows, np.concatenate([run.split(run.rows).train for run in found]))
    if unseen.sum() < _LEAST_ROWS:
        return None, 0
    X, scale = np.concatenate([run.sample for run in found])[first[unseen]], found[0].scaler.scale
    return [float(np.square((X - run.decode(run.encode(X))) / scale).mean()) for run in found], len(X)


def verdict(names: list[str], errors: list[float] | None, runs: list[Run]) -> str:
    """Which run has the least error, in a sentence."""
    if errors is None:
        return "The errors of these runs cannot be compared."
    order = np.argsort(errors, kind="stable")
    best, second = int(order[0]), int(order[1])
    if not errors[second] or errors[best] > (1 - _ALIKE) * errors[second]:
        equal = [i for i in range(len(runs)) if errors[i] * (1 - _ALIKE) <= errors[best]]
        sizes = [parameters(runs[i].network) for i in equal]
        least = names[equal[int(np.argmin(sizes))]]
        smaller = f"; {least} is the smallest of them" if min(sizes) < max(sizes) else ""
        return f"{_listed([names[i] for i in equal])} have the least error, within {percent(_ALIKE)}{smaller}."
    latents = [runs[i].design.latent for i in (best, second)]
    counts = f" ({latents[0]} and {latents[1]} latents)" if latents[0] != latents[1] else ""
    text = comparison_with(names[second], errors[best] / errors[second])
    return f"{names[best]} is the best: {text}{counts}{_highest_auc(names, runs, best)}."


def _highest_auc(names: list[str], runs: list[Run], best: int) -> str:
    """Which other run tells the labelled anomalies best."""
    found = [run.evaluation.get("detection", {}).get("labels", {}).get("roc_auc") for run in runs]
    if any(auc is None for auc in found):
        return ""
    highest = int(np.argmax(found))
    return (
        f"; {names[highest]} finds anomalies best (ROC AUC {found[highest]:.3f})"
        if found[highest] > found[best]
        else ""
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _least(errors: list[float] | None) -> int | None:
    return None if errors is None else int(np.argmin(errors))


def _results(runs: list[Run], common: Common, errors: list[float] | None, again: int) -> list[Line]:
    """What came out, a line for each figure."""

    def line(name: str, of: Value, shown: Callable[[Any], str], better: int = 0) -> Line:
        values = [of(run) for run in runs]
        return Line(name, ["–" if value is None else shown(value) for value in values], _best(values, better))

    def baseline(run: Run, key: str) -> float | None:
        return run.evaluation["baseline"][0].get(key) if "baseline" in run.evaluation else None

    def labels(run: Run) -> dict[str, Any]:
        found: dict[str, Any] = run.evaluation.get("detection", {}).get("labels", {})
        return found

    same_latents = len({run.design.latent for run in runs}) == 1
    lines = [
        line("latents", lambda run: run.design.latent, str),
        line(
            "error, in own units",
            lambda run: baseline(run, "error"),
            _three,
            -1 if common.errors else 0,
        ),
        line("error, PCA with as many latents = 1", ratio, _three, -1 if same_latents and common.data else 0),
        line("variance kept", explained, percent, 1 if common.errors else 0),
        line("linear probe", lambda run: baseline(run, "probe"), percent, 1 if common.data and common.held_out else 0),
        line("ROC AUC", lambda run: labels(run).get("roc_auc"), "{:.3f}".format, 1 if common.data else 0),
        line("anomalies found", lambda run: detected(labels(run)) if "roc_auc" in labels(run) else None, percent),
        line("false alarms", lambda run: None if run.alarm is None else run.alarm.rate, percent),
        line(
            "threshold", lambda run: None if run.alarm is None else run.alarm.threshold, lambda value: number(value, 4)
        ),
        line("dead latents", lambda run: health_of(run)["dead"], str),
        line("effective rank", lambda run: health_of(run)["effective_rank"], "{:.1f}".format),
        line("size, fp32", lambda run: 4 * parameters(run.network), human_bytes, -1),
        line("multiply-adds", lambda run: baseline(run, "multiply_adds"), "{:,}".format, -1),
        line("training", lambda run: math.fsum(epoch.get("seconds", 0.0) for epoch in run.state.history), duration, -1),
        line("epochs", lambda run: run.state.epoch, "{:,}".format),
    ]
    if errors is not None and again:
        name = f"error on {again:,} {rows_word(runs[0].signal)} that no run was trained on"
        lines.insert(2, Line(name, [_three(error) for error in errors], _best(list(errors), -1)))
    if common.units:
        lines[1] = lines[1]._replace(name="error")
    return [one for one in lines if any(text != "–" for text in one.texts)]


def _three(value: float) -> str:
    return number(value, 3)


def _best(values: list[float | None], better: int) -> frozenset[int]:
    """The runs with the largest (1) or smallest (-1) value; none where all have it, or nothing is better (0)."""
    known = {value for value in values if value is not None and math.isfinite(value)}
    if not better or len(known) < 2:
        return frozenset()
    best = max(known) if better > 0 else min(known)
    return frozenset(i for i, value in enumerate(values) if value == best)


def _settings(runs: list[Run]) -> list[Line]:
    """The settings that differ, as they were resolved where that is known."""
    tables = [_settings_of(run) for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    lines = [Line(name, [table.get(name, "–") for table in tables]) for name in names]
    return [line for line in lines if len(set(line.texts)) > 1]


def _settings_of(run: Run) -> dict[str, str]:
    design = run.design
    resolved = {
        "family": run.family,
        "latent": design.latent,
        "hidden": "-".join(map(str, design.hidden)) or "none",
        "loss": design.loss,
        "output": design.output,
        "scaling": run.scaler.kind,
        "noise": ", ".join(f"{name} {strength:g}" for name, strength in run.noise) or "none",
        "normalization": design.normalization,
        "linear_path": "yes" if design.linear_path else "no",
        "seed": run.seed,
        "score": run.scored_as.kind,
        rows_word(run.signal): f"{run.rows:,}",
        "data": "unknown" if run.fingerprint is None else _data(run.fingerprint),
        "trained": date(run.created),
    }
    given = {name: value for name, value in run.params.items() if name not in resolved and name != "score_kind"}
    if design.options.get("strides"):
        given["strides"] = design.options["strides"]
    return {name.replace("_", " "): _setting(value) for name, value in (resolved | given).items()}


def _data(fingerprint: Mapping[str, Any]) -> str:
    shape = "×".join(map(str, fingerprint["shape"]))
    return f"{shape} {fingerprint['dtype']}, sha256 {fingerprint['sha256'][:8]}…"


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return (
        "none"
        if value is None
        else {True: "yes", False: "no"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    )


def _losses(runs: Mapping[str, Run], best: int | None) -> list[tuple[str, Markup]]:
    """Validation losses by epoch, a chart for each kind of loss and nearly the same units; without epochs a level."""
    groups: list[list[str]] = []
    for name, run in runs.items():
        for group in groups:
            other = runs[group[0]]
            if loss_name(run) == loss_name(other) and _scaled_alike(run, other, _NEARLY):
                group.append(name)
                break
        else:
            groups.append([name])
    strong = None if best is None else list(runs)[best]
    found = []
    for group in groups:
        short = {name: shortened_name(name, _LONGEST) for name in group}
        short = short if len(set(short.values())) == len(short) else {name: name for name in group}
        histories = {name: runs[name].state.history for name in group if runs[name].state.history}
        if not any(len(history) > 1 for history in histories.values()):
            continue
        curves = {
            short[name]: ([one["epoch"] for one in history], [one["validation_loss"] for one in history])
            for name, history in histories.items()
        }
        first = runs[group[0]]
        y = Plain(f"validation loss ({loss_name(first)})")
        marks = {short[name]: runs[name].state.best_epoch for name in histories}
        chart = charts.lines(
            curves,
            Plain("epoch"),
            y,
            f"{y.label} by epoch of {_listed(group)}",
            marks=marks,
            strong=short.get(strong or ""),
            whole=True,
            log=True,
        )
        found.append(
            (f"{loss_name(first)} in scaled units ({first.scaler.kind}); dots mark the epochs that were kept", chart)
        )
    return found
