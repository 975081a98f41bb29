"""aeedge export: a run to a bundle."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path

import click
import numpy as np
from numpy.typing import ArrayLike

import aeedge_export.autoencoder as workstation
from aeedge.bundle.manifest import Manifest, Variant
from aeedge.cli.types import rule_options
from aeedge.detection.calibration import ThresholdRule
from aeedge.errors import InputError, printable
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.files.rows import Wanted, open_all
from aeedge.table import columns, human_bytes
from aeedge_export.alarms import described_drift, rows_word
from aeedge_export.cli.windows import windows_as_trained
from aeedge_export.data.dataset import Selection
from aeedge_export.reporting.detection import INFLATED


@click.command()
@click.argument("run", type=click.Path())
@click.option("-o", "--output", metavar="BUNDLE", required=True, type=click.Path(), help="Bundle to write.")
@click.option("--variants", default="fp32", show_default=True, help="fp32, or fp32,int8; devices prefer the first.")
@click.option("--calibration", metavar="DATA", type=click.Path(), help="Rows for int8 and codes.")
@rule_options("as the training")
@click.option("--qat", is_flag=True, help="Fine-tune int8 with simulated rounding if layers would stay fp32.")
@click.option("--no-scorer", is_flag=True, help="Leave out scorer.onnx (not for both, mahalanobis): half the size.")
@click.option("--score-kind", help="Part of the trained score: of both also robust, mahalanobis, mse.")
@click.option("--name", help="Name of the model [default: the bundle's].")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 0.05, min_open=True),
    default=1e-4,
    show_default=True,
    help="Maximum relative error of fp32 against torch.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite BUNDLE.")
@click.pass_context
def export(
    ctx: click.Context,
    /,
    run: str,
    output: str,
    variants: str,
    calibration: str | None,
    false_alarm_rate: float | None,
    quantile: float | None,
    threshold: float | None,
    contamination: float,
    qat: bool,
    no_scorer: bool,
    score_kind: str | None,
    name: str | None,
    tolerance: float,
    force: bool,
) -> None:
    """Turn RUN into a bundle: encoder and decoder as ONNX files, and the data that a device needs to check them.

    The bundle appears only after aeedge has loaded it and reproduced torch's outputs with it. An int8 variant must stay
    within quality limits on held-out rows of DATA; layers that exceed them stay in fp32. If no layer is left, the
    bundle holds only fp32, and the exit code is 1. The threshold for alarms is that of the training, or follows from
    the scores of the same calibration rows by another rate.

    \b
    Examples:
      aeedge export run -o motor.aeedge
      aeedge export run -o motor.aeedge --variants int8,fp32 --calibration motor.csv
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
    rows = _calibration(calibration, names, autoencoder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manifest = autoencoder.export(
            output,
            variants=names,
            calibration=rows,
            qat=qat,
            with_scorer=not no_scorer,
            score_kind=score_kind,
            name=name,
            tolerance=tolerance,
            overwrite=force,
        )
    size = sum(f.stat().st_size for f in Path(output).iterdir())
    click.echo(f"wrote {printable(output, None)}: {human_bytes(size)}, id {manifest.id[:12]}, outputs match torch")
    click.echo(_alarms(manifest))
    if "int8" in manifest.variants:
        click.echo(_decided(manifest.variants["int8"]))
    click.echo(f"next: aeedge verify {shlex.quote(output)}")
    if missing := _missing(names, manifest):
        for warning in caught:
            click.echo(f"{missing} was left out: {warning.message}", err=True)
        ctx.exit(1)


def _calibration(path: str | None, names: tuple[str, ...], autoencoder: workstation.Autoencoder) -> ArrayLike | None:
    if path is None:
        if "int8" in names:
            raise InputError("--variants int8: expected --calibration DATA, rows like the training rows; got none")
        return None
    spec = autoencoder.run_.input_spec
    if spec.signal is not None:
        return windows_as_trained([path], Selection(), spec).X
    rows = open_all(
        [path], Wanted(spec.features, spec.shape, spec.dtype, spec.dialect), missing=spec.missing is not None
    )
    found = list(rows.blocks())
    for note in rows.notes:
        click.echo(f"Note: {path}: {note}", err=True)
    return np.concatenate(found)


def _missing(names: tuple[str, ...], manifest: Manifest) -> str:
    return ", ".join(name for name in names if name not in manifest.variants)


def _alarms(manifest: Manifest) -> str:
    """Threshold and promised rate, in a line."""
    spec, rows = manifest.calibration, rows_word(manifest.input.signal)
    if spec is None:
        return (
            f"score {manifest.score.kind}, no threshold: no {rows} were held out to calibrate it ('aeedge recalibrate')"
        )
    values = ", ".join(f"{value:.4g} ({name})" for name, value in spec.thresholds.items())
    drift = f"\n{described_drift(spec.drift, rows)}" if spec.drift else ""
    promised = f"a false-alarm rate of {100 * spec.false_alarm_rate:.3g} %, from {spec.rows:,} calibration {rows}"
    promised = INFLATED if "inflation" in spec.rule else promised
    return f"score {manifest.score.kind}, threshold {values}: {promised}{drift}"


def _decided(variant: Variant) -> str:
    """The quality of int8, and a table of its layers."""
    layers = variant.decisions["layers"]
    head = ["graph", "layer", "runs in", "error alone", "µs int8", "µs fp32", ""]
    rows = [
        [one["graph"], one["layer"], one["choice"], f"{one['error']:+.2%}"]
        + [f"{one[key]:,.0f}" if key in one else "" for key in ("us_int8", "us_fp32")]
        + [one.get("why", "")]
        for one in layers
    ]
    quality = ", ".join(f"{name} {value:.4f}" for name, value in variant.quality.items())
    return f"\nint8 quality on held-out rows, against fp32: {quality}\n{columns(head, rows)}\n"
