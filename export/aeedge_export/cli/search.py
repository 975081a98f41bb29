"""aeedge search: which network fits a device. The work is in searching.py, so that --help needs no torch."""

from __future__ import annotations

from typing import Any

import click

from aeedge.cli.command import Command, imported, section
from aeedge.cli.types import BYTES, COUNT, DURATION, LATENCY, SAMPLE_RATE, SHARE, Threads, Whole, json_option
from aeedge.errors import InputError
from aeedge_export.cli.options import data_options, input_options, time_ordered_option

OBJECTIVES = ("auto", "error", "auc", "probe")  # of aeedge_export.architecture_search, which needs torch
METHODS = ("encode", "score", "denoise")  # of the same


def _names(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    names = tuple(part.strip() for part in value.split(","))
    if "" in names:
        raise InputError(f"{param.opts[-1]}: expected names with a comma between them, got {value!r}")
    return "auto" if names == ("auto",) else names


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    try:
        return value if value == "auto" else tuple(int(part) for part in value.split(","))
    except ValueError:
        raise InputError(f"{param.opts[-1]}: expected 'auto' or numbers such as 4,8,16, got {value!r}") from None


@click.command(cls=Command)
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=click.Path())
@section(
    "Output",
    click.option("-o", "--output", metavar="SEARCH", required=True, type=click.Path(), help="Folder to write."),
    click.option("--resume", is_flag=True, help="Go on with SEARCH: same DATA and settings, any budget and time."),
    json_option,
    click.option("-f", "--force", is_flag=True, help="Replace SEARCH, if it is a search."),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
)
@section(
    "Budget",
    click.option(
        "--latency",
        type=LATENCY,
        show_default="no limit",
        help="Longest time of a call with one sample, such as 20us or 1.5ms.",
    ),
    click.option(
        "--rate",
        type=SAMPLE_RATE,
        show_default="no limit",
        help="Fewest samples per second in large calls, such as 50k/s.",
    ),
    click.option("--size", type=BYTES, show_default="no limit", help="Largest size of the bundle, such as 200kB."),
    click.option(
        "--memory",
        type=BYTES,
        show_default="no limit",
        help="Largest memory that the bundle adds to a process, such as 8MB.",
    ),
    click.option(
        "--macs", type=COUNT, show_default="no limit", help="Most multiply-adds of encoding a sample, such as 100k."
    ),
    click.option("--at", type=Whole(1), show_default="1 for --latency, 1,024 for --rate", help="Samples per call."),
    click.option(
        "--max-error-vs-best",
        type=SHARE,
        show_default="the most accurate within the budget, without a budget 1%",
        help="Take the cheapest network whose error is at most so much above the least, such as 5%.",
    ),
)
@section(
    "Candidates",
    click.option("--time", type=DURATION, default="10m", help="How long to search, such as 10m."),
    click.option(
        "--families",
        metavar="NAMES",
        default="auto",
        callback=_names,
        help="To try: dense, conv1d, conv2d, pca; auto: those that take such rows.",
    ),
    click.option(
        "--latents",
        metavar="NUMBERS",
        default="auto",
        callback=_numbers,
        help="Numbers of latents to try, such as 4,8,16; auto: the one of 'aeedge train'.",
    ),
    click.option(
        "--variants", metavar="NAMES", default="fp32,int8", callback=_names, help="To try: fp32, int8 or both."
    ),
    click.option(
        "--objective",
        type=click.Choice(OBJECTIVES),
        default="auto",
        help="Error of reconstruction, AUC of anomaly scores, accuracy of a probe on latents; auto: as labels are.",
    ),
    click.option(
        "--goal",
        metavar="GOAL",
        show_default="compress, for the objective auc detect",
        help="Of a table: compress or detect.",
    ),
    click.option("--seed", default=0, help="Of the split of the rows, and of all trainings."),
)
@section(
    "Measurement",
    click.option("--method", type=click.Choice(METHODS), default="encode", help="What is timed."),
    click.option(
        "--threads", type=Threads(), default="auto", help="Maximum number of threads; auto: one for each CPU."
    ),
    click.option(
        "--remote",
        metavar="COMMAND",
        show_default="this machine",
        help="Measure on a device, where this runs a command: 'ssh pi@gateway'.",
    ),
    click.option(
        "--measured",
        metavar="FILE",
        type=click.Path(),
        show_default="measured here",
        help="With --resume: take what 'aeedge bench --batch SEARCH/bundles --json' printed on a device.",
    ),
)
@data_options(time_ordered_option, rate="--sample-rate", time="--time-column", labels="Classes, for --objective")
@input_options
@click.pass_context
def search(ctx: click.Context, /, **params: Any) -> None:
    """Find networks for DATA that suit a device: train candidates, measure them, and keep those that nothing beats.

    Candidates of several families and widths are trained, the promising ones longer, exported, and measured through the
    device runtime, on this machine or with --remote on the device. SEARCH/best.aeedge is the network that the budget
    asks for, SEARCH/bundles has all others, SEARCH/report.html shows them. DATA is read as by 'aeedge train', but
    without weights or calibration rows of their own; rows that choose a network and rows that judge it are different.

    Exit code 1 when nothing meets the budget, the time ends before one candidate is done, or after Ctrl-C.

    \b
    Examples:
      aeedge search motor.csv -o found --latency 20us
      aeedge search motor.csv -o found --max-error-vs-best 5% --latents 2,4,8
      aeedge search motor.csv -o found --rate 50k/s --remote 'ssh pi@gateway'
      aeedge search motor.csv -o found --resume --time 20m --size 200kB
    """
    imported("aeedge_export.cli.searching", "run", "search")(ctx, **params)
