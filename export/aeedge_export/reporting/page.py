"""A run as one self-contained HTML page: no script, no link, light and dark, readable on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from aeedge.bundle.manifest import Manifest
from aeedge_export.alarms import rows_word
from aeedge_export.data.axes import channels_first
from aeedge_export.reporting import charts, features
from aeedge_export.reporting.axes import shortened_name
from aeedge_export.reporting.detection import described, histogram
from aeedge_export.reporting.evaluation import against_pca
from aeedge_export.reporting.figure import Plain
from aeedge_export.reporting.pictures import image_shape, png
from aeedge_export.reporting.templates import template
from aeedge_export.reporting.verdict import detected, health_of, held_out, loss_name, tiles, verdict
from aeedge_export.reporting.wording import date, duration, number, percent
from aeedge_export.run import STOPPED, Run
from aeedge_export.versions import versions

_IMAGES, _SIGNALS, _LATENTS = 8, 4, 64  # shown at most
_TSNE_ROWS = 100  # fewer have no neighbourhoods worth showing
_ALIVE = 1e-4  # of the largest variance; a latent below it is dead
_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("error", "error", lambda value: number(value, 3)),
    ("probe", "linear probe", percent),
    ("kmeans", "k-means agreement", "{:.3f}".format),
    ("parameters", "weights", "{:,d}".format),
    ("multiply_adds", "multiply-adds", "{:,d}".format),
)


def render(run: Run, manifest: Manifest | None = None) -> str:
    """The page of a run; the comparison with PCA is part of it if the run was evaluated.

    Args:
        run: a trained run.
        manifest: of a bundle made from it, to show what compression did and the layers of its int8 variant.
    """
    latents = run.encode(run.sample)
    baseline = run.evaluation.get("baseline", ())
    health = health_of(run)
    return template("page.html").render(
        title=f"{run.family}: {'×'.join(map(str, run.input_shape))} → {run.design.latent} latents",
        subtitle=f"Trained on {date(run.created)}" if run.created else "",
        verdict=verdict(run),
        tiles=tiles(run),
        run=run,
        rows=rows_word(run.signal),
        which=f"{'held-out' if held_out(run) else 'training'} {rows_word(run.signal)}",
        units="raw units" if run.scaler.kind == "none" else f"scaled units ({run.scaler.kind})",
        training=_training(run),
        losses=_losses(run),
        loss_name=loss_name(run),
        columns=[column for column in _COLUMNS if any(column[0] in row for row in baseline)],
        against_pca=against_pca(run).replace("goal='compress'", "--goal compress") if baseline else "",
        health=health,
        variances=_variances(health["variance"]),
        shown_latents=_LATENTS,
        percent=percent,
        **_features(run, latents),
        **_detection(run),
        manifest=manifest,
        facts=_facts(run),
        **_reconstructions(run, run.decode(latents)),
        **_map(latents, run.labels),
    )


def _training(run: Run) -> str:
    """How the training went, in a sentence."""
    state = run.state
    seconds = duration(sum(epoch.get("seconds", 0.0) for epoch in state.history))
    stopped = STOPPED.get(state.stopped, state.stopped)
    if state.stopped == "solved":
        return f"{stopped[0].upper()}{stopped[1:]}, {seconds}."
    best = f"epoch {state.best_epoch:,} was the best" if state.best_epoch else "none better than the start at PCA"
    return f"{state.epoch:,} epoch{'' if state.epoch == 1 else 's'} in {seconds} ({stopped}); {best}."


def _variances(variance: Sequence[float]) -> Markup:
    dead = [value <= _ALIVE * max(variance) for value in variance]
    return charts.columns(variance[:_LATENTS], dead[:_LATENTS], Plain("latent"), Plain("variance"))


def _features(run: Run, latents: NDArray[np.float32]) -> dict[str, Any]:
    """The error of each feature as texts and widths of bars, beside PCA's where the evaluation has it."""
    names = features.names(run)
    found = run.evaluation.get("features")
    if found is None:  # of a run that was not evaluated, or by a former version
        residual = (run.extract(run.sample) - run.decode(latents)) / run.scaler.scale
        found = features.errors(run, np.square(residual).mean(axis=0))
    most = max([one[key] for one in found for key in ("error", "pca") if key in one], default=0.0) or 1.0
    shown = [
        {
            "name": names[one["index"]],
            "error": number(one["error"], 2),
            "width": f"{100 * one['error'] / most:.1f}",
            "pca": number(one["pca"], 2) if "pca" in one else None,
            "pca_width": f"{100 * one.get('pca', 0.0) / most:.1f}",
        }
        for one in found
    ]
    return {"features": shown, "feature_kind": features.kind(run), "feature_count": len(names)}


