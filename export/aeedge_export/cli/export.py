"""aeedge export: from a run to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

import aeedge_export.autoencoder as workstation
from aeedge.bundle import Bundle
from aeedge.table import human_bytes


@click.command()
@click.argument("run", type=click.Path())
@click.option("-o", "--output", metavar="BUNDLE", required=True, type=click.Path(), help="Bundle to write.")
@click.option("--name", help="Name of the model [default: the bundle's].")
@click.option("--tolerance", default=1e-4, show_default=True, help="Largest relative error of aeedge against torch.")
@click.option("-f", "--force", is_flag=True, help="Overwrite BUNDLE.")
def export(run: str, output: str, name: str | None, tolerance: float, force: bool) -> None:
    """Turn RUN into a bundle: encoder and decoder, each an ONNX file, and what a device needs to check them.

    The bundle is there only after aeedge itself has loaded it and reproduced torch with it.

    \b
    Example:
      aeedge export run -o motor.aeedge
    """
    workstation.Autoencoder.load(run).export(output, name=name, tolerance=tolerance, overwrite=force)
    bundle = Bundle(output)
    size = sum(f.stat().st_size for f in Path(output).iterdir())
    click.echo(f"wrote {output}: {human_bytes(size)}, id {bundle.manifest.id[:12]}, accepted by aeedge against torch")
    click.echo(f"next: aeedge verify {output}")
