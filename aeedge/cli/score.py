"""aeedge score: anomaly scores, and what follows from the bundle's calibration: p-values, alarms and their causes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from aeedge.cli.alarms import NO_ALARMS, Detector, Tally, promised, quantiles, shown, summary
from aeedge.cli.archive import ARCHIVES, EXAMPLE, Wish, archive_options, refuse
from aeedge.cli.archive import run as run_archive
from aeedge.cli.command import Command, section
from aeedge.cli.group import DEVICE
from aeedge.cli.reading import keep_option, open_samples, results, row_options
from aeedge.cli.streams import check_stdout, show
from aeedge.cli.transform import FORMATS, OF_SIGNALS, checked_output, written
from aeedge.cli.types import Whole, dialect_options
from aeedge.errors import InputError, printable
from aeedge.files.writing import STDOUT, output_format
from aeedge.loading import load

if TYPE_CHECKING:
    from aeedge.archive.job import Report

_LISTED, _EXAMPLES = 20, 5  # rows in the table on the terminal, in each table of the summary
_HELP = f"""{DEVICE["score"]}

    {FORMATS}

    Columns: those of --keep, score (higher is more anomalous); with a calibration p_value and alarm; of alarms cause_1
    and share_1, … the values that cause them and their shares of the score. An .npy holds the scores; with a
    calibration it is an array with the fields score, p_value and alarm.

    {OF_SIGNALS} --keep gives the value at a window's last sample.

    {ARCHIVES} Causes are not computed.

    \b
    Examples:
      aeedge score motor.aeedge rows.csv -o scores.csv --keep time
      aeedge score motor.aeedge rows.csv --summary --false-alarm-rate 0.001
      aeedge score pump.aeedge recording.wav -o scores.csv
      {EXAMPLE.format(name="score")}
    """


@click.command(help=_HELP, cls=Command)
@row_options(
    "File to write; of an archive a folder.",
    section(
        "Output",
        keep_option,
        click.option(
            "--summary", "summarise", is_flag=True, help="Count alarms, compare with the promised rate, list some."
        ),
    ),
    section(
        "Alarms",
        click.option(
            "--false-alarm-rate",
            type=float,
            metavar="RATE",
            show_default="the bundle's",
            help="Share of normal rows that may raise an alarm.",
        ),
        click.option(
            "--threshold", type=float, metavar="SCORE", show_default="the bundle's", help="Alarm above this score."
        ),
        click.option(
            "--top",
            type=Whole(0),
            show_default="1 where there can be alarms, 0 for .npy",
            help="Name so many values that cause each alarm.",
        ),
    ),
    without="a table on the terminal",
)
@archive_options
def score(
    bundle: str,
    sources: tuple[str, ...],
    output: str | None,
    format: str | None,
    keep: tuple[str, ...],
    top: int | None,
    false_alarm_rate: float | None,
    threshold: float | None,
    summarise: bool,
    variant: str,
    threads: int | str,
    allow_ops: tuple[str, ...],
    invalid: str,
    force: bool,
    header: bool | None,
    delimiter: str | None,
    decimal: str | None,
    **reading: Any,
) -> None:
    """Scores of files, to a file or the terminal."""
    keep, is_npy = tuple(dict.fromkeys(keep)), False
    wish = Wish.taken(reading)
    if wish.is_archive(sources, output, format):
        dialect = {"header": header is not None, "delimiter": delimiter, "decimal": decimal}
        refuse({"format": format, **dialect, **reading}, threads)
        if top:
            raise InputError(
                "--top: causes are not computed for archives; leave it out, and score the alarms as a file"
            )
        assert output is not None
        with load(bundle, variant=variant, threads=1, allow_ops=allow_ops) as model:
            detector = Detector(model, false_alarm_rate, threshold, 0)
            run_archive(
                "score",
                bundle,
                sources,
                output,
                wish,
                more=lambda report: _of_archive(detector, report),
                outputs=detector.outputs,
                keep=keep,
                variant=variant,
                invalid=invalid,
                false_alarm_rate=false_alarm_rate,
                threshold=threshold,
                allow_ops=allow_ops,
                overwrite=force,
            )
        return
    if output is None:
        check_stdout()
    else:
        output = checked_output(output, sources, force)
        is_npy = output_format(output, format) == "npy"
        top = top or 0 if is_npy else top
    with load(bundle, variant=variant, threads=threads, allow_ops=allow_ops) as model:
        detector = Detector(model, false_alarm_rate, threshold, top)
        reading["dialect"] = dialect_options(header, delimiter, decimal)
        rows, kept, cut = open_samples(model, "score", sources, invalid, reading, keep, numbers=is_npy)
        signal = None if cut is None else cut.signal
        found = results(model, "score", rows, sources, invalid)
        tally = Tally(detector, _EXAMPLES if summarise else _LISTED)
        if output is None:
            for part in found:
                tally.add(part)
            show(summary(detector, kept, tally, signal) if summarise else _table(detector, kept, tally))
            return
        with written(output, detector.layout(kept), force=force, format=format) as writer:
            for part in found:
                writer.write(detector.table(part))
                if summarise:
                    tally.add(part)
        if summarise:
            click.echo(printable(summary(detector, kept, tally, signal), None, "\n"), err=output == STDOUT)


def _of_archive(detector: Detector, report: Report) -> list[tuple[str, str]]:
    """Counts of alarms, and the rate that was promised."""
    if detector.limit is None or not report.written:
        return [("alarms", NO_ALARMS)] if detector.limit is None else []
    said = f"{report.alarms:,} ({100 * report.alarms / report.written:.3g} %) above {detector.limit:.6g}"
    signal = detector.model.input.signal if report.are_windows else None
    of_rate = promised(detector, report.written, report.alarms, signal) if detector.has_p_values else []
    return [("alarms", said), *of_rate]


def _table(detector: Detector, keep: Iterable[str], tally: Tally) -> str:
    """All scores of a few rows, otherwise the highest ones."""
    if tally.count <= _LISTED:
        return shown(detector, keep, tally.first, detector.top)
    about = f"the {_LISTED} highest of {tally.count} scores; {quantiles(tally.scores)}"
    alarms = "" if detector.limit is None else f"; {tally.alarms:,} alarms"
    return f"{shown(detector, keep, tally.highest, detector.top)}\n{about}{alarms}; all of them: -o scores.csv"
