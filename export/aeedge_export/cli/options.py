"""Options of the commands that read training data. Nothing here needs more than click: their help is always there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from aeedge.cli.command import section
from aeedge.cli.types import array_option, image_options, table_options
from aeedge.files.times import as_rate

POLICIES = ("refuse", "drop", "median")  # of aeedge_export.data.missing, which needs scikit-learn


def number_or_auto(kind: type[int] | type[float]) -> Any:
    """A callback that takes "auto" or a number."""

    def convert(ctx: click.Context, param: click.Parameter, value: str) -> Any:
        if value == "auto":
            return value
        try:
            return kind(value)
        except ValueError:
            raise click.BadParameter(f"expected 'auto' or a number, got {value!r}") from None

    return convert


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else as_rate(param.opts[-1], value)


def _front_end_options(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> dict[str, bool | int | float | list[float]] | None:
    found: dict[str, bool | int | float | list[float]] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            words = {"true": True, "false": False}
            values = [words[v] if v in words else int(v) if v.isdigit() else float(v) for v in value.lower().split(",")]
        except ValueError:
            raise click.BadParameter(f"expected NAME=VALUE, such as band=2000,5000 or log=true, got {text!r}") from None
        found[name] = values[0] if len(values) == 1 else values
    return found or None


def recording_options(rate: str = "--rate", time: str = "--time") -> Callable[[Any], Any]:
    """The options that say how recordings are read; `rate` and `time`: what two of them are called."""
    return section(
        "Recordings",
        click.option(
            rate,
            metavar="RATE",
            callback=_rate,
            show_default="found in times or a header",
            help="Samples a second such as 50Hz or 8kHz, or 5min between samples.",
        ),
        click.option(time, metavar="COLUMN", show_default="found out", help="Column with the time of each sample."),
        click.option(
            "--resample",
            metavar="RATE",
            callback=_rate,
            show_default="the rate stays",
            help="Bring samples to this rate.",
        ),
    )


def window_options(rate: str = "--rate", time: str = "--time") -> Callable[[Any], Any]:
    """The options that say what windows are cut from recordings."""
    return section(
        "Recordings",
        click.option(
            "--window",
            type=int,
            show_default="DATA are rows",
            help="DATA are recordings: train on windows of so many samples.",
        ),
        click.option("--hop", type=int, show_default="a quarter of one", help="Samples from window to window."),
        recording_options(rate, time),
        click.option(
            "--calendar",
            metavar="PERIODS",
            show_default="none",
            help="Add the time of day and week to the channels: day,week.",
        ),
    )


input_options = section(
    "Input of the network",
    click.option(
        "--scaling",
        metavar="KIND",
        default="auto",
        help="standard, robust, minmax or none; auto: one mapping to 0..1 for images and values that share bounds, for "
        "each channel of signals, standard for tables.",
    ),
    click.option(
        "--channels",
        metavar="NAMES",
        default="auto",
        help="Of recordings: the channels to take, such as a,b,c; auto: all. Of arrays of windows or images: first or "
        "last; auto: as shape and values show.",
    ),
    click.option(
        "--axes",
        metavar="AXES",
        show_default="as --channels says",
        help="The same spelled out: nct, ntc (signals), nchw or nhwc (images).",
    ),
    click.option(
        "--front-end",
        metavar="KIND",
        default="none",
        help="Of windows: spectrum, log_mel (sound), envelope (bearings) or none, for the samples themselves.",
    ),
    click.option(
        "--front-end-option",
        "front_end_options",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_front_end_options,
        show_default="those of the front end",
        help="Of the front end, such as band=2000,5000 (repeatable; docs/how-to/front-ends.md).",
    ),
)
time_ordered_option = click.option(
    "--time-ordered/--no-time-ordered",
    default=None,
    show_default="where a time rises, or windows overlap",
    help="Hold out blocks of rows at the end, not random rows.",
)


def data_options(
    *more: Callable[[Any], Any],
    rate: str = "--rate",
    time: str = "--time",
    labels: str = "Labels for the report",
) -> Callable[[Any], Any]:
    """Adds the options that say how DATA is read.

    Args:
        more: further ones.
        rate, time: what these two of recordings are called.
        labels: what labels are for, for people.
    """
    data = section(
        "Data",
        click.option(
            "--columns",
            multiple=True,
            metavar="NAME",
            show_default="all that are features",
            help="Use only this column of a table (repeatable).",
        ),
        click.option(
            "--drop",
            multiple=True,
            metavar="NAME",
            show_default="none",
            help="Leave this column of a table out (repeatable).",
        ),
        click.option(
            "--select",
            metavar="CONDITION",
            show_default="all rows",
            help="Use only such rows of a labelled file: \"anomaly == 0 and 'pump state' != off\".",
        ),
        click.option(
            "--labels",
            metavar="WHERE",
            show_default="none",
            help=f"{labels}: a column, an array of the .npz, an .npy file, or 'folders'.",
        ),
        *more,
        click.option(
            "--missing",
            type=click.Choice(POLICIES),
            default="refuse",
            help="For missing values: stop, drop their rows, or fill with medians. A device does the same.",
        ),
        array_option,
        table_options,
        image_options,
    )

    def decorated(command: Any) -> Any:
        return data(window_options(rate, time)(command))

    return decorated
