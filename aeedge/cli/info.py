"""aeedge info: what a bundle contains, from its manifest alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from aeedge.bundle.codes_spec import CodeScale, code_bytes
from aeedge.bundle.manifest import CompressionSpec, Manifest, SignalSpec
from aeedge.bundle.reader import Bundle
from aeedge.cli.command import Command
from aeedge.cli.streams import show
from aeedge.errors import shortened
from aeedge.files.times import duration_text, rate_said
from aeedge.table import human_bytes, pairs


@click.command(cls=Command)
@click.argument("bundle", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON (docs/reference/bundle-format.md).")
def info(bundle: str, as_json: bool) -> None:
    """Show what a bundle contains.

    \b
    Example:
      aeedge info motor.aeedge
    """
    manifest = Bundle(bundle).manifest
    show(_ascii(manifest.dumps().rstrip()).encode() if as_json else pairs(_rows(manifest), 80))


def _ascii(text: str) -> str:
    """The same JSON, with escapes for what a terminal acts on."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _rows(m: Manifest) -> list[tuple[str, str]]:
    shape = "×".join(map(str, m.input.shape))
    rows = [
        ("name", m.name),
        ("id", m.id),
        ("family", m.family),
        ("input", f"{shape} {m.input.dtype}"),
        ("latents", "×".join(map(str, m.latent_shape))),
        ("requires", f"onnxruntime {m.min_onnxruntime} or newer (opset {m.opset})"),
        ("created", m.created or "not recorded"),
        ("made with", ", ".join(f"{k} {v}" for k, v in m.made_with.items()) or "not recorded"),
    ]
    if m.input.features:
        shown = ", ".join(m.input.features[:6])
        more = len(m.input.features) - 6
        rows.insert(4, ("features", shown + (f" and {more} more" if more > 0 else "")))
    if m.input.signal is not None:
        rows[4:4] = _signal(m.input.signal)
    if m.front_end is not None:
        front = m.front_end
        options = ", ".join(f"{name} {json.dumps(_short(value))}" for name, value in front.options.items())
        shown = f"{front.kind}, {len(front.names):,} features ({front.names[0]} … {front.names[-1]})"
        rows.append(("front end", shown + (f", {options}" if options else "")))
    if m.compression is not None:
        rows += _compression(m.compression)
    for name, variant in m.variants.items():
        files = {"encoder": variant.encoder, "decoder": variant.decoder, "scorer": variant.scorer}
        sizes = [f"{role} {human_bytes(file.bytes)}" for role, file in files.items() if file is not None]
        default = " (default)" if name == m.default_variant else ""
        rows.append((name, ", ".join(sizes) + ("" if variant.decoder else ", no decoder") + default))
        if variant.quality:
            quality = ", ".join(f"{what.replace('_', ' ')} {value:.4f}" for what, value in variant.quality.items())
            rows.append(("", f"against fp32: {quality}"))
        layers = _layers(variant.decisions)
        quantised = [layer for layer, choice, _ in layers if choice != "fp32"]
        if quantised:
            rows.append(("", f"{name} layers: {', '.join(quantised)}"))
        rows += [("", f"fp32 layer: {layer} ({why})") for layer, choice, why in layers if choice == "fp32"]
    if m.codes is not None:
        found = [f"{bits} bits: {code_bytes(m.latent, bits):,} B, {_cost(s)}" for bits, s in m.codes.scales.items()]
        rows += [("codes" if i == 0 else "", line) for i, line in enumerate(found)]
    rows += _alarms(m)
    training = [f"{k}: {v if isinstance(v, str) else json.dumps(_short(v))}" for k, v in m.training.items()]
    return rows + [("training" if i == 0 else "", line) for i, line in enumerate(training)]


def _cost(scale: CodeScale) -> str:
    """What codes cost: the error of reconstructions, or else of latents."""
    if not scale.error_ratio:
        return f"latents off by {100 * scale.latent_error:.2g} %"
    return "error × " + ", ".join(f"{ratio:.4g} ({variant})" for variant, ratio in scale.error_ratio.items())