def _detection(run: Run) -> dict[str, Any]:
    """Score histogram with the threshold, the worst rows, and detection against labels."""
    found, alarm, rows = run.evaluation.get("detection", {}), run.alarm, rows_word(run.signal)
    if not found and alarm is None:
        return {}
    shown: dict[str, Any] = {"detection": found, "alarm": alarm, "described": described(run)}
    if run.calibration is not None:
        counts = histogram(np.sort(run.calibration_scores(run.calibration)))
        limit = None if alarm is None else alarm.threshold
        x, y = Plain("anomaly score, log scale"), Plain(f"calibration {rows}")
        shown["scores"] = charts.histogram(**counts, limit=limit, x=x, y=y)
    worst = found.get("worst", ())
    shown["worst"] = [
        {
            "row": one["row"],
            "score": number(one["score"], 4),
            "p_value": None if one["p_value"] is None else number(one["p_value"], 2),
            "picture": one.get("picture"),
            "causes": [
                {name: number(cause[name], 4) for name in ("actual", "expected")}
                | {"name": cause["name"], "share": percent(cause["share"])}
                for cause in one["causes"]
            ],
        }
        for one in worst
    ]
    signals = [(one["row"], one["signal"]) for one in worst if "signal" in one][:_SIGNALS]
    shown["worst_signals"] = [
        _signal(run, row, signal["channel"], signal["input"], signal["output"], signal["start"])
        for row, signal in signals
    ]
    labels = found.get("labels", {})
    shown["classes"] = labels.get("classes", ())
    if "curve" in labels:
        curve, caught = labels["curve"], detected(labels)
        others = [one for one in labels["classes"] if one["name"] != labels["anomalous"]]
        at = None if caught is None or not others[0]["rows"] else (others[0]["alarms"] / others[0]["rows"], caught)
        shown["curve"] = charts.rates(curve["false_alarm_rate"], curve["detection_rate"], at)
    return shown


def _signal(
    run: Run, row: int, channel: int, given: Sequence[float], back: Sequence[float], start: int = 0
) -> tuple[str, Markup]:
    """A caption, and the chart of one channel and its reconstruction."""
    signal, unit, name = run.signal, None, f"channel {channel}"
    across: list[float] = [start + i for i in range(len(given))]
    x = Plain("sample")
    if signal is not None:
        name = signal.names[channel]
        unit = signal.units[channel] if signal.units and channel < len(signal.units) else None
        if signal.rate:
            across, x = [at / signal.rate for at in across], Plain("time in the window (s)")
    if run.front_end is not None:
        name, unit, x, across = "value", None, Plain(f"feature of {run.front_end.kind}"), list(range(len(given)))
    y = Plain(shortened_name(name, 36) + (f" ({unit})" if unit else ""))
    curves = {"input": (across, given), "reconstruction": (across, back)}
    caption = f"{rows_word(run.signal)[:-1]} {row}" + ("" if run.front_end else f", {name}")
    return caption, charts.lines(curves, x, y, f"input and reconstruction of {caption}", named=False)


