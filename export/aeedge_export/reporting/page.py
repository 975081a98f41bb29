"""A run as one self-contained HTML page: no script, no link, light and dark, readable on a phone."""

from __future__ import annotations

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
from aeedge_export.reporting import charts
from aeedge_export.reporting.detection import described, histogram
from aeedge_export.reporting.evaluation import against_pca
from aeedge_export.reporting.pictures import image_shape, png
from aeedge_export.reporting.templates import template
from aeedge_export.run import STOPPED, Run
from aeedge_export.versions import versions

_IMAGES, _SIGNALS, _FEATURES, _LATENTS = 8, 3, 30, 64  # shown at most
_TSNE_ROWS = 100  # fewer have no neighbourhoods worth showing
_COLUMNS = (
    ("error", "error", "{:.5g}"),
    ("probe", "linear probe", "{:.1%}"),
    ("kmeans", "k-means agreement", "{:.3f}"),
    ("parameters", "weights", "{:,d}"),
    ("multiply_adds", "multiply-adds", "{:,d}"),
)


def render(run: Run, manifest: Manifest | None = None) -> str:
    """The page of a run; the comparison with PCA is part of it if the run was evaluated.

    Args:
        run: a trained run.
        manifest: of a bundle made from it, to show what compression did and the layers of its int8 variant.
    """
    state, latents = run.state, run.encode(run.sample)
    variance = run.evaluation["health"]["variance"][:_LATENTS] if run.evaluation else []
    return template("page.html").render(
        title=f"{run.family}: {'×'.join(map(str, run.input_shape))} → {run.design.latent} latents",
        run=run,
        state=state,
        stopped=STOPPED.get(state.stopped, state.stopped),
        seconds=sum(epoch["seconds"] for epoch in state.history),
        losses=_losses(run),
        columns=[column for column in _COLUMNS if any(column[0] in row for row in run.evaluation.get("baseline", ()))],
        variances=charts.bars([f"z{i}" for i in range(len(variance))], variance, upright=True) if variance else "",
        against_pca=against_pca(run) if run.evaluation else "",
        **_detection(run),
        rows=rows_word(run.signal),
        manifest=manifest,
        facts=_facts(run),
        **_reconstructions(run, run.decode(latents)),
        **_map(latents, run.labels),
    )


def _detection(run: Run) -> dict[str, Any]:
    """Score histogram with the threshold, the worst rows, and detection against labels."""
    found, alarm = run.evaluation.get("detection", {}), run.alarm
    if not found and alarm is None:
        return {}
    shown: dict[str, Any] = {"detection": found, "alarm": alarm, "described": described(run)}
    if run.calibration is not None:
        counts = histogram(np.sort(run.calibration_scores(run.calibration)))
        mark = None if alarm is None else alarm.threshold
        shown["scores"] = charts.histogram(**counts, mark=mark, label="anomaly score, logarithmic")
    signals = [(one["row"], one["signal"]) for one in found.get("worst", ()) if "signal" in one][:_SIGNALS]
    shown["worst_signals"] = {
        row: charts.lines(
            range(signal["start"], signal["start"] + len(signal["input"])),
            {name: signal[name] for name in ("input", "output")},
            log=False,
            label=f"sample, {_channel(run, signal['channel'])} of {rows_word(run.signal)[:-1]} {row}",
        )
        for row, signal in signals
    }
    if "curve" in found.get("labels", {}):
        curve = found["labels"]["curve"]
        rates = {"detection rate": curve["detection_rate"]}
        shown["curve"] = charts.lines(curve["false_alarm_rate"], rates, log=False, label="false-alarm rate")
    return shown


def _channel(run: Run, channel: int) -> str:
    return f"channel {channel if run.signal is None else run.signal.names[channel]}"


def _losses(run: Run) -> Markup | None:
    history = run.state.history
    if len(history) < 2:
        return None
    curves = {"training": [e["train_loss"] for e in history], "validation": [e["validation_loss"] for e in history]}
    return charts.lines([e["epoch"] for e in history], curves, mark=run.state.best_epoch, label="epoch")


def _reconstructions(run: Run, back: NDArray[np.float32]) -> dict[str, Any]:
    """Images as images, signals as lines, tables as the error of each feature."""
    rows, back = (channels_first(part, run.design.channels_last) for part in (run.extract(run.sample), back))
    what = "sample, first channel" if run.signal is None else f"sample, {_channel(run, 0)}"
    if run.front_end is not None:  # as curves
        rows, back, what = rows[:, np.newaxis], back[:, np.newaxis], f"feature of {run.front_end.kind}"
    shape = image_shape(rows.shape[1:])
    if shape is not None:
        low, high = float(rows.min()), float(rows.max())
        shown = np.linspace(0, len(rows) - 1, min(_IMAGES, len(rows))).astype(int)
        pairs = {i: np.concatenate([rows[i].reshape(shape), back[i].reshape(shape)], axis=1) for i in shown}
        return {"images": {i: png(pair, low, high) for i, pair in pairs.items()}}
    if rows.ndim == 3:
        samples = range(rows.shape[2])
        curves = [{"input": row[0].tolist(), "output": out[0].tolist()} for row, out in zip(rows[:_SIGNALS], back)]
        return {"signals": [charts.lines(samples, pair, log=False, label=what) for pair in curves]}
    error = np.square((rows - back) / run.scaler.scale).reshape(len(rows), -1).mean(axis=0)
    names = run.features or tuple(f"x{i}" for i in range(len(error)))
    order = np.argsort(-error)[:_FEATURES]
    chart = charts.bars([names[i] for i in order], error[order].tolist())
    return {"feature_errors": chart, "shown_features": _FEATURES}


def _map(latents: NDArray[np.float32], labels: NDArray[Any] | None) -> dict[str, Any]:
    if latents.shape[1] < 2 or len(latents) < 3 or not np.ptp(latents, axis=0).any():
        return {}
    if len(latents) >= _TSNE_ROWS:
        scaled = StandardScaler().fit_transform(latents)
        with threadpool_limits(1):  # few rows; beside a busy process more threads take 30 times as long
            points, projection = TSNE(init="pca", random_state=0).fit_transform(scaled), "t-SNE"
    else:
        points, projection = PCA(2).fit_transform(latents), "First two principal components"
    return {"map": charts.scatter(points, labels), "projection": projection}


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
    if run.evaluation:
        data = run.evaluation["data"]
        facts["data"] = f"{'×'.join(map(str, data['shape']))} {data['dtype']}, sha256 {data['sha256']}"
    return facts | {"versions": ", ".join(f"{name} {version}" for name, version in versions().items())}
