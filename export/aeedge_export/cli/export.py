"""aeedge export: from a run to a bundle."""

from __future__ import annotations

import warnings
from pathlib import Path

import click
from numpy.typing import ArrayLike

import aeedge_export.autoencoder as workstation
from aeedge.bundle.manifest import Manifest, Variant
from aeedge.errors import InputError
from aeedge.table import columns, human_bytes
from aeedge_export.data.files import read


@click.command()
@click.argument("run", type=click.Path())
@click.option("-o", "--output", metavar="BUNDLE", required=True, type=click.Path(), help="Bundle to write.")
@click.option("--variants", default="fp32", show_default=True, help="fp32, or fp32,int8; a device takes the first.")
@click.option("--calibration", metavar="DATA", type=click.Path(), help="Rows for int8: as for 'aeedge train'.")
@click.option("--qat", is_flag=True, help="Fine-tune int8 with its rounding in view, if layers would stay fp32.")
@click.option("--name", help="Name of the model [default: the bundle's].")
@click.option("--tolerance", default=1e-4, show_default=True, help="Largest relative error of fp32 against torch.")
@click.option("-f", "--force", is_flag=True, help="Overwrite BUNDLE.")
@click.pass_context
def export(
    ctx: click.Context,
    /,
    run: str,
    output: str,
    variants: str,
    calibration: str | None,
    qat: bool,
    name: str | None,
    tolerance: float,
    force: bool,
) -> None:
    """Turn RUN into a bundle: encoder and decoder, each an ONNX file, and what a device needs to check them.

    The bundle is there only after aeedge itself has loaded it and reproduced torch with it. An int8 variant has to keep
    a contract on held-out rows of DATA: layers that break it stay fp32. Where none is left, the bundle holds fp32
    alone, and the exit code is 1.

    \b
    Examples:
      aeedge export run -o motor.aeedge
      aeedge export run -o motor.aeedge --variants int8,fp32 --calibration motor.csv
    """
    names = tuple(part.strip() for part in variants.split(","))
    autoencoder = workstation.Autoencoder.load(run)
    rows = _calibration(calibration, names, autoencoder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        manifest = autoencoder.export(
            output, variants=names, calibration=rows, qat=qat, name=name, tolerance=tolerance, overwrite=force
        )
    size = sum(f.stat().st_size for f in Path(output).iterdir())
    click.echo(f"wrote {output}: {human_bytes(size)}, id {manifest.id[:12]}, accepted by aeedge against torch")
    if "int8" in manifest.variants:
        click.echo(_decided(manifest.variants["int8"]))
    click.echo(f"next: aeedge verify {output}")
    if missing := _missing(names, manifest):
        for warning in said:
            click.echo(f"{missing} was left out: {warning.message}", err=True)
        ctx.exit(1)


def _calibration(path: str | None, names: tuple[str, ...], autoencoder: workstation.Autoencoder) -> ArrayLike | None:
    if "int8" not in names:
        if path is not None:
            raise InputError("--calibration: it serves int8 alone; add --variants fp32,int8, or leave it out")
        return None
    if path is None:
        raise InputError("--variants int8: expected --calibration DATA with it, rows like those that were trained on")
    features = getattr(autoencoder, "feature_names_in_", None)
    named = Path(path).suffix in (".csv", ".parquet") and features is not None
    return read(path, columns=list(features) if named and features is not None else ()).X


def _missing(names: tuple[str, ...], manifest: Manifest) -> str:
    return ", ".join(name for name in names if name not in manifest.variants)


def _decided(variant: Variant) -> str:
    """What runs on integers, and what it costs, as tables."""
    layers = variant.decisions["layers"]
    head = ["graph", "layer", "runs in", "error alone", "µs int8", "µs fp32", ""]
    rows = [
        [one["graph"], one["layer"], one["choice"], f"{one['error']:+.2%}"]
        + [f"{one[key]:,.0f}" if key in one else "" for key in ("us_int8", "us_fp32")]
        + [one.get("why", "")]
        for one in layers
    ]
    quality = ", ".join(f"{name} {value:.4f}" for name, value in variant.quality.items())
    return f"\nint8, on rows that were held out: {quality}\n{columns(head, rows)}\n"