def _signal(signal: SignalSpec) -> list[tuple[str, str]]:
    """What a window is."""
    units = signal.units or ("",) * len(signal.channels)
    named = [f"{name} ({unit})" if unit else name for name, unit in zip(signal.channels, units)]
    length, step = signal.window, signal.hop
    seconds = (
        ""
        if signal.rate is None
        else f" ({duration_text(length / signal.rate)}, every {duration_text(step / signal.rate)})"
    )
    rate = "not known" if signal.rate is None else rate_said(signal.rate)
    time = [] if signal.time is None else [("time", signal.time)]
    calendar = [("calendar", f"time of {' and '.join(signal.calendar)}")] if signal.calendar else []
    windows = ("windows", f"{length:,} samples, hop {step:,}{seconds}")
    return [("channels", shortened(named)), ("rate", rate), windows, *time, *calendar]


def _compression(spec: CompressionSpec) -> list[tuple[str, str]]:
    """How much smaller the network was made, where, and how well it does."""
    before, after = spec.multiply_adds
    asked = "as few as the quality limits allow" if spec.asked is None else f"asked for {spec.asked:.0%}"
    quality = ", ".join(f"{what.replace('_', ' ')} {value:.4f}" for what, value in spec.quality.items())
    layers = []
    for one in spec.layers:
        sizes = " to ".join(f"{a:,}" if a == b else f"{b:,} of {a:,}" for a, b in (one.inputs, one.outputs))
        layers.append(f"{one.graph} {one.layer}: {sizes}" + ("" if one.rank is None else f", rank {one.rank}"))
    rows = [("compression", f"{after / before:.0%} of {before:,} multiply-adds ({asked}), from {spec.rows:,} rows")]
    return [*rows, ("", f"against the network as trained: {quality}"), *(("", layer) for layer in layers)]


def _alarms(m: Manifest) -> list[tuple[str, str]]:
    """The kind of score, and how alarms are calibrated."""
    has_score = m.score.needs_scorer or any(variant.decoder for variant in m.variants.values())
    rows = [("score", m.score.kind if has_score else "none, for there is no decoder")]
    unit = "rows" if m.input.signal is None else "windows"
    if m.calibration is not None:
        spec, order = m.calibration, ", in the order of time" if m.calibration.time_ordered else ""
        estimated = "" if "false_alarm_rate" in spec.rule else " (an estimate)"
        shown = ", ".join(f"{threshold:.6g} ({variant})" for variant, threshold in spec.thresholds.items())
        promised = f"{100 * spec.false_alarm_rate:.3g} %{estimated} of normal {unit}"
        if "inflation" in spec.rule:
            promised = "not promised: the threshold is from cross-validation of a short recording"
        rows += [("threshold", shown or "none"), ("false alarms", promised)]
        out = spec.rule.get("left_out")
        more = f", {out} more with gross outliers left out" if out else ""
        if spec.calibrated is not None:
            above = f"up to {100 * spec.relative_error:.2g} % too high, as thresholds are"
            more = f"; {spec.rows:,} scores are kept, {above}"
        rows.append(("calibration", f"{spec.calibrated or spec.rows:,} {unit}{order}{more}"))
        if spec.drift.get("drift") is True:
            alarms, later, low, high = (spec.drift.get(name) for name in ("alarms", "rows", "low", "high"))
            found = f"{alarms} of {later} later {unit} raised an alarm, chance explains {low} to {high}"
            rows.append(("drift", found))
    if m.calibration is not None and m.calibration.drift_references:
        sizes = m.calibration.drift_references.items()
        found = ", ".join(f"{components} components of {latents} latents ({of})" for of, (latents, components) in sizes)
        rows.append(("monitors", found))
    if m.parent is not None:
        rows.append(("parent", f"{m.parent}, recalibrated"))
    return rows


def _layers(decisions: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, precision and reason of each layer, as far as they are recorded: nobody but a reader depends on them."""
    found = decisions.get("layers")
    layers = [layer for layer in (found if isinstance(found, list) else []) if isinstance(layer, dict)]
    return [
        (f"{a.get('graph')} {a.get('layer')}", str(a.get("choice")), str(a.get("why", "no reason recorded")))
        for a in layers
    ]


def _short(value: Any) -> Any:
    """A value of JSON with six significant digits in every float."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _short(inner) for name, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, Sequence) and not isinstance(value, str) else value