def _losses(run: Run) -> Markup | None:
    history = run.state.history
    if len(history) < 2:
        return None
    epochs = [epoch["epoch"] for epoch in history]
    keys = {"training": "train_loss", "validation": "validation_loss"}
    curves = {name: (epochs, [epoch[key] for epoch in history]) for name, key in keys.items()}
    return charts.lines(
        curves,
        Plain("epoch"),
        Plain("loss"),
        "loss of training and validation by epoch",
        marks={"validation": run.state.best_epoch},
        whole=True,
        log=True,
    )


def _reconstructions(run: Run, back: NDArray[np.float32]) -> dict[str, Any]:
    """Images as images, signals as curves; of tables the error of each feature says more."""
    rows, back = (channels_first(part, run.design.channels_last) for part in (run.extract(run.sample), back))
    if run.front_end is not None:  # as curves
        rows, back = rows[:, np.newaxis], back[:, np.newaxis]
    shape = image_shape(rows.shape[1:], run.features)
    numbers = run.sample_rows
    if shape is not None:
        low, high = float(rows.min()), float(rows.max())
        shown = np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).astype(int)
        pairs = {i: np.concatenate([rows[i].reshape(shape), back[i].reshape(shape)], axis=2) for i in shown}
        of = {} if run.labels is None else {int(numbers[i]): run.labels[i] for i in shown}
        return {"images": {int(numbers[i]): png(pair, low, high) for i, pair in pairs.items()}, "labels_of": of}
    if rows.ndim != 3:
        return {}
    width = min(rows.shape[1], _SIGNALS)  # channels of each window
    shown = np.linspace(0, len(rows) - 1, min(_SIGNALS // width, len(rows)) + 1).astype(int)[:-1]
    return {
        "signals": [
            _signal(run, int(numbers[i]), channel, rows[i, channel].tolist(), back[i, channel].tolist())
            for i in shown
            for channel in range(width)
        ]
    }


def _map(latents: NDArray[np.float32], labels: NDArray[Any] | None) -> dict[str, Any]:
    if latents.shape[1] < 2 or len(latents) < 3 or not np.ptp(latents, axis=0).any():
        return {}
    if len(latents) >= _TSNE_ROWS:
        scaled = StandardScaler().fit_transform(latents)
        with threadpool_limits(1):  # few rows; beside a busy process more threads take 30 times as long
            points, projection = TSNE(init="pca", random_state=0).fit_transform(scaled), "t-SNE"
        axes = [Plain(f"t-SNE {i} (no unit)") for i in (1, 2)]
    else:
        points, projection = PCA(2).fit_transform(latents), "first two principal components"
        axes = [Plain(f"principal component {i} of the latents") for i in (1, 2)]
    drawn, legend = charts.scatter(points, labels, axes[0], axes[1], f"map of the latents: {projection}")
    return {"map": drawn, "legend": legend, "projection": projection}


def _facts(run: Run) -> dict[str, Any]:
    design = run.design
    facts = {
        "hidden": "-".join(map(str, design.hidden)) or "none",
        "activation": run.params["activation"],
        "output, loss": f"{design.output}, {design.loss}",
        "scaling": run.scaler.kind,
        "noise": ", ".join(f"{name} {strength:g}" for name, strength in run.noise) or "none",
        "normalisation, linear path": f"{design.normalization}, {'yes' if design.linear_path else 'no'}",
        "seed": run.seed,
        "threads": run.state.threads or "unknown",
    }
    if strides := design.options.get("strides"):
        separable = ", separable" if design.options.get("separable") else ""
        facts["strides"] = f"{', '.join(map(str, strides))}{separable}"
    if "data" in run.evaluation:
        data = run.evaluation["data"]
        facts["data"] = f"{'×'.join(map(str, data['shape']))} {data['dtype']}, sha256 {data['sha256']}"
    return facts | {"versions": ", ".join(f"{name} {version}" for name, version in versions().items())}
