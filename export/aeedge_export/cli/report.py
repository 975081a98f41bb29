"""aeedge report: a run, or several, as one HTML page. The work is in reporting.py, so that --help needs no torch."""

from __future__ import annotations

from typing import Any

import click

from aeedge.cli.command import Command, imported, section
from aeedge.cli.types import array_option, table_options
from aeedge_export.cli.options import recording_options


@click.command(cls=Command)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@section(
    "Output",
    click.option(
        "-o",
        "--output",
        metavar="HTML",
        type=click.Path(),
        show_default="RUN/report.html; of several runs comparison.html",
        help="Page to write.",
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite HTML; RUN/report.html is always replaced."),
)
@section(
    "Bundle",
    click.option(
        "--bundle",
        metavar="BUNDLE",
        type=click.Path(),
        show_default="none",
        help="Bundle made from RUN: also show compression and int8.",
    ),
)
@section(
    "Data",
    click.option(
        "--test",
        metavar="DATA",
        multiple=True,
        type=click.Path(),
        show_default="rows of the training",
        help="Rows to detect anomalies in (repeatable).",
    ),
    click.option(
        "--labels",
        metavar="WHERE",
        show_default="none",
        help="Labels of --test: a column, an array of the .npz, or an .npy file.",
    ),
    array_option,
    table_options,
)
@recording_options()
@click.pass_context
def report(ctx: click.Context, /, **params: Any) -> None:
    """Write RUN as one self-contained HTML page: verdict, reconstructions, alarms, latents, comparison with PCA.

    Several runs are compared on one page: what differs, which is the best, and whether that can be said.

    With --test the part about anomaly detection is of these rows, which need not be those of the training; with
    --labels it says what is found: ROC AUC, PR AUC, detection rate of each class.

    \b
    Examples:
      aeedge report run -o motor.html --bundle motor.aeedge
      aeedge report run -o motor.html --test faults.csv --labels fault
      aeedge report run-8 run-16 run-pca -o latents.html
    """
    imported("aeedge_export.cli.reporting", "write_report", "report")(ctx, **params)
