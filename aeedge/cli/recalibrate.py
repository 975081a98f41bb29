"""aeedge recalibrate: scores and thresholds for what is normal on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.reader import Bundle
from aeedge.cli.archive import Wish, column_option, engine_options, many, progress_line, refuse, set_aside
from aeedge.cli.command import Command, section
from aeedge.cli.reading import named, of_files, open_recordings, shaped
from aeedge.cli.streams import show
from aeedge.cli.types import (
    allow_ops_option,
    array_option,
    dialect_options,
    image_options,
    rule_options,
    table_options,
)
from aeedge.cli.wording import reworded, say
from aeedge.errors import InputError, printable, shortened
from aeedge.files.replacing import BUNDLE, check_folder
from aeedge.files.rows import RowFile, Wanted, open_all
from aeedge.recalibration import Recalibrated
from aeedge.recalibration import recalibrate as recalibrated
from aeedge.recalibration.scoring import WHAT
from aeedge.system.progress import ProgressLine
from aeedge.table import human_duration, pairs

if TYPE_CHECKING:
    from aeedge.archive.calibration import CalibrationReport


@click.command(cls=Command)
@click.argument("bundle", type=click.Path())
@click.argument("normal", metavar="NORMAL...", nargs=-1, required=True, type=click.Path())
@section(
    "Output",
    click.option("-o", "--output", metavar="NEW", required=True, type=click.Path(), help="Bundle to write."),
    click.option("-f", "--force", is_flag=True, help="Overwrite NEW, if it is a bundle other than BUNDLE."),
)
@rule_options("that of BUNDLE, or 0.01")
@section(
    "Alarms",
    click.option("--keep-score", is_flag=True, help="Keep the score's parameters: all rows calibrate."),
    click.option(
        "--time-ordered/--no-time-ordered",
        default=None,
        show_default="as BUNDLE; windows are",
        help="Whether NORMAL is in the order of time: the first rows fit, the later ones calibrate.",
    ),
)
@section("Data", array_option, table_options, image_options)
@section(
    "Archives",
    engine_options,
    column_option,
    click.option(
        "--invalid",
        type=click.Choice(["raise", "propagate"]),
        default="raise",
        help="Of an archive: for NaN or infinity stop, or leave such rows out.",
    ),
)
@allow_ops_option
def recalibrate(
    bundle: str,
    normal: tuple[str, ...],
    output: str,
    false_alarm_rate: float | None,
    quantile: float | None,
    threshold: float | None,
    contamination: float,
    keep_score: bool,
    time_ordered: bool | None,
    allow_ops: tuple[str, ...],
    header: bool | None,
    delimiter: str | None,
    decimal: str | None,
    invalid: str,
    force: bool,
    **reading: Any,
) -> None:
    """Calibrate a bundle again, for what is normal on this machine.

    NORMAL is one or more files of rows of normal operation, as 'aeedge score' reads them, that the network was not
    trained with; of a bundle of a signal recordings, which are cut into windows. A quarter of the rows fits the scales
    of the score anew (a third where there are many latents), the others calibrate: their scores give the threshold of
    each variant, with the promised false-alarm rate. BUNDLE stays as it is; NEW has an id of its own, and BUNDLE's as
    its parent.

    With --engine, URLs or quoted patterns NORMAL is an archive: Parquet files, folders of them and patterns, here or on
    S3, GCS, HDFS and whatever fsspec opens. About 20,000 rows from all over it fit the score, and all others calibrate:
    their scores are counted where they are computed. Thresholds are then at most 0.012 % too high, and never too low;
    rates may be as small as 1 in as many rows as there are.

    \b
    Examples:
      aeedge recalibrate motor.aeedge normal.csv -o motor7.aeedge
      aeedge recalibrate motor.aeedge normal.csv -o motor7.aeedge \\
        --false-alarm-rate 0.001
      aeedge recalibrate motor.aeedge 's3://plant/2025/*.parquet' \\
        -o plant.aeedge --engine spark
    """
    wish = Wish.taken(reading)
    rule = {
        "false_alarm_rate": false_alarm_rate,
        "quantile": quantile,
        "threshold": threshold,
        "contamination": contamination,
        "keep_score": keep_score,
    }
    if wish.reads_archive(normal):
        dialect = {"header": header is not None, "delimiter": delimiter, "decimal": decimal}
        refuse({"time_ordered": time_ordered, "allow_ops": allow_ops, **dialect, **reading})
        lines = _of_archive(bundle, normal, output, wish, invalid=invalid, overwrite=force, **rule)
    elif invalid != "raise":
        raise InputError("--invalid: is for archives; leave such rows out of the files, or give --engine local")
    else:
        check_folder(output, overwrite=force, kinds=[BUNDLE], inputs=[bundle, *normal])
        reading["dialect"] = dialect_options(header, delimiter, decimal)
        line = ProgressLine()
        rows = _rows(Bundle(bundle), normal, reading, line)
        options: dict[str, Any] = {"time_ordered": time_ordered, "allow_ops": allow_ops, **rule}
        options |= {"overwrite": force, "progress": lambda text: line.show([text])}
        with of_files(normal, WHAT):
            found = recalibrated(bundle, rows, output, **options)
        line.end()
        _say_notes(found)
        lines = list(_summary(found))
    show(pairs(lines, 80))
    click.echo(f"\nwrote {printable(output, None)}")


def _of_archive(
    bundle: str, sources: tuple[str, ...], output: str, wish: Wish, **options: Any
) -> list[tuple[str, str]]:
    """Calibrate over an archive; what was done."""
    from aeedge.archive.calibration import calibrate_archive

    where = wish.where() | {"column": wish.column}
    with progress_line("recalibrate", resumes=False) as line:
        report = calibrate_archive(bundle, sources, output, progress=line, **where, **options)
    _say_notes(report.recalibrated)
    return [*_told(report), *_summary(report.recalibrated)]


def _told(report: CalibrationReport) -> Iterator[tuple[str, str]]:
    """What was read, where and how long, and what became of the rows that did not calibrate."""
    what = "windows" if report.are_windows else "rows"
    yield "read", f"{many(report.files, 'file')} in {many(report.parts, 'part')}: {report.rows:,} {what}"
    if report.left_out:
        yield "left out", f"{report.left_out:,} {what}"
    yield from set_aside(report, what)
    used = report.recalibrated
    counted = f"{used.fit_rows:,} fitted the score + {used.calibration_rows:,} calibrated"
    more = f" + {report.left_out:,} left out" if report.left_out else ""
    more += f" + {report.set_aside:,} set aside" if report.set_aside else ""
    yield "check", f"{report.rows:,} {what} in = {counted}{more}"
    hosts = shortened(report.hosts, 4)
    yield "ran", f"{report.engine}, {many(report.workers, 'worker')} on {hosts}: {human_duration(report.seconds)}"


def _say_notes(found: Recalibrated) -> None:
    for note in found.notes:
        say(f"Note: {reworded(note, recalibrate)}", err=True)


def _rows(bundle: Bundle, sources: tuple[str, ...], reading: Mapping[str, Any], line: ProgressLine) -> NDArray[Any]:
    """All rows, in the model's shape; of recordings all windows."""
    spec = bundle.manifest.input
    wanted = Wanted(spec.features, spec.shape, spec.dtype, spec.dialect)
    if spec.signal is None:
        rows = open_all(sources, wanted, missing=spec.missing is not None, **reading)
    else:
        recordings = open_recordings(bundle, sources, reading, missing=spec.missing is not None)
        rows = RowFile(recordings.windows, None, recordings.notes)
    blocks, count = [], 0
    for block in rows.blocks():
        blocks.append(shaped(block, wanted))
        count += len(block)
        line.show([f"{count:,} rows"])
    line.end()
    for note in rows.notes:
        say(f"Note: {named(sources)}: {note}", err=True)
    if not count:
        raise InputError(f"{shortened(sources)}: expected at least one row, got none")
    return np.concatenate(blocks)


