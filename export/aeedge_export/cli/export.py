"""aeedge export: a run to a bundle. The work is in exporting.py, so that --help needs no torch."""

from __future__ import annotations

from typing import Any

import click

from aeedge.cli.command import Command, imported, section
from aeedge.cli.types import Number, rule_options


@click.command(cls=Command)
@click.argument("run", type=click.Path())
@section(
    "Output",
    click.option("-o", "--output", metavar="BUNDLE", required=True, type=click.Path(), help="Bundle to write."),
    click.option("--name", metavar="NAME", show_default="the bundle's", help="Name of the model."),
    click.option("-f", "--force", is_flag=True, help="Overwrite BUNDLE."),
)
@section(
    "Variants",
    click.option("--variants", metavar="NAMES", default="fp32", help="fp32, or fp32,int8; devices prefer the first."),
    click.option(
        "--calibration",
        metavar="DATA",
        type=click.Path(),
        show_default="none",
        help="Rows like those of the training, for int8, --compress and codes.",
    ),
    click.option(
        "--array",
        metavar="NAME",
        show_default="the only one",
        help="Name of the array inside an .npz of --calibration.",
    ),
    click.option("--qat", is_flag=True, help="Fine-tune int8 with simulated rounding if layers would stay fp32."),
    click.option(
        "--tolerance",
        type=Number("above 0, at most 0.05", lambda share: 0 < share <= 0.05),
        default=1e-4,
        help="Maximum relative error of fp32 against torch.",
    ),
)
@section(
    "Compression",
    click.option(
        "--compress",
        metavar="SHARE|auto",
        show_default="as trained",
        help="Remove hidden units: share of multiply-adds that may stay; auto: as few as the quality limits allow.",
    ),
    click.option(
        "--max-error-ratio",
        type=float,
        metavar="RATIO",
        show_default="1.01",
        help="Error that --compress may reach, as a multiple of the network's as trained.",
    ),
)
@section(
    "Alarms",
    click.option(
        "--score-kind",
        metavar="KIND",
        show_default="as the training",
        help="Part of the trained score: of both also robust, mahalanobis, mse.",
    ),
    click.option("--no-scorer", is_flag=True, help="Leave out scorer.onnx (not for both, mahalanobis): half the size."),
    rule_options("as the training"),
)
@click.pass_context
def export(ctx: click.Context, /, **params: Any) -> None:
    """Turn RUN into a bundle: encoder and decoder as ONNX files, and the data that a device needs to check them.

    The bundle appears only after aeedge has loaded it and reproduced torch's outputs with it. An int8 variant must stay
    within quality limits on held-out rows of DATA; layers that exceed them stay in fp32. If no layer is left, the
    bundle holds only fp32, and the exit code is 1; so it is where no smaller network of --compress is within
    them. The threshold for alarms is that of the training, or follows from the scores of the same calibration rows by
    another rate.

    \b
    Examples:
      aeedge export run -o motor.aeedge
      aeedge export run -o motor.aeedge --variants int8,fp32 \\
        --calibration motor.csv
      aeedge export run -o motor.aeedge --compress auto --calibration motor.csv
    """
    imported("aeedge_export.cli.exporting", "write_bundle", "export")(ctx, **params)
