"""aeedge report: a run as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from aeedge.bundle.reader import Bundle
from aeedge.errors import printable
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_page
from aeedge_export import run_files
from aeedge_export.reporting.page import render


@click.command()
@click.argument("run", type=click.Path())
@click.option("-o", "--output", metavar="HTML", type=click.Path(), help="Page to write [default: RUN/report.html].")
@click.option("--bundle", type=click.Path(), help="Bundle made from RUN: also show which layers run in int8, and why.")
@click.option("-f", "--force", is_flag=True, help="Overwrite HTML; RUN/report.html is always replaced.")
def report(run: str, output: str | None, bundle: str | None, force: bool) -> None:
    """Write RUN as one self-contained HTML page: losses, reconstructions, latents, comparison with PCA.

    \b
    Example:
      aeedge report run -o motor.html --bundle motor.aeedge
    """
    target = Path(output) if output else Path(run) / "report.html"
    if output:
        check_page(target, overwrite=force)
    page = render(run_files.load(run), None if bundle is None else Bundle(bundle).manifest)
    with atomic_file(target, overwrite=force or not output) as part:
        part.write_text(page, encoding="utf-8")
    click.echo(f"wrote {printable(str(target), None)}: {len(page) / 1000:.0f} kB, self-contained")