def _summary(found: Recalibrated) -> Iterator[tuple[str, str]]:
    """What was done with how many rows, and what has changed."""
    manifest, after, before = found.manifest, found.manifest.calibration, found.before
    assert after is not None
    count = found.fit_rows + found.calibration_rows
    if found.fit_rows:
        used = f"{found.fit_rows:,} of them fitted the score, {found.calibration_rows:,} calibrated"
    else:
        used = f"all calibrated; the parameters of the score ({manifest.score.kind}) are those of before"
    trimmed = found.calibration_rows - (after.calibrated or after.rows)
    yield "normal rows", f"{count:,}: {used}" + (f", without the {trimmed:,} of the highest scores" if trimmed else "")
    for variant, threshold in after.thresholds.items():
        old = None if before is None else before.thresholds.get(variant)
        yield f"threshold, {variant}", ("" if old is None else f"{old:.6g} → ") + f"{threshold:.6g}"
    rate = "" if before is None else f"{before.false_alarm_rate:.4g} → "
    yield "false-alarm rate", f"{rate}{after.false_alarm_rate:.4g}"
    if after.relative_error:
        yield "", f"thresholds are up to {100 * after.relative_error:.2g} % above those of all scores, never below"
    yield "id", manifest.id
    yield "parent", manifest.parent or ""
