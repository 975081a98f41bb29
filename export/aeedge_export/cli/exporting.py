"""What `aeedge export` does: a run to a bundle."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path

import click
import numpy as np
from numpy.typing import ArrayLike

import aeedge_export.autoencoder as workstation
from aeedge.bundle.manifest import CompressionSpec, Manifest, Variant
from aeedge.cli.wording import reworded, say
from aeedge.detection.calibration import ThresholdRule
from aeedge.errors import InputError
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.files.rows import Wanted, open_all
from aeedge.table import columns, human_bytes
from aeedge_export.alarms import described_drift, rows_word
from aeedge_export.cli.windows import windows_as_trained
from aeedge_export.data.dataset import Selection
from aeedge_export.reporting.detection import INFLATED


def write_bundle(
    ctx: click.Context,
    /,
    run: str,
    output: str,
    variants: str,
    calibration: str | None,
    array: str | None,
    false_alarm_rate: float | None,
    quantile: float | None,
    threshold: float | None,
    contamination: float,
    qat: bool,
    compress: str | None,
    max_error_ratio: float | None,
    no_scorer: bool,
    score_kind: str | None,
    name: str | None,
    tolerance: float,
    force: bool,
) -> None:
    """Convert, check and write a bundle, and say what was done; the parameters are those of the command.

    Raises:
        InputError: a run or options that do not fit.
    """
    check_folder(output, overwrite=force, kinds=[BUNDLE], inputs=[run, calibration])
    names = tuple(part.strip() for part in variants.split(","))
    autoencoder = workstation.Autoencoder.load(run)
    rule = ThresholdRule(false_alarm_rate, quantile, threshold, contamination)
    if rule != ThresholdRule():
        if autoencoder.run_.calibration is None:
            raise InputError(
                f"{run}: no rows were held out to calibrate with, so no rate can be promised; train again with "
                "--calibration-share or --calibration, or use 'aeedge recalibrate' on the bundle"
            )
        autoencoder.calibrate(**rule._asdict())
    rows = _calibration(calibration, array, names, compress, autoencoder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manifest = autoencoder.export(
            output,
            variants=names,
            calibration=rows,
            qat=qat,
            compress=compress,
            max_error_ratio=max_error_ratio,
            with_scorer=not no_scorer,
            score_kind=score_kind,
            name=name,
            tolerance=tolerance,
            overwrite=force,
            on_progress=lambda line: say(f"compress: {line}", err=True),
        )
    size = sum(f.stat().st_size for f in Path(output).iterdir())
    say(f"wrote {output}: {human_bytes(size)}, id {manifest.id[:12]}, outputs match torch")
    for line in _alarms(manifest):
        say(line)
    if manifest.compression is not None:
        click.echo(_compressed(manifest.compression))
    if "int8" in manifest.variants:
        quality = ", ".join(f"{name} {value:.4f}" for name, value in manifest.variants["int8"].quality.items())
        click.echo()
        say(f"int8 quality on held-out rows, against fp32: {quality}")
        click.echo(_decided(manifest.variants["int8"]))
    click.echo(f"next: aeedge verify {shlex.quote(output)}")
    for warning in caught:
        say(reworded(f"Left out: {warning.message}", ctx.command), err=True)
    if _missing(names, manifest) or (compress is not None and manifest.compression is None):
        ctx.exit(1)


def _calibration(
    path: str | None,
    array: str | None,
    names: tuple[str, ...],
    compress: str | None,
    autoencoder: workstation.Autoencoder,
) -> ArrayLike | None:
    if path is None:
        if array is not None:
            raise InputError("--array: expected --calibration DATA, the .npz that it is in, got none")
        for purpose, given in (("--variants int8", "int8" in names), ("--compress", compress is not None)):
            if given:
                raise InputError(f"{purpose}: expected --calibration DATA, rows like the training rows; got none")
        return None
    spec = autoencoder.run_.input_spec
    if spec.signal is not None:
        return windows_as_trained([path], Selection(array=array), spec).X
    wanted = Wanted(spec.features, spec.shape, spec.dtype, spec.dialect)
    rows = open_all([path], wanted, array=array, missing=spec.missing is not None)
    found = list(rows.blocks())
    for note in rows.notes:
        click.echo(f"Note: {path}: {note}", err=True)
    return np.concatenate(found)


def _missing(names: tuple[str, ...], manifest: Manifest) -> str:
    return ", ".join(name for name in names if name not in manifest.variants)


def _alarms(manifest: Manifest) -> list[str]:
    """Threshold and promised rate, and drift."""
    spec, rows = manifest.calibration, rows_word(manifest.input.signal)
    if spec is None:
        return [
            f"score {manifest.score.kind}, no threshold: no {rows} were held out to calibrate it; train with "
            "--calibration-share or --calibration, or 'aeedge recalibrate' the bundle with normal rows"
        ]
    values = ", ".join(f"{value:.4g} ({name})" for name, value in spec.thresholds.items())
    drift = [described_drift(spec.drift, rows)] if spec.drift else []
    promised = f"a false-alarm rate of {100 * spec.false_alarm_rate:.3g} %, from {spec.rows:,} calibration {rows}"
    promised = INFLATED if "inflation" in spec.rule else promised
    return [f"score {manifest.score.kind}, threshold {values}: {promised}", *drift]


def _compressed(spec: CompressionSpec) -> str:
    """What became smaller, and the quality of the result."""
    before, after = spec.multiply_adds
    rows = [
        [one.graph, one.layer]
        + [f"{a:,}" if a == b else f"{a:,} → {b:,}" for a, b in (one.inputs, one.outputs)]
        + ["" if one.rank is None else f"two factors of rank {one.rank}"]
        for one in spec.layers
    ]
    quality = ", ".join(f"{name} {value:.4f}" for name, value in spec.quality.items())
    return (
        f"\ncompressed to {after / before:.0%} of {before:,} multiply-adds; quality on held-out rows, against the "
        f"network as trained: {quality}\n{columns(['graph', 'layer', 'inputs', 'outputs', ''], rows)}\n"
    )


def _decided(variant: Variant) -> str:
    """A table of the layers of int8."""
    layers = variant.decisions["layers"]
    head = ["graph", "layer", "runs in", "error alone", "µs int8", "µs fp32", ""]
    rows = [
        [one["graph"], one["layer"], one["choice"], f"{one['error']:+.2%}"]
        + [f"{one[key]:,.0f}" if key in one else "" for key in ("us_int8", "us_fp32")]
        + [one.get("why", "")]
        for one in layers
    ]
    return f"{columns(head, rows)}\n"
